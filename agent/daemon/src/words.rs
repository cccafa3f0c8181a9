//! Errors in words for people.

/// An error with all its causes, each said once: many of our errors say their cause themselves.
pub(crate) fn whole(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::whole;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the file: {source}: is it there?")]
    struct Said {
        source: io::Error,
    }

    #[test]
    fn a_cause_is_said_once() {
        let source = io::Error::from_raw_os_error(2);
        let error = Err::<(), _>(Said { source }).context("cannot begin").unwrap_err();
        let words =
            "cannot begin: cannot read the file: No such file or directory (os error 2): is it there?";
        assert_eq!(whole(&error), words);
        assert_eq!(whole(&anyhow::anyhow!("a").context("b")), "b: a");
    }
}
