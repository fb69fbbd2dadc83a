//! Decoding of the tree: keys by name, values by type, and a message for everything that does not fit.
//!
//! A [`Shape`] lists the keys of a mapping, [`Fields`] hands them out, a [`Field`] turns its value into a type.
//! A method that finds a value unfit reports it and answers `None`; decoding goes on, so that all problems show.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use model::Amount;

use crate::duration;
use crate::problem::{Collector, Position, excerpt, quoted_list, suggestion};
use crate::yaml::{Entry, Node, Style, Value};

/// The keys of one kind of mapping.
#[derive(Debug)]
pub(crate) struct Shape {
    /// How the schema calls it.
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [&'static str],
    /// Other spellings that are read but not recommended.
    pub(crate) aliases: &'static [&'static str],
}

/// What becomes of a key that no reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Refused,
    /// It is told of and otherwise ignored.
    Warned,
    /// Whoever reads the mapping judges it.
    Kept,
}

/// A mapping whose keys have been checked.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    shape: &'static Shape,
    pub(crate) at: Position,
    entries: &'n [Entry],
    /// Keys that seem to be present under a misspelt name; they are not reported as missing as well.
    misspelt: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Takes the root of a file.
    pub(crate) fn of_root(
        root: &'n Node,
        shape: &'static Shape,
        problems: &mut Collector,
    ) -> Option<Self> {
        Self::of(root, shape, Unknown::Refused, problems)
    }

    /// Takes the root of a file that other programs read as well: unknown keys are theirs, or slips worth a warning.
    pub(crate) fn of_shared_root(
        root: &'n Node,
        shape: &'static Shape,
        problems: &mut Collector,
    ) -> Option<Self> {
        Self::of(root, shape, Unknown::Warned, problems)
    }

    /// Takes the root of a file, and leaves it to the reader to judge unknown keys.
    pub(crate) fn of_open_root(
        root: &'n Node,
        shape: &'static Shape,
        problems: &mut Collector,
    ) -> Option<Self> {
        Self::of(root, shape, Unknown::Kept, problems)
    }

    fn of(
        root: &'n Node,
        shape: &'static Shape,
        unknown: Unknown,
        problems: &mut Collector,
    ) -> Option<Self> {
        match &root.value {
            Value::Mapping(entries) => {
                Some(Self::checked(root.at, entries, shape, unknown, problems))
            }
            _ => {
                let expected = quoted_list(shape.keys);
                let message = format!(
                    "expected a mapping with the keys {expected}, found {}",
                    root.description()
                );
                problems.error(root.at, message);
                None
            }
        }
    }

    fn checked(
        at: Position,
        entries: &'n [Entry],
        shape: &'static Shape,
        unknown: Unknown,
        problems: &mut Collector,
    ) -> Self {
        let mut misspelt = Vec::new();
        for Entry { key, key_at, .. } in entries {
            let key = key.as_str();
            if shape.keys.contains(&key) || shape.aliases.contains(&key) {
                continue;
            }
            match unknown {
                Unknown::Refused => misspelt.extend(refuse(key, *key_at, shape, problems)),
                Unknown::Warned => warn_of_unknown(key, *key_at, shape, problems),
                Unknown::Kept => {}
            }
        }
        Self {
            shape,
            at,
            entries,
            misspelt,
        }
    }

    /// The value of a key, unless it is left out or empty.
    pub(crate) fn get(&self, name: &str) -> Option<Field<'n>> {
        self.entry(name)
            .map(Field::of)
            .filter(|field| !field.node.is_null())
    }

    /// The value of a key that must be there.
    pub(crate) fn required(
        &self,
        name: &'static str,
        problems: &mut Collector,
    ) -> Option<Field<'n>> {
        let field = self.get(name);
        if field.is_none() && !self.misspelt.contains(&name) {
            match self.entry(name) {
                Some(entry) => problems.error(entry.key_at, format!("`{name}` has no value")),
                None => problems.error(self.at, format!("missing key `{name}`")),
            }
        }
        field
    }

    /// The value of a key, even an empty one.
    pub(crate) fn written(&self, name: &str) -> Option<Field<'n>> {
        self.entry(name).map(Field::of)
    }

    /// The keys that the shape does not have.
    pub(crate) fn others(&self) -> Vec<Field<'n>> {
        let Shape { keys, aliases, .. } = self.shape;
        let is_other = |entry: &&Entry| {
            let key = entry.key.as_str();
            !keys.contains(&key) && !aliases.contains(&key)
        };
        self.entries
            .iter()
            .filter(is_other)
            .map(Field::of)
            .collect()
    }

    /// The keys that the shape has.
    pub(crate) fn keys(&self) -> &'static [&'static str] {
        self.shape.keys
    }

    /// Reports a key of [`Self::others`].
    pub(crate) fn refuse(&mut self, other: Field<'_>, problems: &mut Collector) {
        let meant = refuse(other.name, other.name_at, self.shape, problems);
        self.misspelt.extend(meant);
    }

    /// Takes a key as one that is there under another name and has been reported: it is not missing as well.
    pub(crate) fn note_misspelt(&mut self, name: &'static str) {
        self.misspelt.push(name);
    }

    /// What a reader makes of a key's value: `Some(None)` where the key is left out, `None` where it is unfit.
    pub(crate) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(Field<'n>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(name) {
            Some(field) => read(field).map(Some),
            None => Some(None),
        }
    }

    /// Reports a key that is left out and needed for a reason that is not plain.
    pub(crate) fn required_for(
        &self,
        name: &'static str,
        reason: &str,
        hint: &str,
        problems: &mut Collector,
    ) {
        if self.get(name).is_none() && !self.misspelt.contains(&name) {
            let at = self.entry(name).map_or(self.at, |entry| entry.key_at);
            problems.error_with_hint(at, format!("missing key `{name}`: {reason}"), hint);
        }
    }

    /// Reports that none of a few keys is there.
    pub(crate) fn missing_choice(&self, names: &[&'static str], problems: &mut Collector) {
        if !names.iter().any(|name| self.misspelt.contains(name)) {
            let message = format!("expected one of the keys {}", quoted_list(names));
            problems.error(self.at, message);
        }
    }

    fn entry(&self, name: &str) -> Option<&'n Entry> {
        let Shape { keys, aliases, .. } = self.shape;
        debug_assert!(
            keys.contains(&name) || aliases.contains(&name),
            "`{name}` is a key of {}",
            self.shape.name
        );
        self.entries.iter().find(|entry| entry.key == name)
    }
}

/// Reports an unknown key, and answers which one it seems to be.
fn refuse(
    key: &str,
    at: Position,
    shape: &'static Shape,
    problems: &mut Collector,
) -> Option<&'static str> {
    let message = format!(
        "unknown key `{}`; expected one of {}",
        excerpt(key),
        quoted_list(shape.keys)
    );
    problems.error_with_suggestion(at, message, key, shape.keys);
    suggestion(key, shape.keys)
}

fn warn_of_unknown(key: &str, at: Position, shape: &Shape, problems: &mut Collector) {
    // By custom these hold anchors and notes.
    if key.starts_with("x-") {
        return;
    }
    let hint = match suggestion(key, shape.keys) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the keys here are {}", quoted_list(shape.keys)),
    };
    let message = format!("the unknown key `{}` is ignored", excerpt(key));
    problems.warn(at, message, hint);
}

/// A named value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'n> {
    pub(crate) name: &'n str,
    pub(crate) name_at: Position,
    pub(crate) node: &'n Node,
}

/// What a number without a unit means as a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BareNumber {
    Seconds,
    Refused,
}

impl BareNumber {
    fn expected(self) -> &'static str {
        match self {
            BareNumber::Seconds => "a number of seconds or a duration such as `30s` or `5m`",
            BareNumber::Refused => "a duration such as `30s`, `5m` or `1h`",
        }
    }
}

impl<'n> Field<'n> {
    pub(crate) fn of(entry: &'n Entry) -> Self {
        Self {
            name: &entry.key,
            name_at: entry.key_at,
            node: &entry.value,
        }
    }

    pub(crate) fn at(self) -> Position {
        self.node.at
    }

    pub(crate) fn mismatch(self, expected: &str, problems: &mut Collector) {
        problems.error(self.at(), self.mismatch_message(expected));
    }

    pub(crate) fn mismatch_message(self, expected: &str) -> String {
        format!(
            "`{}`: expected {expected}, found {}",
            excerpt(self.name),
            self.node.description()
        )
    }

    /// The value of a key, where this is a mapping that has it. The other keys are not looked at.
    pub(crate) fn member(self, key: &str) -> Option<Field<'n>> {
        match &self.node.value {
            Value::Mapping(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(Field::of)
                .filter(|field| !field.node.is_null()),
            _ => None,
        }
    }

    /// The raw text of a scalar.
    pub(crate) fn scalar(self) -> Option<(&'n str, Style)> {
        match &self.node.value {
            Value::Scalar { text, style } => Some((text, *style)),
            _ => None,
        }
    }

    /// Any text, number or boolean, as it is written; nothing is the empty text.
    pub(crate) fn raw_text(self, problems: &mut Collector) -> Option<&'n str> {
        match self.scalar() {
            Some(_) if self.node.is_null() => Some(""),
            Some((text, _)) if text.contains('\0') => {
                problems.error(
                    self.at(),
                    format!("`{}` contains a NUL character", excerpt(self.name)),
                );
                None
            }
            Some((text, _)) => Some(text),
            None => {
                self.mismatch("text", problems);
                None
            }
        }
    }

    /// Text with something in it, without the white space around it.
    pub(crate) fn text(self, problems: &mut Collector) -> Option<&'n str> {
        let text = self.raw_text(problems)?.trim();
        if text.is_empty() {
            self.mismatch("text", problems);
            return None;
        }
        Some(text)
    }

    /// Text that a model type accepts.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        self,
        parse: impl FnOnce(&str) -> Result<T, E>,
        problems: &mut Collector,
    ) -> Option<T> {
        match parse(self.text(problems)?) {
            Ok(value) => Some(value),
            Err(error) => {
                problems.error(self.at(), format!("`{}`: {error}", excerpt(self.name)));
                None
            }
        }
    }

    pub(crate) fn number(
        self,
        range: RangeInclusive<u64>,
        problems: &mut Collector,
    ) -> Option<u64> {
        let number = self
            .scalar()
            .and_then(|(text, _)| natural(text))
            .filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            let expected = match *most {
                u64::MAX => format!("a whole number of at least {least}"),
                _ => format!("a whole number from {least} to {most}"),
            };
            self.mismatch(&expected, problems);
        }
        number
    }

    /// A whole number that may be negative.
    pub(crate) fn integer(self, problems: &mut Collector) -> Option<i64> {
        let is_integer = |text: &&str| {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        let number = self
            .scalar()
            .map(|(text, _)| text.trim())
            .filter(is_integer)
            .and_then(|text| text.parse().ok());
        if number.is_none() {
            self.mismatch("a whole number of 64 bits, such as `3` or `-1`", problems);
        }
        number
    }

    /// A truth value in any of the words that YAML 1.1 has for it.
    pub(crate) fn boolean(self, problems: &mut Collector) -> Option<bool> {
        let (text, _) = self.scalar().unwrap_or(("", Style::Plain));
        let value = match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => Some(true),
            "false" | "no" | "off" | "n" | "0" => Some(false),
            _ => None,
        };
        if value.is_none() {
            self.mismatch("`true` or `false`", problems);
        }
        value
    }

    /// A number of instances, `2`, or a share of them, `50%`.
    pub(crate) fn amount(self, problems: &mut Collector) -> Option<Amount> {
        let amount = self
            .scalar()
            .and_then(|(text, _)| match text.strip_suffix('%') {
                Some(percent) => natural(percent)
                    .filter(|percent| (1..=100).contains(percent))
                    .and_then(|percent| u8::try_from(percent).ok())
                    .map(Amount::Percent),
                None => natural(text)
                    .filter(|count| *count > 0)
                    .and_then(|count| u32::try_from(count).ok())
                    .map(Amount::Count),
            });
        if amount.is_none() {
            self.mismatch(
                "a number of instances such as `2`, or a share from `1%` to `100%`",
                problems,
            );
        }
        amount
    }

    /// A duration longer than nothing.
    pub(crate) fn duration(self, bare: BareNumber, problems: &mut Collector) -> Option<Duration> {
        let Some((text, _)) = self.scalar() else {
            self.mismatch(bare.expected(), problems);
            return None;
        };
        self.duration_in(text, bare, problems)
    }

    /// A duration longer than nothing that is part of this text.
    pub(crate) fn duration_in(
        self,
        text: &str,
        bare: BareNumber,
        problems: &mut Collector,
    ) -> Option<Duration> {
        let expected = bare.expected();
        let text = text.trim();
        let milliseconds = match bare {
            BareNumber::Seconds => decimal_milliseconds(text),
            BareNumber::Refused => None,
        };
        let with_unit = match natural(text) {
            _ if milliseconds.is_some() => milliseconds.unwrap_or_default(),
            Some(_) if bare == BareNumber::Seconds => format!("{text}s"),
            Some(_) => {
                problems.error_with_hint(
                    self.at(),
                    self.mismatch_message(expected),
                    format!("write `{text}s`"),
                );
                return None;
            }
            None => text.to_owned(),
        };
        match duration::parse(&with_unit) {
            Ok(duration) if duration.is_zero() => {
                problems.error(
                    self.at(),
                    format!("`{}` must be longer than nothing", excerpt(self.name)),
                );
                None
            }
            Ok(duration) => Some(duration),
            Err(duration::InvalidDuration::TooLong { .. }) => {
                problems.error(
                    self.at(),
                    format!("`{}` is longer than 366 days", excerpt(self.name)),
                );
                None
            }
            Err(duration::InvalidDuration::Malformed { .. }) => {
                self.mismatch(expected, problems);
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(self, words: &[(&str, T)], problems: &mut Collector) -> Option<T> {
        let (text, _) = self.scalar().unwrap_or(("", Style::Plain));
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let expected = match names.as_slice() {
            [only] => format!("`{only}`"),
            _ => format!("one of {}", quoted_list(&names)),
        };
        problems.error_with_suggestion(self.at(), self.mismatch_message(&expected), text, &names);
        None
    }

    /// The items of a list, each under the list's name.
    pub(crate) fn items(self, what: &str, problems: &mut Collector) -> Vec<Field<'n>> {
        let Value::Sequence(items) = &self.node.value else {
            let message = self.mismatch_message(&format!("a list of {what}"));
            problems.error_with_hint(
                self.at(),
                message,
                "begin each item with `- `, or write `[…]`",
            );
            return Vec::new();
        };
        items.iter().map(|node| Field { node, ..self }).collect()
    }

    /// The pairs of a mapping whose keys are names chosen by the author.
    pub(crate) fn entries(self, what: &str, problems: &mut Collector) -> Vec<Field<'n>> {
        let Value::Mapping(entries) = &self.node.value else {
            self.mismatch(&format!("a mapping of {what}"), problems);
            return Vec::new();
        };
        entries.iter().map(Field::of).collect()
    }

    /// A mapping with known keys.
    pub(crate) fn fields(
        self,
        shape: &'static Shape,
        problems: &mut Collector,
    ) -> Option<Fields<'n>> {
        self.mapping(shape, Unknown::Refused, problems)
    }

    /// A mapping in a file that other programs read as well; unknown keys are only told of.
    pub(crate) fn shared_fields(
        self,
        shape: &'static Shape,
        problems: &mut Collector,
    ) -> Option<Fields<'n>> {
        self.mapping(shape, Unknown::Warned, problems)
    }

    /// A mapping in which the author of the value may have keys of their own.
    pub(crate) fn open_fields(
        self,
        shape: &'static Shape,
        problems: &mut Collector,
    ) -> Option<Fields<'n>> {
        self.mapping(shape, Unknown::Kept, problems)
    }

    fn mapping(
        self,
        shape: &'static Shape,
        unknown: Unknown,
        problems: &mut Collector,
    ) -> Option<Fields<'n>> {
        let Value::Mapping(entries) = &self.node.value else {
            self.mismatch(
                &format!("a mapping with the keys {}", quoted_list(shape.keys)),
                problems,
            );
            return None;
        };
        Some(Fields::checked(
            self.at(),
            entries,
            shape,
            unknown,
            problems,
        ))
    }

    /// The name itself as an id.
    pub(crate) fn name_as<T>(self, problems: &mut Collector) -> Option<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.name
            .parse()
            .map_err(|error: T::Err| problems.error(self.name_at, error.to_string()))
            .ok()
    }
}

/// Seconds with a fraction, `1.5`, or with digits in groups, `1_000`, as a duration in milliseconds.
fn decimal_milliseconds(text: &str) -> Option<String> {
    let digits = text.replace('_', "");
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, "0"));
    let is_plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text != whole;
    let seconds = natural(whole).filter(|_| is_plain)?;
    natural(fraction)?;
    let thousandths = natural(&format!("{fraction:0<3}")[..3])?;
    let milliseconds = seconds.checked_mul(1000)?.checked_add(thousandths)?;
    Some(format!("{milliseconds}ms"))
}

fn natural(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Reads environment variables: names to texts, numbers or booleans, which stay as they are written.
pub(crate) fn environment(
    field: Option<Field<'_>>,
    problems: &mut Collector,
) -> BTreeMap<String, String> {
    let pairs = field
        .map(|field| field.entries("environment variables", problems))
        .unwrap_or_default();
    let mut environment = BTreeMap::new();
    for pair in pairs {
        if !is_variable_name(pair.name) {
            let message = format!(
                "`{}` is not a name of an environment variable",
                excerpt(pair.name)
            );
            problems.error_with_hint(
                pair.name_at,
                message,
                "use letters, digits and `_`, not starting with a digit",
            );
        } else if let Some(value) = pair.raw_text(problems) {
            environment.insert(pair.name.to_owned(), value.to_owned());
        }
    }
    environment
}

pub(crate) fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
