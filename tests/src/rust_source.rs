//! Just enough of Rust's lexical grammar to look for words in code without being fooled by
//! comments, strings and character literals.

/// A Rust source file, split into what the compiler reads as code and what it reads as comment.
pub struct RustSource {
    /// The file's text with every comment, and the inside of every literal, turned into spaces.
    /// Offsets and line breaks are those of the file.
    code: Vec<u8>,
    /// The inverse: only comments remain.
    comments: Vec<u8>,
}

/// Where a word stands, and what follows it.
pub struct Occurrence<'a> {
    /// Counted from 1.
    pub line: usize,
    /// The code after the word, blanks skipped.
    pub rest: &'a str,
}

impl RustSource {
    /// Splits the file.
    pub fn parse(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut source = Self { code: blank(bytes), comments: blank(bytes) };
        let mut at = 0;
        while at < bytes.len() {
            let (kind, end) = lexeme(bytes, at);
            let target = match kind {
                Kind::Code => &mut source.code,
                Kind::Comment => &mut source.comments,
                Kind::Literal => {
                    at = end;
                    continue;
                }
            };
            target[at..end].copy_from_slice(&bytes[at..end]);
            at = end;
        }
        source
    }

    /// Every place where `word` stands in the code as an identifier or keyword of its own.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = Occurrence<'a>> {
        // Only whole lexemes were copied or blanked, so the text is as valid UTF-8 as the file was.
        let code = std::str::from_utf8(&self.code).unwrap_or_default();
        code.match_indices(word).filter_map(move |(at, _)| {
            let before = code[..at].chars().next_back();
            let after = &code[at + word.len()..];
            if before.is_some_and(is_identifier) || after.chars().next().is_some_and(is_identifier) {
                return None;
            }
            Some(Occurrence { line: line_of(&self.code, at), rest: after.trim_start() })
        })
    }

    /// The comments of one line, trimmed; empty when it has none.
    pub fn comment(&self, line: usize) -> &str {
        line_text(&self.comments, line)
    }

    /// The code of one line, trimmed; empty when it has none.
    pub fn code(&self, line: usize) -> &str {
        line_text(&self.code, line)
    }

    /// Whether the comment that stands on `line`, or directly above the statement that `line` belongs to,
    /// says `needle`. Attributes, and the first lines of a statement broken over several, may stand between.
    pub fn explained(&self, line: usize, needle: &str) -> bool {
        const STATEMENT_LINES: usize = 4;
        if self.comment(line).contains(needle) {
            return true;
        }
        let mut code_lines = 0;
        for above in (1..line).rev() {
            if self.comment(above).contains(needle) {
                return true;
            }
            let code = self.code(above);
            if self.comment(above).is_empty() && code.is_empty() {
                return false;
            }
            if !code.is_empty() && !code.starts_with('#') {
                code_lines += 1;
                if code_lines > STATEMENT_LINES || code.ends_with([';', '}']) {
                    return false;
                }
            }
        }
        false
    }
}

enum Kind {
    Code,
    Comment,
    Literal,
}

/// The lexeme that begins at `at`, and where it ends. Code comes a character or identifier at a time.
fn lexeme(bytes: &[u8], at: usize) -> (Kind, usize) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return (Kind::Comment, at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, at + block_comment(rest));
    }
    if let Some(length) = raw_string(rest) {
        return (Kind::Literal, at + length);
    }
    match rest[0] {
        b'"' => (Kind::Literal, at + quoted(rest, b'"')),
        b'\'' => match character(rest) {
            Some(length) => (Kind::Literal, at + length),
            None => (Kind::Code, at + 1),
        },
        byte if is_identifier(byte as char) || byte >= 0x80 => {
            let length = rest.iter().position(|b| !is_identifier(*b as char) && *b < 0x80);
            (Kind::Code, at + length.unwrap_or(rest.len()))
        }
        _ => (Kind::Code, at + 1),
    }
}

/// The length of a block comment; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of `r"..."`, `br#"..."#` and the like, when one begins here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    if !matches!(&rest[..prefix], b"r" | b"br" | b"cr") {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    let body = prefix + hashes + 1;
    if rest.get(body - 1) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let end = rest[body..].windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| body + end + close.len()))
}

/// The length of a literal up to its unescaped closing quote.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted(rest, b'\''));
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
    let valid = match &text {
        Ok(text) => *text,
        Err(error) => std::str::from_utf8(&rest[1..1 + error.valid_up_to()]).unwrap_or_default(),
    };
    let length = valid.chars().next()?.len_utf8();
    (rest.get(1 + length) == Some(&b'\'')).then_some(length + 2)
}

fn is_identifier(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn blank(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }).collect()
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|b| **b == b'\n').count()
}

fn line_text(bytes: &[u8], line: usize) -> &str {
    let text = bytes.split(|b| *b == b'\n').nth(line - 1).unwrap_or_default();
    std::str::from_utf8(text).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, word: &str) -> Vec<usize> {
        RustSource::parse(text).words(word).map(|found| found.line).collect()
    }

    #[test]
    fn a_word_counts_only_in_code() {
        let text = "// unsafe\n/* unsafe /* unsafe */ unsafe */\n\"unsafe \\\" unsafe\"; r#\"unsafe \" \"#;\nunsafe {}";
        assert_eq!(lines(text, "unsafe"), [4]);
    }

    #[test]
    fn a_word_is_a_whole_identifier() {
        assert_eq!(lines("unsafe_code not_unsafe\nunsafe\n(unsafe)", "unsafe"), [2, 3]);
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(lines("fn f<'a>(x: &'a str) -> char { '\"' }\nunsafe '\\'' 'ü' unsafe", "unsafe"), [2, 2]);
    }

    #[test]
    fn an_explanation_stands_directly_above() {
        let text = "// SAFETY: so\nlet a = unsafe { b };\nlet c = unsafe { d };\n\
                    // SAFETY: so\n// and so\n#[cfg(x)]\nlet e =\n    f(unsafe { g });\n\nunsafe { h }";
        let source = RustSource::parse(text);
        let explained: Vec<_> =
            source.words("unsafe").map(|found| source.explained(found.line, "SAFETY")).collect();
        assert_eq!(explained, [true, false, true, false]);
    }
}
