//! Colour, on terminals that want it.

use std::fmt;
use std::io::IsTerminal;

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Good,
    Pending,
    Bad,
    /// One of a few colours, to tell streams apart.
    Nth(usize),
}

/// Text in a style.
pub(crate) struct Painted<'a> {
    text: &'a str,
    code: &'static str,
}

/// Cyan, magenta, blue, yellow, green: readable on dark and light.
const PALETTE: [&str; 5] = ["36", "35", "34", "33", "32"];

/// Whether colour is wanted on a stream: a terminal, without `NO_COLOR` (no-color.org) and not a dumb one.
pub(crate) fn wanted(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

// === impl Style ===

impl Style {
    pub(crate) fn paint(self, text: &str) -> Painted<'_> {
        let code = match self {
            Self::Good => "32",
            Self::Pending => "33",
            Self::Bad => "31",
            Self::Nth(number) => PALETTE[number % PALETTE.len()],
        };
        Painted { text, code }
    }
}

impl fmt::Display for Painted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\x1b[{}m{}\x1b[0m", self.code, self.text)
    }
}
