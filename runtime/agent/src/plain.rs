//! Plain text out of what programs write for terminals.
//!
//! Escape sequences (colours, cursor moves, titles) and control characters are left out, so that a log that is shown
//! does nothing to the terminal that shows it. A carriage return alone, which draws a progress bar over itself, ends a
//! line.

use std::borrow::Cow;

/// The longest text that an escape sequence may carry, in characters. What goes on longer is not one.
const MAX_SEQUENCE: usize = 4096;

/// Where in the text of a terminal the reader is.
#[derive(Debug, Default)]
enum Place {
    #[default]
    Text,
    /// After a carriage return, which is nothing before a line feed.
    Return,
    /// After the escape character, or within a sequence of two or three characters.
    Escape,
    /// Within a control sequence.
    Control,
    /// Within a sequence that carries a text.
    Carrying {
        length: usize,
        /// Whether the last character was the escape character.
        escaped: bool,
    },
}

/// Takes escape sequences out of a text that comes in parts.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    place: Place,
}

impl Plain {
    /// The plain part of the next part of the text.
    pub(crate) fn text<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        if matches!(self.place, Place::Text) && is_plain(text) {
            return Cow::Borrowed(text);
        }
        let mut plain = String::with_capacity(text.len());
        for character in text.chars() {
            self.take(character, &mut plain);
        }
        Cow::Owned(plain)
    }

    /// Forgets what was begun.
    pub(crate) fn reset(&mut self) {
        self.place = Place::Text;
    }

    fn take(&mut self, character: char, plain: &mut String) {
        if matches!(self.place, Place::Return) {
            self.place = Place::Text;
            if character != '\r' {
                plain.push('\n');
                if character == '\n' {
                    return;
                }
            }
        }
        self.place = match (std::mem::take(&mut self.place), character) {
            // No sequence goes over the end of a line: one that is never ended costs no more than its line.
            (_, '\n') => {
                plain.push('\n');
                Place::Text
            }
            (Place::Text | Place::Return, character) => self.text_character(character, plain),
            (Place::Escape, '[') => Place::Control,
            (Place::Escape, ']' | 'P' | 'X' | '^' | '_') => Place::Carrying {
                length: 0,
                escaped: false,
            },
            (Place::Escape, ' '..='/') => Place::Escape,
            (Place::Escape, _) => Place::Text,
            (Place::Control, ' '..='?') => Place::Control,
            (Place::Control, '\u{1b}') => Place::Escape,
            (Place::Control, _) => Place::Text,
            (Place::Carrying { .. }, '\u{7}' | '\u{9c}')
            | (Place::Carrying { escaped: true, .. }, '\\') => Place::Text,
            (Place::Carrying { length, .. }, _) if length >= MAX_SEQUENCE => Place::Text,
            (Place::Carrying { length, .. }, character) => Place::Carrying {
                length: length + 1,
                escaped: character == '\u{1b}',
            },
        };
    }

    fn text_character(&self, character: char, plain: &mut String) -> Place {
        match character {
            '\u{1b}' => Place::Escape,
            '\u{9b}' => Place::Control,
            '\r' => Place::Return,
            '\t' => {
                plain.push(character);
                Place::Text
            }
            character => {
                if !character.is_control() {
                    plain.push(character);
                }
                Place::Text
            }
        }
    }
}

/// Whether a text holds nothing that is for a terminal. The first byte of the two-byte control characters is also
/// that of some letters, for which the long way is right as well.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'\n' | b'\t' | b' '..=b'~' | 0x80..=0xc1 | 0xc3..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(Plain::default().text(text), expected, "in one part");
        let mut plain = Plain::default();
        let parts: String = text
            .chars()
            .map(|character| plain.text(&character.to_string()).into_owned())
            .collect();
        assert_eq!(parts, expected, "character by character");
    }

    #[test]
    fn colours_and_titles_are_left_out() {
        check("\x1b[1;31mred\x1b[0m\n", "red\n");
        check("\x1b]0;title\x07text\n", "text\n");
        check("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "link\n");
        check("\x1b(Bplain\x1b=\x1b7\n", "plain\n");
        check("\u{9b}31mred\n", "red\n");
    }

    #[test]
    fn an_unfinished_sequence_costs_no_more_than_its_line() {
        check("\x1b]0;never ended\nnext\n", "\nnext\n");
        check("\x1b[31\nnext\n", "\nnext\n");
    }

    #[test]
    fn a_carriage_return_ends_a_line_once() {
        check("a\r\nb\r\r\nc\n", "a\nb\nc\n");
        check("10%\r20%\rdone\n", "10%\n20%\ndone\n");
    }

    #[test]
    fn other_text_is_as_it_was() {
        check("a\tb é 执行 \u{a0}x\n", "a\tb é 执行 \u{a0}x\n");
        check("a\0b\x07c\x08d\x7f\n", "abcd\n");
    }

    #[test]
    fn a_text_in_a_sequence_has_a_bound() {
        let text = format!("\x1b]{}end\n", "x".repeat(MAX_SEQUENCE + 1));

        check(&text, "end\n");
    }
}
