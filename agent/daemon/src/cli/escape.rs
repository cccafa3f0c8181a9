//! Text of others, as it may be shown on a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// With control characters written out: messages and names may come from images and programs, and must not command
/// the terminal of whoever reads them. ESC becomes `^[`, as in kubectl.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    let commands = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if !text.contains(commands) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte @ (0..0x20 | 0x7f)) if commands(character) => out.extend(['^', char::from(byte ^ 0x40)]),
            // A `String` takes all that is written to it.
            _ if commands(character) => drop(write!(out, "\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// The first line of a text, with a mark where more follows: what has room in a table.
pub(crate) fn first_line(text: &str) -> Cow<'_, str> {
    match text.split_once(['\n', '\r', '\u{c}', '\u{b}']) {
        Some((first, _)) => Cow::Owned(format!("{}...", escape(first))),
        None => escape(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_commanded() {
        for (text, expected) in [
            ("plain \u{e9}\ttext", "plain \u{e9}\ttext"),
            ("\u{1b}[31mred", "^[[31mred"),
            ("back\u{8}\u{7f}", "back^H^?"),
            ("\u{9b}2J", "\\u009b2J"),
            ("two\nlines", "two\nlines"),
        ] {
            assert_eq!(escape(text), expected);
        }
        assert_eq!(first_line("one\ntwo"), "one...");
        assert_eq!(first_line("one\u{1b}\r\ntwo"), "one^[...");
        assert_eq!(first_line("one"), "one");
    }
}
