//! Licence expressions as the SPDX specification (annex "SPDX license expressions") writes them.

/// Whether an expression leaves a choice in which every licence is allowed. The `/` of older manifests
/// reads as `OR`. An expression that cannot be read is not satisfied.
pub fn satisfied(expression: &str, allowed: impl Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let result = any(&mut rest, &allowed);
    result == Some(true) && rest.is_empty()
}

/// `A OR B`, the weaker operator.
fn any(tokens: &mut &[&str], allowed: &impl Fn(&str) -> bool) -> Option<bool> {
    let mut result = all(tokens, allowed)?;
    while next_is(tokens, "OR") {
        result |= all(tokens, allowed)?;
    }
    Some(result)
}

/// `A AND B`.
fn all(tokens: &mut &[&str], allowed: &impl Fn(&str) -> bool) -> Option<bool> {
    let mut result = one(tokens, allowed)?;
    while next_is(tokens, "AND") {
        result &= one(tokens, allowed)?;
    }
    Some(result)
}

/// A licence, with its exception if it has one, or an expression in parentheses.
fn one(tokens: &mut &[&str], allowed: &impl Fn(&str) -> bool) -> Option<bool> {
    if next_is(tokens, "(") {
        let inner = any(tokens, allowed)?;
        return next_is(tokens, ")").then_some(inner);
    }
    let licence = take(tokens)?;
    if next_is(tokens, "WITH") {
        return Some(allowed(&format!("{licence} WITH {}", take(tokens)?)));
    }
    Some(allowed(licence))
}

fn take<'a>(tokens: &mut &[&'a str]) -> Option<&'a str> {
    let (first, rest) = tokens.split_first()?;
    *tokens = rest;
    Some(first)
}

fn next_is(tokens: &mut &[&str], wanted: &str) -> bool {
    let found = tokens.first() == Some(&wanted);
    if found {
        *tokens = &tokens[1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    #[test]
    fn expressions() {
        let allowed = |licence: &str| ["MIT", "Zlib", "A WITH E"].contains(&licence);
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("(GPL-3.0 OR MIT) AND Zlib", true),
            ("MIT OR GPL-3.0 AND X", true),
            ("(MIT OR GPL-3.0) AND X", false),
            ("A WITH E", true),
            ("A", false),
            ("", false),
            ("MIT)", false),
            ("(MIT", false),
        ] {
            assert_eq!(satisfied(expression, allowed), expected, "{expression}");
        }
    }
}
