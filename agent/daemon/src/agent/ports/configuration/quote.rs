//! Go's quoted strings, which the files of labels and annotations are written with.

use std::fmt::Write;

/// The text as Go's `%q` shows it.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            '\u{7}' => write!(quoted, "\\a"),
            '\u{8}' => write!(quoted, "\\b"),
            '\u{c}' => write!(quoted, "\\f"),
            '\n' => write!(quoted, "\\n"),
            '\r' => write!(quoted, "\\r"),
            '\t' => write!(quoted, "\\t"),
            '\u{b}' => write!(quoted, "\\v"),
            c if is_printed(c) => write!(quoted, "{c}"),
            c if c < ' ' || c == '\u{7f}' => write!(quoted, "\\x{:02x}", u32::from(c)),
            c if u32::from(c) > 0xffff => write!(quoted, "\\U{:08x}", u32::from(c)),
            c => write!(quoted, "\\u{:04x}", u32::from(c)),
        };
    }
    quoted.push('"');
    quoted
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space, in both languages. After another
/// character, so that marks which Rust escapes by themselves count as what they are.
fn is_printed(c: char) -> bool {
    let shown: String = ['a', c].iter().collect::<String>().escape_debug().collect();
    c == '\'' || shown.chars().nth(1) == Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_quotes() {
        for (text, quoted) in [
            ("", r#""""#),
            ("plain 'text'", r#""plain 'text'""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r#""\a\b\f\n\r\t\v""#),
            ("\u{0}\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("é ☺ 漢 e\u{301} 🙂", "\"é ☺ 漢 e\u{301} 🙂\""),
            ("\u{85}\u{a0}\u{feff}\u{2028}\u{e000}", r#""\u0085\u00a0\ufeff\u2028\ue000""#),
            ("\u{10ffff}\u{e0001}", r#""\U0010ffff\U000e0001""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }
}
