//! What is installed.

use std::path::PathBuf;

use super::manual;
use super::place::Place;

/// One file.
pub(crate) struct Installed {
    /// As seen from within the root directory.
    pub(crate) path: PathBuf,
    /// What stands in it.
    pub(crate) content: Content,
    /// Its permissions.
    pub(crate) mode: u32,
}

/// What stands in a file.
pub(crate) enum Content {
    /// The program that runs.
    Program,
    /// This.
    Text(Vec<u8>),
}

/// The name of the program in the units.
const PROGRAM: &str = "/usr/bin/coracle";

const SERVICE: &str = include_str!("../../../../systemd/coracle.service");
const SOCKET: &str = include_str!("../../../../systemd/coracle.socket");
const TMPFILES: &str = include_str!("../../../../systemd/tmpfiles.d/coracle.conf");
const EXAMPLES: [(&str, &str); 1] =
    [("two-containers.yaml", include_str!("../../../../examples/two-containers.yaml"))];

const CONFIGURATION: &str = include_str!("../../../../systemd/config.yaml");

/// The configuration that is there where the user has none.
pub(super) fn configuration() -> Installed {
    let content = Content::Text(CONFIGURATION.into());
    Installed { path: crate::config::DEFAULT_CONFIG_FILE.into(), content, mode: 0o600 }
}

/// Everything that belongs to an installation at the place, but the user's configuration.
pub(super) fn all(place: &Place) -> anyhow::Result<Vec<Installed>> {
    let program = place.program();
    let text =
        |path: PathBuf, text: &str| Installed { path, content: Content::Text(text.into()), mode: 0o644 };
    let unit = |name: &str, content: &str| {
        let content = content.replace(PROGRAM, &program.display().to_string());
        text(place.of_systemd("systemd/system").join(name), &content)
    };
    let mut files = vec![
        unit("coracle.service", SERVICE),
        unit("coracle.socket", SOCKET),
        text(place.of_systemd("tmpfiles.d").join("coracle.conf"), TMPFILES),
    ];
    let share = place.prefix().join("share");
    for (name, example) in EXAMPLES {
        files.push(text(share.join("doc/coracle/examples").join(name), example));
    }
    for (name, page) in manual::pages()? {
        files.push(Installed {
            path: share.join("man/man1").join(name),
            content: Content::Text(page),
            mode: 0o644,
        });
    }
    for (path, script) in manual::completions()? {
        files.push(Installed { path: share.join(path), content: Content::Text(script), mode: 0o644 });
    }
    // Last: whoever finds the program finds what belongs to it.
    files.push(Installed { path: program, content: Content::Program, mode: 0o755 });
    Ok(files)
}
