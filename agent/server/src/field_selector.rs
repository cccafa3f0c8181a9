//! Field selectors: `involvedObject.name=web,type!=Normal`, as `k8s.io/apimachinery/pkg/fields` reads them.

/// A field that can be selected by: its label, and its value in an object.
pub(crate) type Field<T> = (&'static str, fn(&T) -> &str);

/// What is selected of objects of one kind: every term holds.
#[derive(Debug)]
pub(crate) struct FieldSelector<T: 'static> {
    terms: Vec<Term<T>>,
}

#[derive(Debug)]
struct Term<T: 'static> {
    field: fn(&T) -> &str,
    value: String,
    /// `=` or `==`; not `!=`.
    equal: bool,
}

// === impl FieldSelector ===

impl<T> FieldSelector<T> {
    /// Reads a selector over these fields; an empty one selects everything. The error is in the API server's words.
    pub(crate) fn parse(text: &str, fields: &[Field<T>]) -> Result<Self, String> {
        let term = |text: &str| {
            let (label, equal, value) = split(text)
                .ok_or_else(|| format!("invalid selector: {text:?}; can't understand {text:?}"))?;
            let value = unescape(value).ok_or_else(|| {
                format!("invalid selector: {text:?}; a backslash stands before '\\', ',' or '=' only")
            })?;
            let (_, field) = fields
                .iter()
                .find(|(name, _)| *name == label)
                .ok_or_else(|| format!("field label not supported: {label}"))?;
            Ok(Term { field: *field, value, equal })
        };
        let terms = terms(text).into_iter().filter(|text| !text.is_empty());
        Ok(Self { terms: terms.map(term).collect::<Result<_, String>>()? })
    }

    /// Whether an object is selected.
    pub(crate) fn matches(&self, object: &T) -> bool {
        self.terms.iter().all(|term| ((term.field)(object) == term.value) == term.equal)
    }
}

/// The parts between commas that no backslash stands before.
fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut begin, mut escaped) = (Vec::new(), 0, false);
    for (place, byte) in text.bytes().enumerate() {
        if byte == b',' && !escaped {
            terms.push(&text[begin..place]);
            begin = place + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    terms.push(&text[begin..]);
    terms
}

/// Field, whether it is to be equal, and value.
fn split(term: &str) -> Option<(&str, bool, &str)> {
    let (before, after) = term.split_once('=')?;
    match before.strip_suffix('!') {
        Some(label) => Some((label, false, after)),
        None => Some((before, true, after.strip_prefix('=').unwrap_or(after))),
    }
}

fn unescape(text: &str) -> Option<String> {
    let (mut out, mut characters) = (String::new(), text.chars());
    while let Some(character) = characters.next() {
        out.push(match character {
            '\\' => characters.next().filter(|next| matches!(next, '\\' | ',' | '='))?,
            // Only a comma ends a value, and it was looked for already; an equals sign must be escaped.
            '=' => return None,
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [Field<(String, String)>; 2] = [("a.b", |it| &it.0), ("type", |it| &it.1)];

    #[test]
    fn selectors_are_read_as_kubernetes_reads_them() {
        let object = ("x,=\\y".to_owned(), "Normal".to_owned());
        for (text, expected) in [
            ("", true),
            (",", true),
            ("type=Normal", true),
            ("type==Normal", true),
            ("type!=Normal", false),
            ("type=", false),
            ("type!=", true),
            ("type=Normal,type!=Warning", true),
            ("type=Normal,type=Warning", false),
            (r"a.b=x\,\=\\y,type=Normal", true),
            (r"a.b=x\\", false),
        ] {
            let selector = FieldSelector::parse(text, &FIELDS).unwrap();
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
        for (text, expected) in [
            ("type", "invalid selector: \"type\"; can't understand \"type\""),
            ("color=red", "field label not supported: color"),
            (r"type=\x", "invalid selector"),
            ("type=a=b", "invalid selector"),
            (r"type=a\", "invalid selector"),
        ] {
            let error = FieldSelector::parse(text, &FIELDS).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
