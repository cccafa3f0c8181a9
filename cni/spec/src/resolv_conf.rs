//! The form of resolv.conf(5). What its keywords mean for whom is for those who read it to say.

use std::str::SplitWhitespace;

/// The lines that say something: a keyword, and the words behind it.
pub fn resolv_conf_lines(text: &str) -> impl Iterator<Item = (&str, SplitWhitespace<'_>)> {
    text.lines().filter_map(|line| {
        // A comment stands in a line of its own, but people write them elsewhere.
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        Some((words.next()?, words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        let text = "# of the host\n\n \tnameserver\t10.0.0.1 # first\n;search a\nsearch b  c;d\noptions\n";
        let lines: Vec<(&str, Vec<&str>)> =
            resolv_conf_lines(text).map(|(keyword, words)| (keyword, words.collect())).collect();
        assert_eq!(
            lines,
            [("nameserver", vec!["10.0.0.1"]), ("search", vec!["b", "c"]), ("options", Vec::new())]
        );
    }
}
