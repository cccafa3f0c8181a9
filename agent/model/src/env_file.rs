//! Files of variables that containers write (KEP-3721): lines of `NAME='value'`, which a POSIX shell reads
//! the same way.

/// The value of a variable in a file of them; the first of that name counts, and what follows it is not looked
/// at. `None` when there is none.
///
/// # Errors
/// A message that names the line, for a file that is none of variables.
pub fn env_file_value(content: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = content.lines().zip(1usize..);
    while let Some((line, number)) = lines.next() {
        let invalid =
            |problem: &str| format!("invalid environment variable format at line {number}: {problem}");
        let line = line.trim_start_matches(BLANKS);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| invalid("missing '='"))?;
        if name.trim_end_matches(BLANKS).is_empty() {
            return Err(invalid("empty variable name"));
        }
        if name.ends_with(BLANKS) {
            return Err(invalid("whitespace before '=' is not allowed"));
        }
        // As in a shell, what stands after a blank is not the value.
        if value.starts_with(BLANKS) {
            if name == key {
                return Ok(Some(String::new()));
            }
            continue;
        }
        let mut rest =
            value.strip_prefix('\'').ok_or_else(|| invalid("value must be enclosed in single quotes"))?;
        let mut value = String::new();
        let after = loop {
            if let Some((end, after)) = rest.split_once('\'') {
                value.push_str(end);
                break after.trim_start_matches(BLANKS);
            }
            value.push_str(rest);
            value.push('\n');
            rest = lines.next().ok_or_else(|| invalid("unclosed single quote"))?.0;
        };
        if !after.is_empty() && !after.starts_with('#') {
            return Err(invalid("unexpected content after closing quote"));
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

const BLANKS: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let file = "\n  # a comment='x'\n\tA='one'\nB='two' # more\nC='it spans\n# lines\n'\nD= 'blank'\nE=''\n\
                    F='$(A) \"${A}\" \\'\nA='again'\r\nG.h-i='dots'";
        for (key, value) in [
            ("A", Some("one")),
            ("B", Some("two")),
            ("C", Some("it spans\n# lines\n")),
            ("D", Some("")),
            ("E", Some("")),
            ("F", Some("$(A) \"${A}\" \\")),
            ("G.h-i", Some("dots")),
            ("a", None),
            ("# lines", None),
        ] {
            assert_eq!(env_file_value(file, key).unwrap().as_deref(), value, "{key}");
        }
        assert_eq!(env_file_value("", "A"), Ok(None));
    }

    #[test]
    fn what_is_no_such_file() {
        for (file, problem) in [
            ("A", "at line 1: missing '='"),
            ("X='1'\n='1'", "at line 2: empty variable name"),
            (" \t='1'", "at line 1: empty variable name"),
            ("B ='1'", "at line 1: whitespace before '=' is not allowed"),
            ("B=1", "at line 1: value must be enclosed in single quotes"),
            ("B=\"1\"", "at line 1: value must be enclosed in single quotes"),
            ("B='1'2", "at line 1: unexpected content after closing quote"),
            ("\nB='1\n2", "at line 2: unclosed single quote"),
        ] {
            let found = env_file_value(file, "A").unwrap_err();
            assert!(found.ends_with(problem), "{file:?}: {found}");
            let before = format!("A='1'\n{file}");
            assert_eq!(
                env_file_value(&before, "A").unwrap().as_deref(),
                Some("1"),
                "what follows is not looked at"
            );
        }
    }
}
