//! Paths with wildcards as glob(7) has them, that remember what each wildcard matched.
//!
//! Own, because a watch needs to know which directories a pattern looks into, also those that hold no match yet, and because
//! paths of one device are told by what their wildcards stand for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory with more entries than this is not one of device nodes, and no more of it are looked at.
const MOST_ENTRIES: usize = 65_536;

/// An absolute path with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    text: String,
    parts: Vec<Part>,
}

/// One name of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Name(String),
    Pattern(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Any,
    /// `[a-z]`, or with the flag `[!a-z]`.
    Class(bool, Vec<(char, char)>),
}

/// A path that matched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Match {
    /// As a program of the host names it.
    pub(crate) path: String,
    /// What each wildcard stands for, in order.
    pub(crate) captures: Vec<String>,
}

// === impl Glob ===

impl Glob {
    /// Reads a pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(names) = text.strip_prefix('/') else { return Err("must be an absolute path") };
        if text.len() > 4095 || text.contains('\0') {
            return Err("is no path");
        }
        let parts = names.split('/').map(Part::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), parts })
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// How many wildcards it has.
    pub(crate) fn wildcards(&self) -> usize {
        let count = |part: &Part| match part {
            Part::Name(_) => 0,
            Part::Pattern(tokens) => {
                tokens.iter().filter(|token| !matches!(token, Token::Literal(_))).count()
            }
        };
        self.parts.iter().map(count).sum()
    }

    /// What there is, in order of path. `root` stands where `/` does. Directories that were looked into are added to `looked`,
    /// by their paths below `root`: what is made or removed in one of them can change the answer.
    pub(crate) fn find(&self, root: &Path, looked: &mut BTreeSet<PathBuf>) -> Vec<Match> {
        let mut found = Vec::new();
        let here = Match { path: String::new(), captures: Vec::new() };
        descend(root, &self.parts, here, looked, &mut found);
        found.sort();
        found
    }
}

fn descend(root: &Path, parts: &[Part], here: Match, looked: &mut BTreeSet<PathBuf>, found: &mut Vec<Match>) {
    let Some((part, rest)) = parts.split_first() else {
        found.push(here);
        return;
    };
    let place = root.join(here.path.trim_start_matches('/'));
    if !place.is_dir() {
        return;
    }
    looked.insert(place.clone());
    match part {
        Part::Name(name) => {
            let path = format!("{}/{name}", here.path);
            if place.join(name).symlink_metadata().is_ok() {
                descend(root, rest, Match { path, captures: here.captures }, looked, found);
            }
        }
        Part::Pattern(tokens) => {
            let Ok(entries) = fs::read_dir(&place) else { return };
            for entry in entries.take(MOST_ENTRIES).flatten() {
                // A name that is no text cannot be said to a kubelet.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let mut captures = here.captures.clone();
                let chars: Vec<char> = name.chars().collect();
                // As in a shell, a wildcard does not stand for a leading dot.
                let hidden = name.starts_with('.') && tokens.first() != Some(&Token::Literal('.'));
                if !hidden && matches(tokens, &chars, &mut captures) {
                    let path = format!("{}/{name}", here.path);
                    descend(root, rest, Match { path, captures }, looked, found);
                }
            }
        }
    }
}

/// Whether a name matches; what wildcards stand for is added to `captures` (the shortest for each `*` that will do). The
/// last `*` alone is tried again, as is enough for globs, so the work is at most the product of both lengths.
fn matches(tokens: &[Token], name: &[char], captures: &mut Vec<String>) -> bool {
    // Where each token's text begins; a star's ends where the next one's begins.
    let mut starts = vec![0; tokens.len() + 1];
    let (mut at, mut token) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if let Some(one) = tokens.get(token) {
            if let Some(slot) = starts.get_mut(token) {
                *slot = at;
            }
            if *one == Token::Any {
                star = Some((token, at));
                token += 1;
                continue;
            }
            if name.get(at).is_some_and(|c| one.takes(*c)) {
                at += 1;
                token += 1;
                continue;
            }
        } else if at == name.len() {
            if let Some(slot) = starts.last_mut() {
                *slot = at;
            }
            break;
        }
        match star {
            Some((position, took)) if took < name.len() => {
                star = Some((position, took + 1));
                at = took + 1;
                token = position + 1;
            }
            _ => return false,
        }
    }
    for (one, ends) in tokens.iter().zip(starts.windows(2)) {
        if let (false, &[start, end]) = (matches!(one, Token::Literal(_)), ends) {
            captures.push(name.get(start..end).unwrap_or_default().iter().collect());
        }
    }
    true
}

// === impl Part ===

impl Part {
    fn parse(name: &str) -> Result<Self, &'static str> {
        if matches!(name, "" | "." | "..") {
            return Err("must have no empty part, and no . or ..");
        }
        if name.contains("**") {
            return Err("** is not supported: say each directory, or use several paths");
        }
        let mut tokens = Vec::new();
        let mut chars = name.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Any,
                '?' => Token::One,
                '[' => class(&mut chars)?,
                '\\' => Token::Literal(chars.next().ok_or("ends with a backslash")?),
                other => Token::Literal(other),
            });
        }
        let literal = |token: &Token| match token {
            Token::Literal(c) => Some(*c),
            _ => None,
        };
        let name: Option<String> = tokens.iter().map(literal).collect();
        Ok(name.map_or(Self::Pattern(tokens), Self::Name))
    }
}

fn class(chars: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    const OPEN: &str = "a bracket is not closed";
    let mut ranges = Vec::new();
    let mut first = chars.next().ok_or(OPEN)?;
    let not = matches!(first, '!' | '^');
    if not {
        first = chars.next().ok_or(OPEN)?;
    }
    let mut from = first;
    loop {
        let mut next = chars.next().ok_or(OPEN)?;
        let mut to = from;
        if next == '-' {
            next = chars.next().ok_or(OPEN)?;
            if next == ']' {
                ranges.push((from, from));
                ranges.push(('-', '-'));
                break;
            }
            to = next;
            next = chars.next().ok_or(OPEN)?;
        }
        ranges.push((from, to));
        if next == ']' {
            break;
        }
        from = next;
    }
    Ok(Token::Class(not, ranges))
}

// === impl Token ===

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == c,
            Self::One | Self::Any => true,
            Self::Class(not, ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *not,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for path in paths {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("directories");
            fs::write(path, "").expect("a file");
        }
        root
    }

    fn found(pattern: &str, root: &Path) -> Vec<(String, Vec<String>)> {
        let glob = Glob::parse(pattern).expect("a pattern");
        glob.find(root, &mut BTreeSet::new()).into_iter().map(|it| (it.path, it.captures)).collect()
    }

    fn entry(path: &str, captures: &[&str]) -> (String, Vec<String>) {
        (path.to_owned(), captures.iter().map(|it| (*it).to_owned()).collect())
    }

    #[test]
    fn finds_what_matches_and_says_what_wildcards_stand_for() {
        let root =
            tree(&["dev/ttyUSB0", "dev/ttyUSB12", "dev/ttyACM0", "dev/bus/usb/001/002", "dev/.ttyUSB9"]);
        let root = root.path();
        assert_eq!(
            found("/dev/ttyUSB*", root),
            [entry("/dev/ttyUSB0", &["0"]), entry("/dev/ttyUSB12", &["12"])]
        );
        assert_eq!(found("/dev/tty[A-T]*0", root), [entry("/dev/ttyACM0", &["A", "CM"])]);
        assert_eq!(found("/dev/tty[!A]SB?", root), [entry("/dev/ttyUSB0", &["U", "0"])]);
        assert_eq!(found("/dev/bus/usb/*/*", root), [entry("/dev/bus/usb/001/002", &["001", "002"])]);
        assert_eq!(found("/dev/fuse", root), []);
        assert_eq!(found("/dev/tty\\*", root), []);
    }

    #[test]
    fn says_which_directories_decide() {
        let root = tree(&["dev/serial/by-id/x"]);
        let mut looked = BTreeSet::new();
        Glob::parse("/dev/dri/by-path/*").expect("a pattern").find(root.path(), &mut looked);
        Glob::parse("/dev/serial/*/y").expect("a pattern").find(root.path(), &mut looked);
        let below: Vec<_> =
            looked.iter().map(|it| it.strip_prefix(root.path()).expect("below").to_owned()).collect();
        assert_eq!(below, ["", "dev", "dev/serial", "dev/serial/by-id"].map(PathBuf::from));
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        for text in
            ["", "dev/x", "/", "/dev/", "/dev/../x", "/dev/**", "/dev/[a", "/dev/[", "/dev/x\\", "/a\0"]
        {
            assert!(Glob::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Glob::parse("/dev/[a-]*?x").map(|it| it.wildcards()), Ok(3));
    }

    proptest! {
        #[test]
        fn captures_put_the_name_together_again(name in "[ab]{0,12}", pattern in "[ab*?]{1,12}") {
            prop_assume!(!pattern.contains("**"));
            let Ok(Part::Pattern(tokens)) = Part::parse(&pattern) else { return Ok(()) };
            let chars: Vec<char> = name.chars().collect();
            let mut captures = Vec::new();
            if matches(&tokens, &chars, &mut captures) {
                let mut captures = captures.into_iter();
                let whole: String = tokens.iter().map(|token| match token {
                    Token::Literal(c) => c.to_string(),
                    _ => captures.next().expect("one for each wildcard"),
                }).collect();
                prop_assert_eq!(whole, name);
            }
        }
    }
}
