//! Manual pages and completions, made of the command line's definition.

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// Shells, and where they look for completions below `share`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/coracle"),
    (Shell::Zsh, "zsh/site-functions/_coracle"),
    (Shell::Fish, "fish/vendor_completions.d/coracle.fish"),
];

/// A page for the program and for each of its commands, by file name: `coracle-image-pull.1`.
pub(super) fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command();
    // Gives every command its whole name.
    command.build();
    let mut pages = Vec::new();
    page(command, &mut pages)?;
    Ok(pages)
}

fn page(command: clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let inner: Vec<_> = command.get_subcommands().filter(|inner| is_shown(inner)).cloned().collect();
    let manual = clap_mangen::Man::new(command)
        .source(concat!("coracle ", env!("CARGO_PKG_VERSION")))
        .manual("Coracle");
    let mut text = Vec::new();
    manual.render(&mut text)?;
    pages.push((manual.get_filename(), text));
    inner.into_iter().try_for_each(|command| page(command, pages))
}

fn is_shown(command: &clap::Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

/// Completions by their paths below `share`.
pub(super) fn completions() -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let script = |(shell, path)| {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "coracle", &mut script);
        (path, script)
    };
    Ok(COMPLETIONS.map(script).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that is shown, with its whole name: `coracle image pull`.
    fn commands(command: &clap::Command, name: &str, found: &mut Vec<String>) {
        found.push(name.to_owned());
        for inner in command.get_subcommands().filter(|inner| is_shown(inner)) {
            commands(inner, &format!("{name} {}", inner.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_a_page_that_names_it_and_its_options() {
        let mut found = Vec::new();
        commands(&Cli::command(), "coracle", &mut found);
        let pages = pages().unwrap();
        assert_eq!(pages.len(), found.len());
        for name in found {
            let file = format!("{}.1", name.replace(' ', "-"));
            let (_, page) =
                pages.iter().find(|(name, _)| *name == file).unwrap_or_else(|| panic!("no {file}"));
            let page = String::from_utf8(page.clone()).unwrap().replace("\\-", "-");
            for wanted in [name.replace(' ', "-").as_str(), "--run-dir", ".SH SYNOPSIS"] {
                assert!(page.contains(wanted), "{file} lacks {wanted}");
            }
        }
    }

    #[test]
    fn every_shell_completes_every_command() {
        let mut found = Vec::new();
        commands(&Cli::command(), "coracle", &mut found);
        for (path, script) in completions().unwrap() {
            let script = String::from_utf8(script).unwrap();
            let missing = found.iter().flat_map(|name| name.split(' ')).find(|word| !script.contains(word));
            assert_eq!(missing, None, "{path}");
        }
    }
}
