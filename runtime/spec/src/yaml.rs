//! YAML text as a tree in which every value knows its line and column.
//!
//! Scalars keep their raw text: whether `0644`, `yes` or `1.10` is a number, a boolean or text is for the reader of
//! each key to say, never for the parser to guess. Bounds on size, depth and expansion keep hostile input harmless.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::problem::{Collector, Position, excerpt};

/// The largest text, in bytes.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 64;
/// The most values in one text, aliases expanded.
const MAX_NODES: usize = 200_000;
/// The most text that anchored values may hold, once for the anchor and once for each alias.
const MAX_SHARED_BYTES: usize = 4 * 1024 * 1024;

/// One value of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar { text: String, style: Style },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// One pair of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) value: Node,
}

/// How a scalar was written. Only a plain one can be a number, a boolean or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
}

impl Node {
    /// Whether the value was left out, or written as `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, style: Style::Plain }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The kind of value, and for short ones the value, for messages.
    pub(crate) fn description(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".to_owned(),
            Value::Scalar {
                text,
                style: Style::Plain,
            } if text.parse::<f64>().is_ok() => {
                format!("number `{}`", excerpt(text))
            }
            Value::Scalar { text, .. } if text.trim().is_empty() => "empty text".to_owned(),
            Value::Scalar { text, .. } => format!("text `{}`", excerpt(text)),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// Reads a text that holds one document. Nothing is returned when it cannot be read, and the reason is reported.
pub(crate) fn parse(text: &str, problems: &mut Collector) -> Option<Node> {
    if text.len() > MAX_BYTES {
        problems.error(
            Position::START,
            format!("the file is larger than {} MiB", MAX_BYTES / 1024 / 1024),
        );
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(offset) = text.find(is_forbidden) {
        let character = text[offset..].chars().next().unwrap_or_default();
        let message = format!(
            "the file contains the control character `{}`",
            character.escape_default()
        );
        problems.error(position_after(&text[..offset]), message);
        return None;
    }
    match Builder::new(end_of(text), problems).run(text) {
        Ok(Some(root)) if !root.is_null() => Some(root),
        Ok(_) => {
            problems.error(Position::START, "the file is empty");
            None
        }
        Err(Stop { at, message, hint }) => {
            match hint {
                Some(hint) => problems.error_with_hint(at, message, hint),
                None => problems.error(at, message),
            }
            None
        }
    }
}

/// Why reading ends early.
struct Stop {
    at: Position,
    message: String,
    hint: Option<String>,
}

impl Stop {
    fn new(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            hint: None,
        }
    }
}

/// A list or mapping whose end has not been read.
struct Open {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        keys: HashMap<String, Position>,
        merged: Vec<Node>,
        key: Key,
    },
}

/// Where a mapping's reading stands.
enum Key {
    Awaited,
    Read(String, Position),
    /// The key is reported; its value is read and dropped.
    Refused,
}

struct Builder<'c> {
    /// No position lies behind it. The parser puts some values on the line after the text.
    end: Position,
    problems: &'c mut Collector,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    shared_bytes: usize,
}

impl<'c> Builder<'c> {
    fn new(end: Position, problems: &'c mut Collector) -> Self {
        Self {
            end,
            problems,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            nodes: 0,
            shared_bytes: 0,
        }
    }

    fn run(mut self, text: &str) -> Result<Option<Node>, Stop> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                syntax_error(text, self.position(*error.marker()), error.info())
            })?;
            let at = self.position(span.start);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(Stop::new(
                            at,
                            "the file holds more than one document, expected one",
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let style = self.style(at, style, tag.as_deref());
                    self.place(
                        Node {
                            at,
                            value: Value::Scalar {
                                text: text.into_owned(),
                                style,
                            },
                        },
                        anchor,
                    )?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.check_tag(at, tag.as_deref());
                    self.start(Open {
                        at,
                        anchor,
                        content: Content::Sequence(Vec::new()),
                    })?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.check_tag(at, tag.as_deref());
                    let content = Content::Mapping {
                        entries: Vec::new(),
                        keys: HashMap::new(),
                        merged: Vec::new(),
                        key: Key::Awaited,
                    };
                    self.start(Open {
                        at,
                        anchor,
                        content,
                    })?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end()?,
                Event::Alias(anchor) => self.alias(at, anchor)?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(self.root)
    }

    fn position(&self, marker: Marker) -> Position {
        let at = Position {
            line: marker.line().max(1),
            column: marker.col() + 1,
        };
        if at.line > self.end.line {
            self.end
        } else {
            at
        }
    }

    fn style(&mut self, at: Position, style: ScalarStyle, tag: Option<&Tag>) -> Style {
        self.check_tag(at, tag);
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if style == ScalarStyle::Plain && !is_text {
            Style::Plain
        } else {
            Style::Quoted
        }
    }

    fn check_tag(&mut self, at: Position, tag: Option<&Tag>) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.problems.error(
                at,
                format!("the tag `{}` is not supported", excerpt(&tag.to_string())),
            );
        }
    }

    fn start(&mut self, open: Open) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Stop::new(
                open.at,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        let Some(Open {
            at,
            anchor,
            content,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping {
                mut entries,
                mut keys,
                merged,
                ..
            } => {
                self.merge(&mut entries, &mut keys, merged);
                Value::Mapping(entries)
            }
        };
        self.place(Node { at, value }, anchor)
    }

    /// Adds what `<<` brings to a mapping: the mapping's own keys win, then the earlier source.
    fn merge(
        &mut self,
        entries: &mut Vec<Entry>,
        keys: &mut HashMap<String, Position>,
        merged: Vec<Node>,
    ) {
        for source in merged {
            let sources = match source.value {
                Value::Sequence(items) => items,
                _ => vec![source],
            };
            for source in sources {
                let Value::Mapping(additions) = source.value else {
                    let message = format!(
                        "`<<`: expected a mapping or a list of mappings, found {}",
                        source.description()
                    );
                    self.problems.error(source.at, message);
                    continue;
                };
                for entry in additions {
                    if !keys.contains_key(&entry.key) {
                        keys.insert(entry.key.clone(), entry.key_at);
                        entries.push(entry);
                    }
                }
            }
        }
    }

    fn alias(&mut self, at: Position, anchor: usize) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Stop::new(
                at,
                "an alias must not stand inside the value it refers to",
            ));
        };
        let (nodes, bytes, depth) = extent(&node);
        self.nodes += nodes;
        self.shared_bytes += bytes;
        if self.shared_bytes > MAX_SHARED_BYTES {
            return Err(Stop::new(at, "aliases expand to more than 4 MiB"));
        }
        if self.open.len() + depth > MAX_DEPTH {
            return Err(Stop::new(
                at,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.place(node, 0)
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        self.nodes += 1;
        if anchor > 0 {
            let (nodes, bytes, _) = extent(&node);
            self.nodes += nodes;
            self.shared_bytes += bytes;
            if self.shared_bytes > MAX_SHARED_BYTES {
                return Err(Stop::new(node.at, "anchored values hold more than 4 MiB"));
            }
            self.anchors.insert(anchor, node.clone());
        }
        if self.nodes > MAX_NODES {
            return Err(Stop::new(
                node.at,
                format!("the file holds more than {MAX_NODES} values"),
            ));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping {
                entries,
                keys,
                merged,
                key,
            }) => match std::mem::replace(key, Key::Awaited) {
                Key::Awaited => *key = check_key(node, keys, self.problems),
                Key::Read(name, _) if name == "<<" => merged.push(node),
                Key::Read(key, key_at) => entries.push(Entry {
                    key,
                    key_at,
                    value: node,
                }),
                Key::Refused => {}
            },
        }
        Ok(())
    }
}

fn check_key(node: Node, keys: &mut HashMap<String, Position>, problems: &mut Collector) -> Key {
    let at = node.at;
    let Value::Scalar { text, .. } = node.value else {
        problems.error(
            at,
            format!("a key must be text, found {}", node.description()),
        );
        return Key::Refused;
    };
    if let Some(first) = keys.get(&text) {
        let message = format!(
            "the key `{}` is given twice, first on line {}",
            excerpt(&text),
            first.line
        );
        problems.error(at, message);
        return Key::Refused;
    }
    keys.insert(text.clone(), at);
    Key::Read(text, at)
}

/// The number of nodes in a tree, the bytes it holds, and its depth.
fn extent(node: &Node) -> (usize, usize, usize) {
    let combine = |(nodes, bytes, depth): (usize, usize, usize), child: &Node| {
        let (more_nodes, more_bytes, child_depth) = extent(child);
        (
            nodes + more_nodes,
            bytes + more_bytes,
            depth.max(child_depth + 1),
        )
    };
    match &node.value {
        Value::Scalar { text, .. } => (1, text.len(), 0),
        Value::Sequence(items) => items.iter().fold((1, 0, 1), combine),
        Value::Mapping(entries) => entries.iter().fold((1, 0, 1), |sum, entry| {
            let (nodes, bytes, depth) = combine(sum, &entry.value);
            (nodes, bytes + entry.key.len(), depth)
        }),
    }
}

fn syntax_error(text: &str, at: Position, info: &str) -> Stop {
    let line = text
        .lines()
        .nth(at.line.saturating_sub(1))
        .unwrap_or_default();
    let hint = if line
        .chars()
        .take_while(|c| c.is_whitespace())
        .any(|c| c == '\t')
    {
        Some("indent with spaces, not with tabs")
    } else if info.contains("simple key expect") {
        Some("put a space after the `:` of a key")
    } else if info.contains("must be followed by a valid YAML whitespace") {
        Some("put a space after the `:` of a key, not a tab")
    } else if info.contains("mapping values are not allowed") {
        Some("put a value that contains `: ` or ends in `:` in quotes, for example \"local:\"")
    } else {
        None
    };
    Stop {
        at,
        message: format!("not valid YAML: {info}"),
        hint: hint.map(str::to_owned),
    }
}

/// The position after the last character, a line break at the end aside.
fn end_of(text: &str) -> Position {
    let without_break = ["\r\n", "\n", "\r"]
        .iter()
        .find_map(|end| text.strip_suffix(end));
    position_after(without_break.unwrap_or(text))
}

pub(crate) fn position_after(text: &str) -> Position {
    // A lone carriage return ends a line as well.
    let breaks = text.matches(['\n', '\r']).count() - text.matches("\r\n").count();
    let last_line = text.rsplit(['\n', '\r']).next().unwrap_or_default();
    Position {
        line: breaks + 1,
        column: last_line.chars().count() + 1,
    }
}

/// Whether a character may not stand in a YAML text. The parser would take the first of them for the end.
fn is_forbidden(character: char) -> bool {
    character < ' ' && !matches!(character, '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    /// The tree in one line per value, then the problems.
    fn check(text: &str) -> String {
        let mut problems = Collector::new(Path::new("f.yaml"));
        let mut out = String::new();
        if let Some(root) = parse(text, &mut problems) {
            draw(&root, "", &mut out);
        }
        for problem in problems.into_problems() {
            writeln!(out, "{problem:#}").unwrap();
        }
        out
    }

    fn draw(node: &Node, path: &str, out: &mut String) {
        match &node.value {
            Value::Scalar { text, style } => {
                writeln!(
                    out,
                    "{}:{} {path} = {style:?} {text:?}",
                    node.at.line, node.at.column
                )
                .unwrap();
            }
            Value::Sequence(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(index, item)| draw(item, &format!("{path}[{index}]"), out));
            }
            Value::Mapping(entries) => {
                entries
                    .iter()
                    .for_each(|entry| draw(&entry.value, &format!("{path}.{}", entry.key), out));
            }
        }
    }

    #[test]
    fn keeps_the_text_and_the_place_of_every_scalar() {
        assert_snapshot!(check("a: 0644\nb: [yes, 'no', \"x\\ty\"]\nc:\n  é: 1.10\n  d:\n"), @r#"
        1:4 .a = Plain "0644"
        2:5 .b[0] = Plain "yes"
        2:10 .b[1] = Quoted "no"
        2:16 .b[2] = Quoted "x\ty"
        4:6 .c.é = Plain "1.10"
        5:4 .c.d = Plain ""
        "#);
    }

    #[test]
    fn expands_aliases_and_merge_keys() {
        assert_snapshot!(check("base: &b {x: 1, y: 2}\nlist: [*b]\nmore: {<<: *b, y: 3}\n"), @r#"
        1:14 .base.x = Plain "1"
        1:20 .base.y = Plain "2"
        1:14 .list[0].x = Plain "1"
        1:20 .list[0].y = Plain "2"
        3:19 .more.y = Plain "3"
        1:14 .more.x = Plain "1"
        "#);
    }

    #[test]
    fn reports_duplicate_keys() {
        assert_snapshot!(check("a: 1\nb: 2\na: 3\n"), @r#"
        1:4 .a = Plain "1"
        2:4 .b = Plain "2"
        f.yaml:3:1: the key `a` is given twice, first on line 1
        "#);
    }

    #[test]
    fn reports_syntax_errors_with_their_place() {
        assert_snapshot!(check("a: [1, 2\n"), @"f.yaml:1:9: not valid YAML: while parsing a flow sequence, expected ',' or ']'");
        assert_snapshot!(check("host: local:\n"), @r#"
        f.yaml:1:12: not valid YAML: mapping values are not allowed in this context
          hint: put a value that contains `: ` or ends in `:` in quotes, for example "local:"
        "#);
        assert_snapshot!(check("a:\n\tb: 1\n"), @"
        f.yaml:2:2: not valid YAML: tabs disallowed within this context (block indentation)
          hint: indent with spaces, not with tabs
        ");
        assert_snapshot!(check("a: 1\n---\nb: 2\n"), @"f.yaml:2:1: the file holds more than one document, expected one");
        assert_snapshot!(check("a: *nowhere\n"), @"f.yaml:1:4: not valid YAML: while parsing node, found unknown anchor");
        assert_snapshot!(check("a: &a [*a]\n"), @"f.yaml:1:8: an alias must not stand inside the value it refers to");
        assert_snapshot!(check("[a, b]: c\n!thing d: e\n"), @r#"
        2:11 .d = Plain "e"
        f.yaml:1:1: a key must be text, found a list
        f.yaml:2:1: the tag `!thing` is not supported
        "#);
        assert_snapshot!(check("ok: 1\nbad: \u{0}\n"), @r"f.yaml:2:6: the file contains the control character `\u{0}`");
        assert_snapshot!(check("a: 1\n?\n"), @r#"
        1:4 .a = Plain "1"
        2:2 . = Plain ""
        "#);
        assert_snapshot!(check("# nothing\n"), @"f.yaml:1:1: the file is empty");
    }

    #[test]
    fn bounds_depth_size_and_expansion() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(laughs, "a{level}: &a{level} [{items}]").unwrap();
        }

        assert_snapshot!(check(&"[".repeat(1000)), @"f.yaml:1:256: not valid YAML: recursion limit exceeded");
        assert_snapshot!(check(&" ".repeat(MAX_BYTES + 1)), @"f.yaml:1:1: the file is larger than 4 MiB");
        assert_snapshot!(check(&"- x\n".repeat(MAX_NODES + 1)), @"f.yaml:200001:3: the file holds more than 200000 values");
        assert_snapshot!(check(&laughs), @"f.yaml:5:5: the file holds more than 200000 values");
    }

    proptest! {
        #[test]
        fn never_panics_and_points_into_the_text(text in "(?s)[-\\[\\]{}:,&*!|>'\"%@#? \n\r\tab0~<é]{0,60}|.{0,60}") {
            let mut problems = Collector::new(Path::new("f.yaml"));

            parse(&text, &mut problems);

            for problem in problems.into_problems() {
                let line_count = text.split(['\n', '\r']).count();
                prop_assert!((1..=line_count).contains(&problem.line), "{}", problem);
            }
        }
    }
}
