//! `$(VAR)` references, as Kubernetes expands them in `command`, `args` and `env[].value`.

/// Expands every `$(NAME)` for which `lookup` knows a value.
///
/// `$$` stands for one `$`, so `$$(NAME)` is the literal text `$(NAME)`. A reference to an unknown
/// name, an unclosed `$(` and a `$` before anything else stay as they are. Values are not expanded
/// again. The rules are those of the API's documentation of `Container.command`.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_api() {
        let lookup = |name: &str| match name {
            "A" => Some("a"),
            "REF" => Some("$(A)"),
            "EMPTY" => Some(""),
            _ => None,
        };
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "a"),
            ("x$(A)y$(A)", "xaya"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$(EMPTY)", ""),
            ("$(REF)", "$(A)"),
            ("$(A", "$(A"),
            ("$A ${A}", "$A ${A}"),
            ("end$", "end$"),
            ("$()", "$()"),
            ("$(A)$é", "a$é"),
            ("$($(A))", "$($(A))"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }
}
