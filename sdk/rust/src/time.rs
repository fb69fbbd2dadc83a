//! The time of day, as vendors write it in signatures and answers.

use std::fmt;

/// A moment, in milliseconds since the beginning of 1970 in UTC.
///
/// ```
/// use cutover_plugin_sdk::Time;
///
/// let time = Time::from_unix_ms(1_704_164_645_000);
///
/// assert_eq!(time.basic(), "20240102T030405Z");
/// assert_eq!(time.to_string(), "2024-01-02T03:04:05Z");
/// assert_eq!(time.http_date(), "Tue, 02 Jan 2024 03:04:05 GMT");
/// assert_eq!(Time::parse("Tue, 02 Jan 2024 03:04:05 GMT"), Some(time));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

/// The time by the host's clock.
///
/// It may be set at any moment: to wait, answer with what is pending.
///
/// ```no_run
/// let at = cutover_plugin_sdk::now();
/// cutover_plugin_sdk::info!("it is {at}");
/// ```
#[must_use]
pub fn now() -> Time {
    Time(unix_ms())
}

#[cfg(target_family = "wasm")]
fn unix_ms() -> u64 {
    let now = crate::bindings::wasi::wasi::clocks::wall_clock::now();
    now.seconds
        .saturating_mul(1000)
        .saturating_add(u64::from(now.nanoseconds / 1_000_000))
}

#[cfg(not(target_family = "wasm"))]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

const DAY: u64 = 24 * 60 * 60;

/// The last second of the year 9999: later ones have no four digits.
const LAST: u64 = 253_402_300_799;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// From the day on that 1970 began with.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

impl Time {
    /// A moment by its distance from the beginning of 1970.
    #[must_use]
    pub fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the beginning of 1970.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0
    }

    /// As signatures write it: `20240102T030405Z`.
    #[must_use]
    pub fn basic(self) -> String {
        let Parts {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self.parts();
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// The day of it, as signatures write it: `20240102`.
    #[must_use]
    pub fn basic_date(self) -> String {
        self.basic()[..8].to_owned()
    }

    /// As a `Date` header writes it: `Tue, 02 Jan 2024 03:04:05 GMT`.
    #[must_use]
    pub fn http_date(self) -> String {
        let Parts {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self.parts();
        let weekday = nth(&WEEKDAYS, self.seconds() / DAY % 7);
        let month = nth(&MONTHS, month - 1);
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }

    /// Reads what vendors write: `20240102T030405Z`, `2024-01-02T03:04:05Z` with or without a fraction, and a `Date`
    /// header's `Tue, 02 Jan 2024 03:04:05 GMT`. Other zones than UTC are not understood.
    ///
    /// ```
    /// use cutover_plugin_sdk::Time;
    ///
    /// assert_eq!(Time::parse("2024-01-02T03:04:05.678Z").unwrap().basic(), "20240102T030405Z");
    /// assert_eq!(Time::parse("yesterday"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.split_once(", ") {
            Some((_, date)) => from_http(date),
            None => from_iso(text),
        }
    }

    fn seconds(self) -> u64 {
        (self.0 / 1000).min(LAST)
    }

    fn parts(self) -> Parts {
        let seconds = self.seconds();
        let (year, month, day) = date_of(seconds / DAY);
        let second = seconds % DAY;
        Parts {
            year,
            month,
            day,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self.parts();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

struct Parts {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Parts {
    fn time(&self) -> Option<Time> {
        let is_date = (1970..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=days_in(self.year, self.month)).contains(&self.day);
        // A leap second is the last one before it, as clocks show it.
        let is_time = self.hour < 24 && self.minute < 60 && self.second <= 60;
        let seconds = || {
            let days: u64 = (1970..self.year).map(days_of).sum();
            let days: u64 = days
                + (1..self.month)
                    .map(|month| days_in(self.year, month))
                    .sum::<u64>()
                + self.day
                - 1;
            days * DAY + self.hour * 3600 + self.minute * 60 + self.second.min(59)
        };
        (is_date && is_time).then(|| Time(seconds() * 1000))
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day of a day counted from the beginning of 1970.
fn date_of(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

/// `02 Jan 2024 03:04:05 GMT`
fn from_http(text: &str) -> Option<Time> {
    let mut words = text.split_ascii_whitespace();
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (clock, zone) = (words.next()?, words.next()?);
    let mut clock = clock.split(':');
    let month = MONTHS.iter().position(|name| *name == month)?;
    let parts = Parts {
        year: number(year)?,
        month: u64::try_from(month).ok()? + 1,
        day: number(day)?,
        hour: number(clock.next()?)?,
        minute: number(clock.next()?)?,
        second: number(clock.next()?)?,
    };
    let is_whole = zone == "GMT" && words.next().is_none() && clock.next().is_none();
    is_whole.then(|| parts.time()).flatten()
}

/// `20240102T030405Z`, `2024-01-02T03:04:05Z`, `2024-01-02T03:04:05.678Z`
fn from_iso(text: &str) -> Option<Time> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let clock = clock.split_once('.').map_or(clock, |(clock, _)| clock);
    let digits = format!("{}{}", date.replace('-', ""), clock.replace(':', ""));
    if digits.len() != 14 || !digits.is_ascii() {
        return None;
    }
    let parts = Parts {
        year: number(&digits[..4])?,
        month: number(&digits[4..6])?,
        day: number(&digits[6..8])?,
        hour: number(&digits[8..10])?,
        minute: number(&digits[10..12])?,
        second: number(&digits[12..])?,
    };
    parts.time()
}

/// The name with this number.
fn nth(names: &[&'static str], number: u64) -> &'static str {
    usize::try_from(number).map_or("", |number| names[number])
}

/// A number without the sign that `parse` would take.
fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar_come_out_as_they_are() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_568_702_828, "20190917T064708Z"),
            (1_704_164_645, "20240102T030405Z"),
            (1_709_164_800, "20240229T000000Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            let time = Time::from_unix_ms(seconds * 1000 + 999);

            assert_eq!(time.basic(), text);
            let read = Time::parse(text).unwrap();
            assert_eq!(read.unix_ms(), seconds * 1000, "{text}");
            assert_eq!(Time::parse(&time.to_string()), Some(read), "{time}");
        }
    }

    #[test]
    fn headers_have_the_day_of_the_week() {
        for text in [
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Thu, 29 Feb 2024 23:59:59 GMT",
            "Fri, 31 Dec 2100 12:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(Time::parse(text).unwrap().http_date(), text);
        }
    }

    #[test]
    fn a_clock_that_is_far_off_is_no_panic() {
        assert_eq!(Time::from_unix_ms(u64::MAX).basic(), "99991231T235959Z");
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "T Z",
            "20240230T000000Z",
            "20241301T000000Z",
            "20240102T250000Z",
            "20240102T030405",
            "20240102T030405+08:00",
            "+0240102T030405Z",
            "ééé40102T03040Z",
            "Tue, 02 Jan 2024 03:04:05 CST",
            "Tue, 02 Foo 2024 03:04:05 GMT",
            "Tue, 99 Jan 2024 03:04:05 GMT",
            "Tue, 02 Jan 2024 18446744073709551615:04:05 GMT",
            "Tue, 02 Jan 2024 03:04 GMT",
        ] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }
}
