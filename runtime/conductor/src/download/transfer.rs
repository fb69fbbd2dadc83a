//! Bringing the bytes: one connection goes on from the beginning, others bring what is missing from the end, until they
//! meet.
//!
//! The first one decides: what it is answered says how large the archive is, whether ranges of it can be had, and what
//! tells that a range belongs to it. The others are a help: whatever happens to them, it goes on alone. Only when one of
//! them is told that there is something else by now does everything begin again.

use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::fmt::rfc2822;
use model::Timestamp;
use ureq::Body;
use ureq::http::header::{
    ACCEPT_RANGES, CONTENT_RANGE, DATE, ETAG, HeaderName, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED,
    RANGE,
};
use ureq::http::{HeaderMap, Response, StatusCode};

use super::Rules;
use super::answer::{Answer, is_refusal};
use super::partial::{Left, Partial};
use super::request::{Asker, To, failed};
use crate::fetch::{FetchError, Place, Renew};
use crate::progress::Progress;

const WHOLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often it is tried again without a byte having come.
const TRIES: u32 = 3;
/// How often it is taken up again in all.
const MOST_RESUMES: u32 = 50;
/// How long to wait before the first further try; twice as long before the next.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest wait that a server may ask for.
const MOST_PAUSE: Duration = Duration::from_secs(30);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);
/// How often what is here is noted on the disk, in bytes.
const SAVE: u64 = 1 << 20;
/// What one connection takes on at a time, in bytes, at least.
const SHARE: u64 = 4 << 20;
const MOST_SHARE: u64 = 64 << 20;
/// From how many missing bytes on there is more than one connection.
const MANY: u64 = 16 << 20;
/// Connections beside the first.
const HELPERS: usize = 3;
/// What one read moves at most.
const BUFFER: usize = 1 << 16;
/// How much older than the answer a change must be, for its time to tell one content from another (RFC 9110, 8.8.2.2).
const OLD_ENOUGH: i64 = 60;

/// What to bring.
pub(crate) struct Job<'a> {
    pub(crate) place: &'a Place,
    /// Gives the place anew when it has expired.
    pub(crate) renew: Option<&'a Renew<'a>>,
    pub(crate) rules: &'a Rules,
    /// Tags of contents that are here already.
    pub(crate) known: &'a [String],
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The archive is whole. With its strong tag, where it has one.
    Here(Option<String>),
    /// It is what has this tag among those known.
    Unchanged(String),
}

/// Brings the archive at a place into a file.
pub(crate) fn download(job: &Job<'_>, partial: &Partial) -> Result<Outcome, FetchError> {
    let transfer = Transfer {
        rules: job.rules,
        renew: job.renew,
        known: job.known,
        url: job.place.shown().to_owned(),
        partial,
        until: Instant::now() + WHOLE_TIMEOUT,
        address: Mutex::new(Address {
            place: Arc::new(job.place.clone()),
            number: 0,
            is_fresh: false,
        }),
        state: Mutex::new(State {
            left: partial.left.clone(),
            saved: partial.left.ranges.bytes(),
            ..State::default()
        }),
        moved: Condvar::new(),
    };
    let mut again = 0;
    loop {
        let round = thread::scope(|scope| {
            let done = transfer.lead(scope);
            transfer.end();
            done
        });
        transfer.save();
        match round {
            Ok(Round::Whole) => {
                let left = &transfer.state().left;
                let tag = left.validator.clone().filter(|it| it.starts_with('"'));
                return Ok(Outcome::Here(tag));
            }
            Ok(Round::Unchanged(tag)) => return Ok(Outcome::Unchanged(tag)),
            Ok(Round::Changed) => {
                again += 1;
                if again >= TRIES {
                    return Err(FetchError::Restless { url: transfer.url });
                }
                transfer.start_again()?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// How a round ended, in which all connections work on the same content.
enum Round {
    Whole,
    Unchanged(String),
    /// There is another content by now.
    Changed,
}

/// Why one connection brought less than it should.
enum Trouble {
    Changed,
    Unchanged(String),
    Failed(FetchError),
}

impl From<FetchError> for Trouble {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}

struct Transfer<'a> {
    rules: &'a Rules,
    renew: Option<&'a Renew<'a>>,
    known: &'a [String],
    /// For messages.
    url: String,
    partial: &'a Partial,
    until: Instant,
    address: Mutex<Address>,
    state: Mutex<State>,
    /// Rung when bytes have become free, have come, or are no longer awaited.
    moved: Condvar,
}

struct Address {
    place: Arc<Place>,
    /// How often it was given anew.
    number: u32,
    /// Given anew, and no byte has come since.
    is_fresh: bool,
}

#[derive(Default)]
struct State {
    left: Left,
    /// How many bytes the disk knows of.
    saved: u64,
    told: Option<Instant>,
    /// Whether there are others beside the first connection.
    has_helpers: bool,
    /// Why the round is over for all, where it is.
    ended: Option<Trouble>,
    is_over: bool,
    /// What was begun again is wanted whatever it is.
    is_again: bool,
}

impl State {
    fn end(&self) -> u64 {
        self.left.total.unwrap_or(u64::MAX)
    }
}

impl Transfer<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on from the first byte that is missing until none is.
    fn lead<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Result<Round, FetchError> {
        let mut asker = Asker::new(self.rules, self.until);
        let (mut fruitless, mut resumes) = (0, 0);
        loop {
            let claim = match self.next()? {
                Next::Claim(claim) => claim,
                Next::Whole => return Ok(Round::Whole),
                Next::Changed => return Ok(Round::Changed),
            };
            let before = self.state().left.ranges.bytes();
            let done = self.bring(&mut asker, claim, Some(scope));
            let error = match done {
                Ok(()) => continue,
                Err(Trouble::Changed) => return Ok(Round::Changed),
                Err(Trouble::Unchanged(tag)) => return Ok(Round::Unchanged(tag)),
                Err(Trouble::Failed(error)) => error,
            };
            fruitless = if self.state().left.ranges.bytes() > before {
                0
            } else {
                fruitless + 1
            };
            resumes += 1;
            if !is_transient(&error) {
                return Err(error);
            }
            if fruitless >= TRIES || resumes > MOST_RESUMES {
                return Err(FetchError::GivenUp {
                    times: resumes,
                    source: Box::new(error),
                });
            }
            self.save();
            tracing::debug!(
                url = self.url,
                bytes_done = self.state().left.ranges.bytes(),
                %error,
                "a download broke off and is taken up again"
            );
            thread::sleep(pause(&error, fruitless));
        }
    }

    /// Brings shares from the end for as long as there are any and they come.
    fn help(&self) {
        let mut asker = Asker::new(self.rules, self.until);
        let (mut fruitless, mut resumes) = (0, 0);
        loop {
            let claim = {
                let mut state = self.state();
                if state.is_over {
                    return;
                }
                let end = state.end();
                let share = state.left.ranges.free(end) / (2 * HELPERS as u64);
                let share = share.clamp(SHARE, MOST_SHARE);
                match state.left.ranges.claim_last(end, share) {
                    Some(claim) => claim,
                    None => return,
                }
            };
            match self.bring(&mut asker, claim, None) {
                Ok(()) => fruitless = 0,
                Err(Trouble::Failed(error)) if may_pass(&error) => {
                    fruitless += 1;
                    resumes += 1;
                    tracing::debug!(url = self.url, %error, "a further connection of a download broke off");
                    if !is_transient(&error) || fruitless >= TRIES || resumes > MOST_RESUMES {
                        return;
                    }
                    thread::sleep(pause(&error, fruitless));
                }
                Err(trouble) => {
                    let mut state = self.state();
                    state.is_over = true;
                    state.ended.get_or_insert(trouble);
                    drop(state);
                    self.moved.notify_all();
                    return;
                }
            }
        }
    }

    fn end(&self) {
        self.state().is_over = true;
        self.moved.notify_all();
    }

    /// What there is to do for the first connection. Waits while others bring all that is missing.
    fn next(&self) -> Result<Next, FetchError> {
        let mut state = self.state();
        loop {
            match state.ended.take() {
                Some(Trouble::Failed(error)) => return Err(error),
                Some(_) => return Ok(Next::Changed),
                None => {}
            }
            let end = state.end();
            if state.left.total == Some(state.left.ranges.bytes()) {
                return Ok(Next::Whole);
            }
            if let Some(claim) = state.left.ranges.claim_first(end, SHARE) {
                return Ok(Next::Claim(claim));
            }
            state = self
                .moved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks for bytes and writes what comes. The first connection, which may start others, goes on behind its claim for as
    /// long as nobody else brings what is there.
    fn bring<'scope, 'env>(
        &'env self,
        asker: &mut Asker<'_>,
        claim: Range<u64>,
        lead: Option<&'scope Scope<'scope, 'env>>,
    ) -> Result<(), Trouble> {
        let mut held = Held {
            transfer: self,
            claim,
        };
        if lead.is_some() {
            self.forget_what_cannot_go_on(&mut held)?;
        }
        let (response, is_ranged) = self.ask(asker, &held.claim, lead.is_some())?;
        let length = response.body().content_length();
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT if is_ranged => {
                let mut state = self.state();
                let range = content_range(headers);
                if range.map(|(start, _)| start) != Some(held.claim.start)
                    || !is_same(&state.left, headers, range)
                {
                    return Err(match lead {
                        None => Trouble::Changed,
                        Some(_) => {
                            state.left.validator = None;
                            self.broken_off(&state).into()
                        }
                    });
                }
                let start = held.claim.start;
                let total = range.and_then(|(_, total)| total);
                let total = total.or(length.map(|length| start + length));
                state.left.total = state.left.total.or(total);
            }
            StatusCode::OK => {
                if lead.is_none() || self.state().has_helpers {
                    return Err(Trouble::Changed);
                }
                self.start_with(&mut held, headers, length)?;
            }
            StatusCode::NOT_MODIFIED => {
                let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
                let known = match (tag, self.known) {
                    (Some(tag), known) => known.iter().find(|known| *known == tag),
                    (None, [only]) => Some(only),
                    (None, _) => None,
                };
                return Err(match known {
                    Some(known) => Trouble::Unchanged(known.clone()),
                    None => Trouble::Changed,
                });
            }
            StatusCode::RANGE_NOT_SATISFIABLE if is_ranged => {
                return Err(match lead {
                    None => Trouble::Changed,
                    Some(_) => {
                        let mut state = self.state();
                        state.left.validator = None;
                        self.broken_off(&state).into()
                    }
                });
            }
            StatusCode::PRECONDITION_FAILED => {
                let url = self.url.clone();
                return Err(FetchError::Changed { url }.into());
            }
            _ => return Err(self.refused(Answer::of(response)).into()),
        }
        let end = self.state().left.total;
        if end.is_some_and(|total| total > self.rules.most_bytes) {
            return Err(self.too_large().into());
        }
        if let Some(scope) = lead {
            self.get_help(scope, response.headers(), is_ranged);
        }
        self.take(held, response, lead.is_some())
    }

    /// Without what tells that the rest belongs to the beginning, the beginning is worth nothing.
    fn forget_what_cannot_go_on(&self, held: &mut Held<'_, '_>) -> Result<(), FetchError> {
        let mut state = self.state();
        if state.left.validator.is_some() || state.left.ranges.bytes() == 0 || state.has_helpers {
            return Ok(());
        }
        drop(state);
        self.start_again()?;
        state = self.state();
        held.claim = state
            .left
            .ranges
            .claim_first(u64::MAX, SHARE)
            .unwrap_or(0..0);
        Ok(())
    }

    /// Sends the request for a range, or for all where nothing is here. A place that has expired is given anew.
    fn ask(
        &self,
        asker: &mut Asker<'_>,
        claim: &Range<u64>,
        is_lead: bool,
    ) -> Result<(Response<Body>, bool), FetchError> {
        let (validator, is_some, is_again) = {
            let state = self.state();
            let is_some = state.left.ranges.bytes() > 0;
            (state.left.validator.clone(), is_some, state.is_again)
        };
        let is_ranged = !is_lead || is_some;
        let mut more: Vec<(HeaderName, String)> = Vec::new();
        if is_ranged {
            let last = match is_lead {
                true => String::new(),
                false => (claim.end - 1).to_string(),
            };
            more.push((RANGE, format!("bytes={}-{last}", claim.start)));
            more.extend(validator.map(|validator| (IF_RANGE, validator)));
        } else if !self.known.is_empty() && !is_again {
            more.push((IF_NONE_MATCH, self.known.join(", ")));
        }
        loop {
            let (place, number) = self.place()?;
            let to = To {
                url: &place.url,
                shown: &self.url,
                headers: &place.headers,
            };
            let response = asker.send(&to, &more)?;
            if is_refusal(response.status()) && place.expires_at.is_some() && self.renew(number)? {
                continue;
            }
            return Ok((response, is_ranged));
        }
    }

    /// Where to ask, given anew when its time is over by the clock of this machine.
    fn place(&self) -> Result<(Arc<Place>, u32), FetchError> {
        let (place, number) = {
            let address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
            (address.place.clone(), address.number)
        };
        if place.expires_at.is_some_and(|at| at <= now()) && self.renew(number)? {
            let address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok((address.place.clone(), address.number));
        }
        Ok((place, number))
    }

    /// Asks for the place anew, unless somebody else has done so since. Whether there is another one to try.
    fn renew(&self, number: u32) -> Result<bool, FetchError> {
        let Some(renew) = self.renew else {
            return Ok(false);
        };
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if address.number != number {
            return Ok(true);
        }
        // What is refused fresh from the plugin is refused for another reason than its age.
        if address.is_fresh {
            return Ok(false);
        }
        let place = renew().map_err(|source| FetchError::Renew {
            url: self.url.clone(),
            source,
        })?;
        tracing::debug!(
            url = self.url,
            "the address of a download has expired and is given anew"
        );
        *address = Address {
            place: Arc::new(place),
            number: number + 1,
            is_fresh: true,
        };
        Ok(true)
    }

    /// Takes an answer that begins at the first byte.
    fn start_with(
        &self,
        held: &mut Held<'_, '_>,
        headers: &HeaderMap,
        length: Option<u64>,
    ) -> Result<(), FetchError> {
        self.start_again()?;
        let mut state = self.state();
        state.left.total = length;
        state.left.validator = validator(headers);
        let end = state.end();
        held.claim = state.left.ranges.claim_first(end, SHARE).unwrap_or(0..0);
        Ok(())
    }

    /// Starts further connections, where the server gives ranges and much is missing.
    fn get_help<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        headers: &HeaderMap,
        is_ranged: bool,
    ) {
        let mut state = self.state();
        let Some(total) = state.left.total else {
            return;
        };
        let accepts = headers.get(ACCEPT_RANGES).and_then(|it| it.to_str().ok());
        let gives_ranges = is_ranged || accepts.is_some_and(|it| it.eq_ignore_ascii_case("bytes"));
        let is_certain = state.left.validator.is_some();
        if state.has_helpers || !gives_ranges || !is_certain || state.left.ranges.free(total) < MANY
        {
            return;
        }
        state.has_helpers = true;
        for _ in 0..HELPERS {
            scope.spawn(|| self.help());
        }
    }

    /// Writes what comes to where it belongs.
    fn take(
        &self,
        mut held: Held<'_, '_>,
        response: Response<Body>,
        is_lead: bool,
    ) -> Result<(), Trouble> {
        let body = response.into_body();
        let mut body = body.into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            if held.claim.is_empty() {
                let mut state = self.state();
                let (at, end) = (held.claim.start, state.end());
                match state.left.ranges.claim_at(at, end, SHARE) {
                    Some(claim) if is_lead => held.claim = claim,
                    Some(claim) => {
                        state.left.ranges.release(claim.start);
                        return Ok(());
                    }
                    None => return Ok(()),
                }
            }
            let room = usize::try_from(held.claim.end - held.claim.start).unwrap_or(BUFFER);
            let room = room.min(BUFFER);
            let read = match body.read(&mut buffer[..room]) {
                Ok(0) => return self.ended(&held),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(&self.url, ureq::Error::Io(error)).into()),
            };
            let bytes = held.claim.start..held.claim.start + read as u64;
            if bytes.end > self.rules.most_bytes {
                return Err(self.too_large().into());
            }
            self.partial
                .file
                .write_all_at(&buffer[..read], bytes.start)
                .map_err(|source| self.stored(source))?;
            held.claim.start = bytes.end;
            if self.arrived(bytes) {
                // Somebody knows better.
                return Ok(());
            }
        }
    }

    /// The body has no more bytes.
    fn ended(&self, held: &Held<'_, '_>) -> Result<(), Trouble> {
        let mut state = self.state();
        match state.left.total {
            None => {
                state.left.total = Some(held.claim.start);
                Ok(())
            }
            Some(_) => Err(self.broken_off(&state).into()),
        }
    }

    /// Notes that bytes are on the disk. Whether the round is over.
    fn arrived(&self, bytes: Range<u64>) -> bool {
        let mut state = self.state();
        state.left.ranges.arrived(bytes);
        let done = state.left.ranges.bytes();
        let total = state.left.total;
        if done >= state.saved + SAVE {
            state.saved = done;
            self.partial.save(&state.left);
        }
        let is_over = state.is_over;
        let at = Instant::now();
        let is_due = total == Some(done) || state.told.is_none_or(|told| at - told >= TELL);
        if is_due {
            state.told = Some(at);
        }
        drop(state);
        self.address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_fresh = false;
        if total == Some(done) {
            self.moved.notify_all();
        }
        if is_due {
            tracing::debug!(
                url = self.url,
                bytes_done = done,
                bytes_total = total,
                "downloading"
            );
            (self.rules.progress)(&Progress::Download {
                url: self.url.clone(),
                done,
                total,
            });
        }
        is_over
    }

    fn start_again(&self) -> Result<(), FetchError> {
        let mut state = self.state();
        *state = State {
            told: state.told,
            is_again: true,
            ..State::default()
        };
        self.partial.clear().map_err(|source| self.stored(source))
    }

    fn save(&self) {
        let mut state = self.state();
        state.saved = state.left.ranges.bytes();
        if state.saved > 0 {
            self.partial.save(&state.left);
        }
    }

    fn stored(&self, source: io::Error) -> FetchError {
        FetchError::Store {
            reference: self.url.clone(),
            source,
        }
    }

    fn refused(&self, answer: Answer) -> FetchError {
        FetchError::Answer {
            url: self.url.clone(),
            source: Box::new(answer),
        }
    }

    fn broken_off(&self, state: &State) -> FetchError {
        let received = state.left.ranges.bytes();
        FetchError::BrokenOff {
            url: self.url.clone(),
            received,
            expected: state.left.total.unwrap_or(received),
        }
    }

    fn too_large(&self) -> FetchError {
        FetchError::TooLarge {
            url: self.url.clone(),
            limit: self.rules.most_bytes,
        }
    }
}

enum Next {
    Claim(Range<u64>),
    Whole,
    Changed,
}

/// A claim, which is given up when nobody works on it.
struct Held<'t, 'a> {
    transfer: &'t Transfer<'a>,
    claim: Range<u64>,
}

impl Drop for Held<'_, '_> {
    fn drop(&mut self) {
        if !self.claim.is_empty() {
            let mut state = self.transfer.state();
            state.left.ranges.release(self.claim.start);
            drop(state);
            self.transfer.moved.notify_all();
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
}

fn pause(error: &FetchError, fruitless: u32) -> Duration {
    let asked = match error {
        FetchError::Answer { source, .. } => source.retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    };
    (PAUSE * 2_u32.pow(fruitless)).max(asked.min(MOST_PAUSE))
}

fn is_transient(error: &FetchError) -> bool {
    match error {
        FetchError::BrokenOff { .. } => true,
        FetchError::Answer { source, .. } => source.is_transient(),
        FetchError::Download { source, .. } => matches!(
            &**source,
            ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::ConnectionFailed
                | ureq::Error::Protocol(_)
                | ureq::Error::BodyStalled
        ),
        _ => false,
    }
}

/// Whether an error of one connection says nothing about the others.
fn may_pass(error: &FetchError) -> bool {
    !matches!(
        error,
        FetchError::Store { .. } | FetchError::TooLarge { .. } | FetchError::Changed { .. }
    )
}

/// What makes a range of bytes belong to an earlier one. A weak tag does not, and a time of change only when no other
/// change can have the same.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(tag) = text(ETAG).filter(|tag| tag.starts_with('"')) {
        return Some(tag.to_owned());
    }
    let changed = text(LAST_MODIFIED)?;
    let seconds = |text: &str| Some(rfc2822::parse(text).ok()?.timestamp().as_second());
    let age = seconds(text(DATE)?)? - seconds(changed)?;
    (age >= OLD_ENOUGH).then(|| changed.to_owned())
}

/// Whether a range is of what the others are of, as far as the server says.
fn is_same(left: &Left, headers: &HeaderMap, range: Option<(u64, Option<u64>)>) -> bool {
    let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
    let known = left.validator.as_deref().filter(|it| it.starts_with('"'));
    let total = range.and_then(|(_, total)| total);
    known.zip(tag).is_none_or(|(known, tag)| known == tag)
        && left
            .total
            .zip(total)
            .is_none_or(|(known, total)| known == total)
}

/// Where a range begins, and how long the whole is.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (start, rest) = range.strip_prefix("bytes ")?.split_once('-')?;
    let total = rest
        .split_once('/')
        .and_then(|(_, it)| it.trim().parse().ok());
    Some((start.trim().parse().ok()?, total))
}
