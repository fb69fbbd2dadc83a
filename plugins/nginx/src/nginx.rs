//! Changing nginx: files, the test of the configuration, the reload, and the proof that the change is live.
//!
//! Every change raises the version, a number in an include file that nginx serves at a location. The change is live when
//! nothing answers an older one and, where `ps` is granted, no worker that ran before the reload takes requests any more: a
//! reload starts the new workers first, and for a tenth of a second both accept connections. Files are put back when nginx
//! refuses them. While nginx has not read a file, what it has instead is beside it, as `FILE.before`.

use std::time::Duration;

use cutover_plugin_sdk::{Failure, FailureClass, Outcome, Pending};

use crate::config::{self, Config};

/// Between two looks at nginx.
const POLL_STEP: Duration = Duration::from_millis(50);

/// How many answers in a row tell which version is live. While a reload begins, workers of both accept connections.
const LOOKS: usize = 3;

/// What nginx lives in.
pub(crate) trait World {
    /// Reads an include file.
    fn read(&self, file: &str) -> Result<Option<String>, Failure>;
    fn write(&self, file: &str, text: &str) -> Result<(), Failure>;
    fn run(&self, program: &str, arguments: &[String]) -> Result<Ran, Failure>;
    /// The body that the status location answers with.
    fn status(&self) -> Result<String, Failure>;
    /// The status that a member answers with.
    fn member(&self, url: &str) -> Result<u16, Failure>;
}

/// What a program said and how it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One file and what shall be in it.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) file: String,
    pub(crate) before: String,
    pub(crate) after: String,
}

/// When a change is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Requests that begin follow it.
    Live,
    /// Requests that began before are over, too, as far as nginx tells.
    Drained,
}

/// What nginx says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Live {
    version: u64,
    worker: Option<u32>,
}

/// The version of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    version: u64,
    /// The workers that ran when nginx was told to read it.
    replaces: Vec<u32>,
}

/// How far nginx has come in following the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The version of the files.
    pub(crate) written: u64,
    /// The oldest version that nginx answers.
    pub(crate) live: u64,
    /// Workers that are being replaced and take requests yet. None are told of without `ps`, nor are those that finish.
    taking: usize,
    /// Workers that take no more requests and finish those they have.
    pub(crate) finishing: usize,
}

/// A file, and which content of it requests follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum File {
    /// The present one.
    Read { text: String },
    /// The earlier one with workers that are being replaced, the present one with the others.
    BeingRead { text: String, earlier: String },
    /// The earlier one: nginx has not read the file since.
    Unread { text: String, earlier: String },
}

impl File {
    /// What the file holds.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Read { text } | Self::BeingRead { text, .. } | Self::Unread { text, .. } => text,
        }
    }

    /// What requests follow, those that workers which are being replaced take left aside.
    pub(crate) fn followed(&self) -> &str {
        match self {
            Self::Read { text } | Self::BeingRead { text, .. } => text,
            Self::Unread { earlier, .. } => earlier,
        }
    }
}

struct Worker {
    pid: u32,
    is_leaving: bool,
}

pub(crate) struct Nginx<'a> {
    pub(crate) world: &'a dyn World,
    pub(crate) config: &'a Config,
}

impl Nginx<'_> {
    /// Reads an include file that must be there.
    pub(crate) fn text(&self, file: &str, beginning: &str) -> Result<String, Failure> {
        self.world.read(file)?.ok_or_else(|| {
            let directory = &self.config.directory;
            Failure::not_found(
                "nginx.file",
                format!("there is no `{file}` in directory `{directory}`"),
            )
            .hint(format!(
                "include it in nginx's configuration, and begin with: {beginning}"
            ))
        })
    }

    /// Reads an include file that must be there, and tells what nginx has of it.
    pub(crate) fn file(
        &self,
        file: &str,
        beginning: &str,
        standing: Standing,
    ) -> Result<File, Failure> {
        let text = self.text(file, beginning)?;
        let earlier = self.world.read(&before(file))?;
        Ok(match earlier.as_deref().map(since) {
            Some((since, earlier)) if standing.live < since && earlier != text => File::Unread {
                earlier: earlier.to_owned(),
                text,
            },
            Some((since, earlier)) if standing.taking > 0 && since == standing.written => {
                File::BeingRead {
                    earlier: earlier.to_owned(),
                    text,
                }
            }
            _ => File::Read { text },
        })
    }

    fn written(&self) -> Result<Written, Failure> {
        let file = self.config.version_file();
        let beginning = self.version_text(&Written {
            version: 0,
            replaces: Vec::new(),
        });
        let text = self.text(&file, beginning.trim_end())?;
        let version = text.split('"').nth(3).and_then(|text| text.parse().ok());
        let version = version.ok_or_else(|| {
            Failure::permanent(
                "nginx.version",
                format!("`{file}` does not have the form: {}", beginning.trim_end()),
            )
        })?;
        let workers = text.split_once(REPLACES).map_or("", |(_, workers)| workers);
        Ok(Written {
            version,
            replaces: workers.split_whitespace().flat_map(str::parse).collect(),
        })
    }

    fn version_text(&self, written: &Written) -> String {
        let mut text = format!(
            "map \"\" ${}_version {{ default \"{}\"; }}",
            self.config.name, written.version
        );
        if !written.replaces.is_empty() {
            text.push_str(REPLACES);
            for worker in &written.replaces {
                text.push_str(&format!(" {worker}"));
            }
        }
        text + "\n"
    }

    /// The oldest version that nginx answers.
    fn live(&self) -> Result<Live, Failure> {
        let mut oldest = self.look()?;
        for _ in 1..LOOKS {
            let look = self.look()?;
            if look.version < oldest.version {
                oldest = look;
            }
        }
        Ok(oldest)
    }

    fn look(&self) -> Result<Live, Failure> {
        let body = self.world.status()?;
        let mut words = body.split_whitespace();
        let version = words.next().and_then(|word| word.parse().ok());
        let worker = words.next().and_then(|word| word.parse().ok());
        match version {
            Some(version) if worker.is_some() || self.config.ps.is_none() => {
                Ok(Live { version, worker })
            }
            _ => {
                let what = if version.is_none() {
                    "version"
                } else {
                    "worker"
                };
                let beginning: String = body.trim().chars().take(80).collect();
                let config::Status { address, path } = &self.config.status;
                Err(Failure::permanent(
                    "nginx.status",
                    format!("`{path}` answered no {what}, but: {beginning}"),
                )
                .hint(format!(
                    "add to the server at {address}: location = {path} {{ return 200 \"${}_version $pid\\n\"; }}",
                    self.config.name
                )))
            }
        }
    }

    /// nginx's workers. None are told of without `ps`.
    fn workers(&self, mut live: Live) -> Result<Vec<Worker>, Failure> {
        let (Some(ps), Some(mut worker)) = (&self.config.ps, live.worker) else {
            return Ok(Vec::new());
        };
        let run = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
            self.world.run(ps, &arguments)
        };
        // The worker that answered may be one that has ended since: then one of its successors is asked.
        for _ in 0..LOOKS {
            let parent = run(&["-o", "ppid=", "-p", &worker.to_string()])?.stdout;
            let parent = parent.trim();
            if !parent.is_empty() {
                let children = run(&["--ppid", parent, "-o", "pid=,args="])?.stdout;
                return Ok(children.lines().filter_map(Worker::parse).collect());
            }
            live = self.look()?;
            worker = live.worker.unwrap_or(worker);
        }
        Err(Failure::transient(
            "nginx.workers",
            format!("`ps` does not know worker {worker} of nginx, which answered"),
        )
        .hint("nginx has to run on the conductor's machine, and `ps` has to see its processes"))
    }

    /// How far nginx has come in following the files.
    pub(crate) fn standing(&self) -> Result<Standing, Failure> {
        let written = self.written()?;
        let live = self.live()?;
        let workers = self.workers(live)?;
        let count = |is_meant: &dyn Fn(&Worker) -> bool| {
            workers.iter().filter(|worker| is_meant(worker)).count()
        };
        Ok(Standing {
            written: written.version,
            live: live.version,
            taking: count(&|worker| !worker.is_leaving && written.replaces.contains(&worker.pid)),
            finishing: count(&|worker| worker.is_leaving),
        })
    }

    /// Lets nginx test the configuration as the files are.
    pub(crate) fn test(&self) -> Result<(), Failure> {
        let ran = self
            .world
            .run(&self.config.program, &self.config.arguments(&["-t", "-q"]))?;
        if ran.code == 0 {
            return Ok(());
        }
        Err(Failure::invalid(
            "nginx.configuration",
            format!("nginx refuses the configuration: {}", words(&ran.stderr)),
        ))
    }

    /// Writes what differs, tests it and reloads: one reload for all changes. What nginx had stays beside, as
    /// `FILE.before`, and is put back when nginx refuses.
    pub(crate) fn apply(
        &self,
        changes: &[Change],
        until: Until,
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let changes: Vec<&Change> = changes
            .iter()
            .filter(|change| change.before != change.after)
            .collect();
        let mut written = self.written()?;
        if changes.is_empty() {
            let standing = self.standing()?;
            // A call that broke off may have left files that nginx has not read.
            if standing.live >= standing.written {
                return Ok(match self.finish(standing.written, until)? {
                    Outcome::Pending(pending) => Outcome::Pending(pending),
                    _ => Outcome::Unchanged,
                });
            }
            if dry_run {
                return Ok(Outcome::changed());
            }
            self.test()?;
            self.reload(&mut written, &mut Undo::default())?;
            return self.finish(written.version, until);
        }
        if dry_run {
            return Ok(Outcome::changed());
        }
        let mut undo = Undo::default();
        let changed = self
            .write(&changes, &mut written, &mut undo)
            .and_then(|()| self.test())
            .and_then(|()| self.reload(&mut written, &mut undo));
        match changed {
            Ok(()) => self.finish(written.version, until),
            Err(failure) if failure.class == FailureClass::UnknownOutcome => Err(failure),
            Err(failure) => Err(undo.put_back(self.world, failure)),
        }
    }

    /// Writes the files under the next version. The version goes first: wherever this breaks off, a content that nginx has
    /// not read has a version that nginx does not answer.
    fn write(
        &self,
        changes: &[&Change],
        written: &mut Written,
        undo: &mut Undo,
    ) -> Result<(), Failure> {
        let live = self.live()?.version;
        for change in changes {
            let file = before(&change.file);
            let earlier = self.world.read(&file)?;
            let present = (0, change.before.as_str());
            let (since, text) = earlier.as_deref().map_or(present, since);
            // What nginx never read is not what was before.
            let text = if live < since { text } else { &change.before };
            let text = format!("{SINCE}{}\n{text}", written.version + 1);
            self.put(&file, earlier.as_deref(), &text, undo)?;
        }
        let present = self.version_text(written);
        written.version += 1;
        let text = self.version_text(written);
        self.put(&self.config.version_file(), Some(&present), &text, undo)?;
        changes
            .iter()
            .try_for_each(|it| self.put(&it.file, Some(&it.before), &it.after, undo))
    }

    fn put(
        &self,
        file: &str,
        present: Option<&str>,
        text: &str,
        undo: &mut Undo,
    ) -> Result<(), Failure> {
        if let Some(present) = present {
            undo.0.push((file.to_owned(), present.to_owned()));
        }
        self.world.write(file, text)
    }

    /// Tells nginx to read the files, and writes down which workers have to go for that.
    fn reload(&self, written: &mut Written, undo: &mut Undo) -> Result<(), Failure> {
        let workers = self.workers(self.live()?)?;
        if !workers.is_empty() {
            let present = self.version_text(written);
            written.replaces = workers.iter().map(|worker| worker.pid).collect();
            let text = self.version_text(written);
            self.put(&self.config.version_file(), Some(&present), &text, undo)?;
        }
        let arguments = self.config.arguments(&["-s", "reload"]);
        let ran = self.world.run(&self.config.program, &arguments);
        let ran = ran.map_err(|failure| match failure.class {
            FailureClass::Transient => Failure {
                // nginx may have got the signal: putting the files back would tell of what it has not.
                class: FailureClass::UnknownOutcome,
                ..failure
            },
            _ => failure,
        })?;
        if ran.code == 0 {
            return Ok(());
        }
        Err(Failure::permanent(
            "nginx.reload",
            format!("nginx cannot be reloaded: {}", words(&ran.stderr)),
        )
        .hint(
            "see that it runs, and that `prefix` and `config` are those that it was started with",
        ))
    }

    /// Whether a version is live, and its predecessors gone where that was asked for.
    fn finish(&self, version: u64, until: Until) -> Result<Outcome, Failure> {
        let Standing {
            live,
            taking,
            finishing,
            ..
        } = self.standing()?;
        let token = match until {
            Until::Live => format!("{version} live"),
            Until::Drained => format!("{version} drained"),
        };
        let pending = |message| Ok(Outcome::Pending(Pending::new(token, POLL_STEP, message)));
        if live < version {
            return pending(format!("nginx has version {live}, not yet {version}"));
        }
        let finishing = match until {
            Until::Live => 0,
            Until::Drained => finishing,
        };
        match (taking, finishing) {
            (0, 0) => Ok(Outcome::changed()),
            (0, 1) => pending("1 old worker finishes its requests".to_owned()),
            (0, many) => pending(format!("{many} old workers finish their requests")),
            (1, _) => pending("1 old worker takes requests yet".to_owned()),
            (many, _) => pending(format!("{many} old workers take requests yet")),
        }
    }

    /// Goes on with what left a token.
    pub(crate) fn poll(&self, token: &str) -> Result<Outcome, Failure> {
        let known = token.split_once(' ').and_then(|(version, until)| {
            let until = match until {
                "live" => Until::Live,
                "drained" => Until::Drained,
                _ => return None,
            };
            Some((version.parse().ok()?, until))
        });
        let (version, until) = known.ok_or_else(|| {
            Failure::invalid(
                "nginx.token",
                format!("`{token}` is no token of this plugin"),
            )
        })?;
        self.finish(version, until)
    }
}

/// Introduces the workers that a version replaces, in the file of the version.
const REPLACES: &str = " # in the place of workers";

/// Begins the first line of `FILE.before`: the version since which the file holds something else.
const SINCE: &str = "# before version ";

fn before(file: &str) -> String {
    format!("{file}.before")
}

/// The version since which a file holds something else, and what it held before. Without a version, nginx has read it.
fn since(earlier: &str) -> (u64, &str) {
    let parts = earlier
        .strip_prefix(SINCE)
        .and_then(|rest| rest.split_once('\n'));
    match parts.map(|(version, text)| (version.parse(), text)) {
        Some((Ok(version), text)) => (version, text),
        _ => (0, earlier),
    }
}

impl Worker {
    /// Reads a line `PID TITLE` of `ps`. nginx has children that serve nobody, too.
    fn parse(line: &str) -> Option<Self> {
        let (pid, title) = line.trim().split_once(' ')?;
        Some(Self {
            pid: pid
                .parse()
                .ok()
                .filter(|_| title.contains("worker process"))?,
            is_leaving: title.contains("is shutting down"),
        })
    }
}

/// Files that were written, with what was in them.
#[derive(Debug, Default)]
struct Undo(Vec<(String, String)>);

impl Undo {
    /// Puts the files back after a failure, which then says so.
    fn put_back(self, world: &dyn World, mut failure: Failure) -> Failure {
        let files = self.0.iter().rev();
        let back = files
            .map(|(file, text)| world.write(file, text))
            .try_for_each(|written| written);
        failure.hint = Some(match (back, failure.hint) {
            (Ok(()), None) => "the files are as they were before".to_owned(),
            (Ok(()), Some(hint)) => format!("{hint}; the files are as they were before"),
            (Err(error), _) => format!(
                "the files could not be put back ({}): they are beside, as `….before`",
                error.message
            ),
        });
        failure
    }
}

/// nginx's own words: the first line, without the time and the process.
fn words(stderr: &str) -> String {
    let line = stderr
        .lines()
        .find(|line| line.contains("[emerg]") || line.contains("[error]"))
        .or_else(|| stderr.lines().next())
        .unwrap_or("it said nothing");
    let at = line.find('[').unwrap_or(0);
    line[at..].chars().take(500).collect()
}

#[cfg(test)]
pub(crate) mod fake {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::*;

    /// An nginx that reloads `lag` looks after it was told to.
    pub(crate) struct Fake {
        pub(crate) files: RefCell<BTreeMap<String, String>>,
        /// What `-t` says when a file holds it.
        pub(crate) refuses: &'static str,
        /// The file that cannot be written, as if the call ended there.
        pub(crate) breaks_off_at: Cell<&'static str>,
        pub(crate) reload: Cell<Reload>,
        pub(crate) lag: Cell<u32>,
        pub(crate) live: Cell<u64>,
        /// Each with whether it is shutting down.
        pub(crate) workers: RefCell<Vec<(u32, bool)>>,
        pub(crate) reloads: Cell<u32>,
        pub(crate) member: RefCell<Result<u16, Failure>>,
    }

    /// What becomes of a reload.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Reload {
        Done,
        /// Done, but the old workers are there yet.
        Slow,
        /// The program takes too long, and nginx never hears of it.
        Lost,
        Refused,
    }

    impl Fake {
        pub(crate) fn with(files: &[(&str, &str)]) -> Self {
            let fake = Self {
                files: RefCell::default(),
                refuses: "",
                breaks_off_at: Cell::new(""),
                reload: Cell::new(Reload::Done),
                lag: Cell::new(0),
                live: Cell::new(0),
                workers: RefCell::new(vec![(7, false)]),
                reloads: Cell::new(0),
                member: RefCell::new(Ok(200)),
            };
            for (file, text) in files {
                fake.set(file, text);
            }
            fake.set(
                "shop.version.conf",
                "map \"\" $shop_version { default \"0\"; }\n",
            );
            fake
        }

        pub(crate) fn set(&self, file: &str, text: &str) {
            self.files
                .borrow_mut()
                .insert(file.to_owned(), text.to_owned());
        }

        pub(crate) fn text(&self, file: &str) -> String {
            self.files.borrow()[file].clone()
        }

        /// What somebody does by hand, too.
        pub(crate) fn read_files(&self) {
            let text = self.text("shop.version.conf");
            self.live
                .set(text.split('"').nth(3).unwrap().parse().unwrap());
            let mut workers = self.workers.borrow_mut();
            let next = workers.iter().map(|(pid, _)| pid + 1).max().unwrap();
            if self.reload.get() != Reload::Slow {
                workers.clear();
            }
            workers.push((next, false));
        }
    }

    impl World for Fake {
        fn read(&self, file: &str) -> Result<Option<String>, Failure> {
            Ok(self.files.borrow().get(file).cloned())
        }

        fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
            if file == self.breaks_off_at.get() {
                let gone = "the conductor is gone";
                return Err(Failure::new(FailureClass::UnknownOutcome, "gone", gone));
            }
            self.set(file, text);
            Ok(())
        }

        fn run(&self, _program: &str, arguments: &[String]) -> Result<Ran, Failure> {
            let files = self.files.borrow();
            let mut current = files.iter().filter(|(file, _)| !file.ends_with(".before"));
            let is_bad =
                !self.refuses.is_empty() && current.any(|(_, text)| text.contains(self.refuses));
            let said = |code, stderr: &str| {
                Ok(Ran {
                    code,
                    stderr: stderr.to_owned(),
                    ..Ran::default()
                })
            };
            let told = |stdout: String| {
                Ok(Ran {
                    stdout,
                    ..Ran::default()
                })
            };
            match (arguments[0].as_str(), self.reload.get()) {
                ("-t", _) if is_bad => {
                    said(1, "2026/11/21 17:37:03 [emerg] 9#9: unknown directive\n")
                }
                ("-s", Reload::Lost) => Err(Failure::transient("io", "run `nginx`: timed out")),
                ("-s", Reload::Refused) => said(1, "nginx: [error] invalid PID number \"\"\n"),
                ("-s", _) => {
                    drop(files);
                    self.reloads.set(self.reloads.get() + 1);
                    if self.lag.get() == 0 {
                        self.read_files();
                    }
                    Ok(Ran::default())
                }
                ("-o", _) => told(" 42\n".to_owned()),
                ("--ppid", _) => {
                    let mut lines = " 43 nginx: cache manager process\n".to_owned();
                    for (pid, is_leaving) in &*self.workers.borrow() {
                        let more = if *is_leaving { " is shutting down" } else { "" };
                        lines.push_str(&format!("{pid:>5} nginx: worker process{more}\n"));
                    }
                    told(lines)
                }
                _ => Ok(Ran::default()),
            }
        }

        fn status(&self) -> Result<String, Failure> {
            if self.lag.get() > 0 && self.reloads.get() > 0 {
                self.lag.set(self.lag.get() - 1);
                if self.lag.get() == 0 {
                    self.read_files();
                }
            }
            let workers = self.workers.borrow();
            Ok(format!(
                "{} {}\n",
                self.live.get(),
                workers[workers.len() - 1].0
            ))
        }

        fn member(&self, _url: &str) -> Result<u16, Failure> {
            self.member.borrow().clone()
        }
    }

    pub(crate) const CONFIG: &str = r#"{"directory": "nginx", "name": "shop", "upstream": "shop", "ps": "ps",
        "status": {"address": "tcp:127.0.0.1:8089", "path": "/cutover"}}"#;

    pub(crate) fn config() -> Config {
        cutover_plugin_sdk::parse_config(CONFIG).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{Fake, Reload, config};
    use super::*;

    const FILE: &str = "shop.servers";

    fn change(before: &str, after: &str) -> Change {
        Change {
            file: FILE.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    fn with<T>(fake: &Fake, operation: impl FnOnce(&Nginx<'_>) -> T) -> T {
        let config = config();
        operation(&Nginx {
            world: fake,
            config: &config,
        })
    }

    fn apply(fake: &Fake, before: &str, after: &str) -> Result<Outcome, Failure> {
        with(fake, |nginx| {
            nginx.apply(&[change(before, after)], Until::Live, false)
        })
    }

    fn poll(fake: &Fake, token: &str) -> Result<Outcome, Failure> {
        with(fake, |nginx| nginx.poll(token))
    }

    /// What the file holds and what requests follow.
    fn file(fake: &Fake) -> [String; 2] {
        let file = with(fake, |nginx| nginx.file(FILE, "", nginx.standing()?)).unwrap();
        [file.text().to_owned(), file.followed().to_owned()]
    }

    fn pending(outcome: Result<Outcome, Failure>) -> Pending {
        match outcome {
            Ok(Outcome::Pending(pending)) => pending,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_change_is_written_tested_and_live_and_the_old_file_is_kept() {
        let fake = Fake::with(&[(FILE, "old")]);

        let outcome = apply(&fake, "old", "new");

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(
            (fake.text(FILE), fake.text("shop.servers.before")),
            ("new".to_owned(), "# before version 1\nold".to_owned())
        );
        assert_eq!((fake.live.get(), fake.reloads.get()), (1, 1));
    }

    #[test]
    fn a_change_that_is_not_live_yet_is_pending() {
        let fake = Fake::with(&[(FILE, "old")]);
        fake.lag.set(7);

        let pending = pending(apply(&fake, "old", "new"));

        assert_eq!(pending.message, "nginx has version 0, not yet 1");
        assert_eq!(file(&fake), ["new", "old"]);
        assert_eq!(poll(&fake, &pending.token), Ok(Outcome::changed()));
        assert_eq!(file(&fake), ["new", "new"]);
    }

    #[test]
    fn a_change_is_not_live_while_a_worker_of_before_takes_requests() {
        let fake = Fake::with(&[(FILE, "old")]);
        fake.reload.set(Reload::Slow);

        let pending = pending(apply(&fake, "old", "new"));

        assert_eq!(fake.live.get(), 1);
        assert_eq!(pending.message, "1 old worker takes requests yet");
        fake.workers.borrow_mut()[0].1 = true;
        assert_eq!(poll(&fake, &pending.token), Ok(Outcome::changed()));
    }

    #[test]
    fn drained_means_that_the_old_workers_have_ended() {
        let fake = Fake::with(&[(FILE, "old")]);
        *fake.workers.borrow_mut() = vec![(5, true), (6, true), (7, false)];
        fake.reload.set(Reload::Slow);
        let outcome = with(&fake, |nginx| {
            nginx.apply(&[change("old", "new")], Until::Drained, false)
        });

        let first = pending(outcome);
        fake.workers.borrow_mut()[2].1 = true;
        let second = pending(poll(&fake, &first.token));
        fake.workers.borrow_mut().drain(..3);

        assert_eq!(first.message, "1 old worker takes requests yet");
        assert_eq!(second.message, "3 old workers finish their requests");
        assert_eq!(poll(&fake, &first.token), Ok(Outcome::changed()));
    }

    #[test]
    fn what_nginx_refuses_is_put_back_and_told_in_its_words() {
        let fake = Fake {
            refuses: "bogus",
            ..Fake::with(&[(FILE, "old")])
        };
        apply(&fake, "old", "good").unwrap();
        let files = fake.files.borrow().clone();

        let failure = apply(&fake, "good", "bogus").unwrap_err();

        assert_eq!(failure.class, FailureClass::Invalid);
        assert_eq!(
            failure.message,
            "nginx refuses the configuration: [emerg] 9#9: unknown directive"
        );
        assert_eq!(
            failure.hint.as_deref(),
            Some("the files are as they were before")
        );
        assert_eq!(*fake.files.borrow(), files);
        assert_eq!(fake.reloads.get(), 1);
    }

    #[test]
    fn a_reload_that_is_refused_is_put_back() {
        let fake = Fake::with(&[(FILE, "old")]);
        fake.reload.set(Reload::Refused);

        let failure = apply(&fake, "old", "new").unwrap_err();

        assert_eq!(failure.class, FailureClass::Permanent);
        assert!(failure.message.ends_with("[error] invalid PID number \"\""));
        assert_eq!(file(&fake), ["old", "old"]);
    }

    #[test]
    fn a_reload_of_which_nothing_is_known_is_read_back_and_done_again() {
        let fake = Fake::with(&[(FILE, "old")]);
        fake.reload.set(Reload::Lost);

        let failure = apply(&fake, "old", "new").unwrap_err();

        assert_eq!(failure.class, FailureClass::UnknownOutcome);
        assert_eq!(file(&fake), ["new", "old"]);
        fake.reload.set(Reload::Done);
        assert_eq!(apply(&fake, "new", "new"), Ok(Outcome::changed()));
        assert_eq!(file(&fake), ["new", "new"]);
        assert_eq!(apply(&fake, "new", "new"), Ok(Outcome::Unchanged));
        assert_eq!(fake.reloads.get(), 1);
    }

    #[test]
    fn wherever_a_call_breaks_off_nothing_unread_counts_as_live_and_the_next_call_finishes() {
        for at in ["shop.servers.before", "shop.version.conf", FILE] {
            let fake = Fake::with(&[(FILE, "oldest")]);
            apply(&fake, "oldest", "old").unwrap();
            fake.breaks_off_at.set(at);

            apply(&fake, "old", "new").unwrap_err();

            let [text, followed] = file(&fake);
            assert_eq!(followed, "old", "{at}");
            fake.breaks_off_at.set("");
            assert_eq!(apply(&fake, &text, "new"), Ok(Outcome::changed()), "{at}");
            assert_eq!(file(&fake), ["new", "new"], "{at}");
        }
    }

    #[test]
    fn what_nginx_never_read_is_not_what_was_before() {
        let fake = Fake::with(&[(FILE, "old")]);
        fake.reload.set(Reload::Lost);
        apply(&fake, "old", "never").unwrap_err();

        apply(&fake, "never", "new").unwrap_err();

        assert_eq!(file(&fake), ["new", "old"]);
        fake.read_files();
        assert_eq!(file(&fake), ["new", "new"]);
    }

    #[test]
    fn a_location_that_tells_no_worker_is_told_how_it_has_to_be() {
        let fake = Fake::with(&[(FILE, "old")]);
        let silent = Silent(fake);
        let config = config();
        let nginx = Nginx {
            world: &silent,
            config: &config,
        };

        let failure = nginx.standing().unwrap_err();

        assert_eq!(failure.message, "`/cutover` answered no worker, but: 0");
        assert_eq!(
            failure.hint.as_deref(),
            Some(
                "add to the server at tcp:127.0.0.1:8089: location = /cutover { return 200 \"$shop_version $pid\\n\"; }"
            )
        );
    }

    /// An nginx whose location tells the version alone.
    struct Silent(Fake);

    impl World for Silent {
        fn read(&self, file: &str) -> Result<Option<String>, Failure> {
            self.0.read(file)
        }

        fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
            self.0.write(file, text)
        }

        fn run(&self, program: &str, arguments: &[String]) -> Result<Ran, Failure> {
            self.0.run(program, arguments)
        }

        fn status(&self) -> Result<String, Failure> {
            Ok("0\n".to_owned())
        }

        fn member(&self, url: &str) -> Result<u16, Failure> {
            self.0.member(url)
        }
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let fake = Fake::with(&[(FILE, "old")]);

        let outcome = with(&fake, |nginx| {
            nginx.apply(&[change("old", "new")], Until::Live, true)
        });

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(fake.text(FILE), "old");
        assert_eq!(fake.reloads.get(), 0);
    }
}
