//! Where an instant is on the line of time. Long stretches in which nothing happens are cut short, so that a release that
//! waited for a night still shows its minutes.

use crate::line::duration;

/// A longest stretch in which nothing happens that is never cut.
const ALWAYS_WHOLE_MS: i64 = 5_000;
/// Two labels on the line are at least this far apart, in percent.
const BETWEEN_LABELS: f64 = 8.0;
/// Distances between ticks that people can count in.
const STEPS_MS: [i64; 26] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000,
    120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000,
    43_200_000,
];
pub(crate) const DAY_MS: i64 = 86_400_000;

/// From one instant to another, in milliseconds of the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

impl Span {
    /// A span, with its ends in order: a clock that was set back makes none of a negative length.
    pub(crate) fn new(start: i64, end: i64) -> Self {
        Self {
            start,
            end: end.max(start),
        }
    }

    pub(crate) fn length(self) -> i64 {
        self.end - self.start
    }

    /// The length, for people.
    pub(crate) fn took(self) -> String {
        duration(std::time::Duration::from_millis(
            self.length().unsigned_abs(),
        ))
    }

    /// The span that holds all of these.
    pub(crate) fn around(spans: impl IntoIterator<Item = Self>) -> Option<Self> {
        spans
            .into_iter()
            .reduce(|one, other| Self::new(one.start.min(other.start), one.end.max(other.end)))
    }
}

/// A part of the line on which time runs evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    span: Span,
    /// Where it begins and how long it is, in percent of the line.
    at: f64,
    width: f64,
    is_cut: bool,
}

/// A mark on the line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    pub(crate) percent: f64,
    /// The time, where there is room for it.
    pub(crate) label: Option<String>,
}

/// A stretch that was cut.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cut {
    pub(crate) percent: f64,
    pub(crate) width: f64,
    pub(crate) took: String,
}

/// The line of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    whole: Span,
    pieces: Vec<Piece>,
    /// The time between two ticks.
    step_ms: i64,
}

impl Scale {
    /// The line over a span, given when something happens in it.
    pub(crate) fn of(whole: Span, busy: Vec<Span>) -> Self {
        let whole = Span::new(whole.start, whole.end.max(whole.start + 1));
        let stretches = stretches(whole, busy);
        let busy_ms: i64 = stretches
            .iter()
            .filter(|(_, is_busy)| *is_busy)
            .map(|(span, _)| span.length())
            .sum();
        let is_long = |span: Span| {
            span.length() > ALWAYS_WHOLE_MS && span.length() as f64 > 0.3 * busy_ms as f64
        };
        let long = stretches
            .iter()
            .filter(|(span, is_busy)| !is_busy && is_long(*span))
            .count();
        // All that is cut takes at most a third of the line or so.
        let cut_ms = busy_ms as f64 * (0.6 / long.max(1) as f64).min(0.12);
        let lengths: Vec<(Span, f64, bool)> = stretches
            .into_iter()
            .map(|(span, is_busy)| {
                let is_cut = !is_busy && busy_ms > 0 && is_long(span);
                let length = if is_cut { cut_ms } else { span.length() as f64 };
                (span, length, is_cut)
            })
            .collect();
        let total: f64 = lengths.iter().map(|(_, length, _)| length).sum();
        let mut at = 0.0;
        let mut pieces: Vec<Piece> = Vec::new();
        for (span, length, is_cut) in lengths {
            let width = length / total * 100.0;
            match pieces.last_mut() {
                Some(last) if !last.is_cut && !is_cut => {
                    last.span.end = span.end;
                    last.width += width;
                }
                _ => pieces.push(Piece {
                    span,
                    at,
                    width,
                    is_cut,
                }),
            }
            at += width;
        }
        let wanted = total / 8.0;
        let step_ms = STEPS_MS
            .into_iter()
            .find(|step| *step as f64 >= wanted)
            .unwrap_or_else(|| DAY_MS * (wanted / DAY_MS as f64).ceil().max(1.0) as i64);
        Self {
            whole,
            pieces,
            step_ms,
        }
    }

    pub(crate) fn whole(&self) -> Span {
        self.whole
    }

    /// The place of an instant, from 0 to 100.
    pub(crate) fn percent(&self, at: i64) -> f64 {
        let at = at.clamp(self.whole.start, self.whole.end);
        let index = self.pieces.partition_point(|piece| piece.span.end < at);
        let Some(piece) = self.pieces.get(index).or(self.pieces.last()) else {
            return 0.0;
        };
        let share = (at - piece.span.start) as f64 / piece.span.length().max(1) as f64;
        piece.at + share * piece.width
    }

    /// Where a span begins, and how wide it is.
    pub(crate) fn place(&self, span: Span) -> (f64, f64) {
        let start = self.percent(span.start);
        (start, self.percent(span.end) - start)
    }

    pub(crate) fn cuts(&self) -> impl Iterator<Item = Cut> {
        let cut = self.pieces.iter().filter(|piece| piece.is_cut);
        cut.map(|piece| Cut {
            percent: piece.at,
            width: piece.width,
            took: coarse(piece.span),
        })
    }

    /// The marks, left to right.
    pub(crate) fn ticks(&self) -> Vec<Tick> {
        let mut ticks = Vec::new();
        let mut last_label = f64::NEG_INFINITY;
        let mut last_day = self.whole.start.div_euclid(DAY_MS);
        for piece in self.pieces.iter().filter(|piece| !piece.is_cut) {
            // Where the line begins, or goes on after a cut, has to be told, whatever time it is.
            let first = Some(piece.span.start);
            let round = piece.span.start.div_euclid(self.step_ms) + 1;
            let round = (round..)
                .map(|count| count * self.step_ms)
                .take_while(|at| *at < piece.span.end);
            for at in first.into_iter().chain(round) {
                let percent = self.percent(at);
                let has_room = percent - last_label >= BETWEEN_LABELS && percent < 96.0;
                let label = has_room.then(|| {
                    last_label = percent;
                    let day = at.div_euclid(DAY_MS);
                    let is_other_day = std::mem::replace(&mut last_day, day) != day;
                    self.label(at, is_other_day)
                });
                ticks.push(Tick { percent, label });
            }
        }
        ticks
    }

    fn label(&self, at: i64, is_other_day: bool) -> String {
        let time = match self.step_ms {
            0..100 => "%H:%M:%S%.3f",
            100..1_000 => "%H:%M:%S%.1f",
            1_000..60_000 => "%H:%M:%S",
            _ => "%H:%M",
        };
        let format = if is_other_day {
            format!("%m-%d {time}")
        } else {
            time.to_owned()
        };
        jiff::Timestamp::from_millisecond(at)
            .map_or_else(|_| at.to_string(), |at| at.strftime(&format).to_string())
    }

    /// The pieces as the script reads them: start and end in milliseconds, place and width in percent.
    pub(crate) fn for_script(&self) -> String {
        let pieces = self.pieces.iter().map(|piece| {
            let Span { start, end } = piece.span;
            format!("{start},{end},{:.4},{:.4}", piece.at, piece.width)
        });
        pieces.collect::<Vec<_>>().join(";")
    }
}

/// A length in as few words as tell it.
fn coarse(span: Span) -> String {
    let seconds = span.length() / 1_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// The stretches of a span in which something happens or nothing does, in order and without gaps.
fn stretches(whole: Span, mut busy: Vec<Span>) -> Vec<(Span, bool)> {
    busy.sort_by_key(|span| span.start);
    let mut stretches: Vec<(Span, bool)> = Vec::new();
    let mut at = whole.start;
    for span in busy {
        let (start, end) = (span.start.max(at), span.end.min(whole.end));
        if end <= start {
            continue;
        }
        if start > at {
            stretches.push((Span::new(at, start), false));
        }
        match stretches.last_mut() {
            Some((last, true)) => last.end = end,
            _ => stretches.push((Span::new(start, end), true)),
        }
        at = end;
    }
    if at < whole.end {
        stretches.push((Span::new(at, whole.end), false));
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000;
    const HOUR: i64 = 3_600 * SECOND;

    fn seconds(spans: &[(i64, i64)]) -> Vec<Span> {
        let spans = spans.iter();
        spans
            .map(|(start, end)| Span::new(start * SECOND, end * SECOND))
            .collect()
    }

    #[test]
    fn time_runs_evenly_while_something_happens() {
        let scale = Scale::of(
            Span::new(0, 100 * SECOND),
            seconds(&[(0, 60), (40, 90), (93, 100)]),
        );

        assert_eq!(scale.cuts().count(), 0);
        for second in [0, 25, 50, 92, 100] {
            assert!((scale.percent(second * SECOND) - second as f64).abs() < 1e-9);
        }
    }

    #[test]
    fn a_night_without_anything_leaves_room_for_the_minutes_around_it() {
        let night = Span::new(60 * SECOND, 60 * SECOND + 8 * HOUR);
        let whole = Span::new(0, night.end + 60 * SECOND);
        let busy = vec![Span::new(0, night.start), Span::new(night.end, whole.end)];

        let scale = Scale::of(whole, busy);

        let cuts: Vec<_> = scale.cuts().map(|cut| cut.took).collect();
        assert_eq!(cuts, ["8 h 0 min"]);
        let (at, width) = scale.place(night);
        assert!(at > 44.0 && width < 12.0, "{at} {width}");
    }

    #[test]
    fn many_waits_take_no_more_than_a_part_of_the_line() {
        let busy: Vec<_> = (0..50)
            .map(|count| Span::new(count * HOUR, count * HOUR + 10 * SECOND))
            .collect();

        let scale = Scale::of(Span::new(0, 50 * HOUR), busy.clone());

        let shown: f64 = busy.iter().map(|span| scale.place(*span).1).sum();
        assert!(shown > 60.0, "{shown}");
        let places = (0..500).map(|count| scale.percent(count * HOUR / 10));
        assert!(places.is_sorted());
    }

    #[test]
    fn ticks_are_round_and_their_labels_apart() {
        let scale = Scale::of(Span::new(400, 95 * SECOND), seconds(&[(0, 95)]));

        let ticks = scale.ticks();

        let labels: Vec<_> = ticks
            .iter()
            .filter_map(|tick| tick.label.as_deref())
            .collect();
        assert_eq!(
            labels,
            [
                "00:00:00", "00:00:15", "00:00:30", "00:00:45", "00:01:00", "00:01:15", "00:01:30"
            ]
        );
        assert!(ticks.is_sorted_by(|one, other| one.percent <= other.percent));
    }

    #[test]
    fn a_release_of_no_time_at_all_has_a_line() {
        let scale = Scale::of(Span::new(5, 5), vec![Span::new(5, 5)]);

        assert_eq!(scale.percent(5), 0.0);
        assert_eq!(scale.percent(100), 100.0);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_negative_length() {
        assert_eq!(Span::new(10, 5).length(), 0);
        let scale = Scale::of(Span::new(10, 20), vec![Span::new(30, 5), Span::new(12, 14)]);

        assert!(scale.place(Span::new(12, 14)).1 > 0.0);
    }
}
