//! Text from plugins, made safe to show and to keep. A plugin's output is data from a stranger: it may be huge, may
//! hold terminal control sequences, and may repeat a secret that a provider echoed.

use crate::secret::Secrets;

/// Makes one line of at most `max` bytes: redacted, without control characters, cut at a character.
pub(crate) fn line(text: &str, max: usize, secrets: &Secrets) -> String {
    let redacted = secrets.redact(text);
    let mut out = String::with_capacity(redacted.len().min(max));
    for c in redacted.chars() {
        let c = match c {
            '\n' | '\r' | '\t' => ' ',
            c if is_unsafe(c) => continue,
            c => c,
        };
        if out.len() + c.len_utf8() + '…'.len_utf8() > max {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

/// Makes a block of lines: redacted, without control characters but line feeds.
pub(crate) fn block(text: &str, secrets: &Secrets) -> String {
    secrets
        .redact(text)
        .chars()
        .filter_map(|c| match c {
            '\n' => Some('\n'),
            '\t' => Some(' '),
            c if is_unsafe(c) => None,
            c => Some(c),
        })
        .collect()
}

/// Whether a text that is used as it is (a reference, an id) holds characters that no such text needs.
pub(crate) fn is_clean(text: &str) -> bool {
    !text.chars().any(|c| is_unsafe(c) || c == '\n')
}

/// Control characters, and the format characters that reorder or hide text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_line_loses_control_characters_and_is_cut() {
        let none = Secrets::default();

        assert_eq!(line("a\u{1b}[31mred\nnext", 100, &none), "a[31mred next");
        assert_eq!(line("abcdefghij", 8, &none), "abcde…");
        assert_eq!(line("ab\u{202e}cd", 100, &none), "abcd");
        assert_eq!(line("äöü€", 100, &none), "äöü€");
    }

    #[test]
    fn known_secrets_never_come_through() {
        let mut secrets = Secrets::default();
        secrets.insert("token", Secret::new("hunter2\n"));

        assert_eq!(
            line("login hunter2 failed", 100, &secrets),
            "login [redacted] failed"
        );
        assert_eq!(block("one\nhunter2\n", &secrets), "one\n[redacted]\n");
    }
}
