//! What a plugin that was killed has left on its host.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::PluginError;
use crate::describe;
use crate::serve::is_socket_name;

/// Removes the sockets of resources that nobody serves any more, and how GPUs were described to runtimes. Another plugin of this
/// kind that is at work there keeps its own, and the description.
///
/// # Errors
/// What cannot be removed.
pub fn remove_remains(plugins_dir: &Path, cdi_dir: &Path) -> Result<(), PluginError> {
    let failed = |path: &Path, error| PluginError::Remove { path: path.to_owned(), error };
    let mut served = false;
    let entries = match fs::read_dir(plugins_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(|error| failed(plugins_dir, error))?),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(|error| failed(plugins_dir, error))?;
        let path = entry.path();
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        if !is_socket || !entry.file_name().to_str().is_some_and(is_socket_name) {
            continue;
        }
        if UnixStream::connect(&path).is_ok() {
            served = true;
        } else {
            fs::remove_file(&path).map_err(|error| failed(&path, error))?;
        }
    }
    if served { Ok(()) } else { Ok(describe::remove(cdi_dir)?) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_another_serves_stays_and_so_does_what_is_not_ours() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plugins, cdi) = (directory.path().join("plugins"), directory.path().join("cdi"));
        remove_remains(&plugins, &cdi).expect("there is nothing");
        fs::create_dir(&plugins).expect("a directory");
        fs::create_dir(&cdi).expect("a directory");
        let left = ["coracle-a.b_c.sock", "coracle-d.e_f.sock", "vendor.sock"];
        let mut sockets = left.map(|name| Some(UnixListener::bind(plugins.join(name)).expect("a socket")));
        fs::write(plugins.join("coracle-notes.sock"), "").expect("a file");
        fs::write(cdi.join("coracle-nvidia.json"), "{}").expect("a file");
        fs::write(cdi.join("vendor.json"), "{}").expect("a file");
        let names = |path: &Path| {
            let entries = fs::read_dir(path).expect("a directory");
            let mut names: Vec<_> = entries.map(|it| it.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        (sockets[0], sockets[2]) = (None, None);
        remove_remains(&plugins, &cdi).expect("removed");
        assert_eq!(names(&plugins), ["coracle-d.e_f.sock", "coracle-notes.sock", "vendor.sock"]);
        assert_eq!(names(&cdi), ["coracle-nvidia.json", "vendor.json"]);
        sockets[1] = None;
        remove_remains(&plugins, &cdi).expect("removed");
        assert_eq!(names(&plugins), ["coracle-notes.sock", "vendor.sock"]);
        assert_eq!(names(&cdi), ["vendor.json"]);
    }
}
