//! `coracle install`, into another root directory: which files there are, and what becomes of those of others.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_tests::images::project;
use coracle_tests::node::{Answer, binary};

fn coracle(root: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--root").arg(root);
    Answer::from(command.output().unwrap())
}

#[track_caller]
fn coracle_ok(root: &Path, arguments: &[&str]) -> String {
    let answer = coracle(root, arguments);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    answer.stdout
}

/// Every file below a directory, with its inode, its permissions and, of a small one, its content.
fn inventory(root: &Path) -> BTreeMap<PathBuf, (u64, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = match metadata.is_file() && metadata.len() < 1 << 20 {
                true => fs::read(&path).unwrap(),
                false => Vec::new(),
            };
            if metadata.is_dir() {
                directories.push(path.clone());
            }
            let below = path.strip_prefix(root).unwrap().to_owned();
            found.insert(below, (metadata.ino(), metadata.permissions().mode() & 0o7777, content));
        }
    }
    found
}

#[test]
fn what_is_installed_is_whole_and_goes_again() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir_all(root.join("usr/local/bin")).unwrap();
    fs::write(root.join("usr/local/bin/other"), "not ours").unwrap();
    let before = inventory(root);

    coracle_ok(root, &["install"]);
    let installed = inventory(root);
    let mode = |path: &str| installed.get(Path::new(path)).map(|(_, mode, _)| *mode);
    for (path, wanted) in [
        ("usr/local/bin/coracle", 0o755),
        ("usr/local/lib/systemd/system/coracle.service", 0o644),
        ("usr/local/lib/systemd/system/coracle.socket", 0o644),
        ("usr/local/lib/tmpfiles.d/coracle.conf", 0o644),
        ("usr/local/share/man/man1/coracle-image-pull.1", 0o644),
        ("usr/local/share/bash-completion/completions/coracle", 0o644),
        ("usr/local/share/doc/coracle/examples/two-containers.yaml", 0o644),
        ("etc/coracle/config.yaml", 0o600),
        ("etc/coracle/manifests", 0o700),
    ] {
        assert_eq!(mode(path), Some(wanted), "{path}");
    }
    let service = fs::read_to_string(root.join("usr/local/lib/systemd/system/coracle.service")).unwrap();
    assert!(service.contains("\nExecStart=/usr/local/bin/coracle agent\n"), "{service}");
    assert!(!service.contains("/usr/bin/coracle"), "{service}");
    let manifests = fs::read_dir(root.join("etc/coracle/manifests")).unwrap().count();
    assert_eq!(manifests, 0, "examples are not active");

    // Again, with what an older version had, and what the user has changed.
    fs::write(root.join("etc/coracle/config.yaml"), "# mine\n").unwrap();
    let record = root.join("usr/local/lib/coracle/installed.json");
    let stale = root.join("usr/local/share/man/man1/coracle-ancient.1");
    fs::write(&stale, "").unwrap();
    let text = fs::read_to_string(&record).unwrap();
    let old = text.replacen(
        "\"/usr/local/bin/coracle\"",
        "\"/usr/local/bin/coracle\", \"/usr/local/share/man/man1/coracle-ancient.1\"",
        1,
    );
    assert_ne!(text, old);
    fs::write(&record, old).unwrap();
    coracle_ok(root, &["install"]);
    assert!(!stale.exists());
    assert_eq!(fs::read_to_string(&record).unwrap(), text);
    assert_eq!(fs::read_to_string(root.join("etc/coracle/config.yaml")).unwrap(), "# mine\n");
    let again = inventory(root);
    assert!(again.keys().eq(installed.keys()));
    let program = Path::new("usr/local/bin/coracle");
    assert_ne!(again[program].0, installed[program].0, "replaced, not written over");

    // Data is the node's own, which is not in this root directory.
    coracle_ok(root, &["uninstall", "--prefix", "/usr/local"]);
    fs::remove_file(root.join("etc/coracle/config.yaml")).unwrap();
    fs::remove_dir_all(root.join("etc/coracle")).unwrap();
    fs::remove_dir(root.join("etc")).unwrap();
    assert_eq!(inventory(root), before);
    let answer = coracle(root, &["uninstall", "--prefix", "/usr/local"]);
    assert!(answer.code == 1 && answer.stderr.contains("has installed nothing in"), "{}", answer.stderr);
}

#[test]
fn files_of_others_are_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let unit = root.join("usr/lib/systemd/system/coracle.service");
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    fs::write(&unit, "a package's").unwrap();
    let before = inventory(root);
    for (prefix, why) in
        [("/usr", "and not from `coracle install`"), ("/usr/local", "coracle is installed already")]
    {
        let answer = coracle(root, &["install", "--prefix", prefix]);
        assert_eq!(answer.code, 1);
        assert!(answer.stderr.contains(why), "{}", answer.stderr);
        assert_eq!(inventory(root), before, "nothing is done halfway");
    }
}

/// The unit that counts instead of the one that was installed, as `systemctl edit --full` and `mask` leave it.
fn of_administrator(root: &Path) -> PathBuf {
    let unit = root.join("etc/systemd/system/coracle.service");
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    unit
}

#[test]
fn a_unit_of_the_administrators_is_no_hindrance_to_an_upgrade() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    coracle_ok(root, &["install"]);
    let unit = of_administrator(root);
    let mine = "[Service]\nExecStart=/usr/local/bin/coracle agent --node-name mine\n";
    fs::write(&unit, mine).unwrap();
    coracle_ok(root, &["install"]);
    assert_eq!(fs::read_to_string(&unit).unwrap(), mine);
    fs::remove_file(&unit).unwrap();
    symlink("/dev/null", &unit).unwrap();
    coracle_ok(root, &["install"]);
    assert_eq!(fs::read_link(&unit).unwrap(), Path::new("/dev/null"));
}

#[test]
fn a_masked_unit_is_no_installation() {
    let root = tempfile::tempdir().unwrap();
    symlink("/dev/null", of_administrator(root.path())).unwrap();
    coracle_ok(root.path(), &["install"]);
}

#[test]
fn only_an_installation_on_record_is_said_to_be_removed_by_uninstall() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let unit = of_administrator(root);
    // As it stays when what it was written for is gone.
    fs::write(&unit, "[Service]\nExecStart=/usr/local/bin/coracle agent\n").unwrap();
    let answer = coracle(root, &["install"]);
    assert!(answer.code == 1 && answer.stderr.contains("move it away"), "{}", answer.stderr);
    assert!(!answer.stderr.contains("uninstall"), "{}", answer.stderr);
    fs::remove_file(&unit).unwrap();

    coracle_ok(root, &["install", "--prefix", "/usr"]);
    let answer = coracle(root, &["install"]);
    let advice = "coracle uninstall --keep-data --prefix /usr`";
    assert!(answer.code == 1 && answer.stderr.contains(advice), "{}", answer.stderr);
}

#[test]
fn systemd_understands_the_units() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    coracle_ok(root, &["install", "--prefix", "/usr"]);
    let units = root.join("usr/lib/systemd/system");
    // Units of the host that ours are in an order with, as far as that is looked at.
    for name in [
        "basic.target",
        "sysinit.target",
        "sockets.target",
        "shutdown.target",
        "multi-user.target",
        "-.mount",
    ] {
        if !units.join(name).exists() {
            fs::write(units.join(name), "[Unit]\nDescription=Of the host\n").unwrap();
        }
    }
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/true", root.join("bin/sh")).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no", "--root"]).arg(root);
    let answer = Answer::from(verify.args(["coracle.service", "coracle.socket"]).output().unwrap());
    // systemd 252 of Debian 12 does not know it, and does without.
    let (old, of_ours): (Vec<&str>, Vec<&str>) = answer
        .stderr
        .lines()
        .filter(|line| line.contains("coracle"))
        .partition(|line| line.contains("'DelegateSubgroup'"));
    assert_eq!(of_ours, Vec::<&str>::new());
    assert!(answer.code == 0 || !old.is_empty(), "{}", answer.stderr);
}

#[test]
fn the_scripts_of_packages_are_scripts() {
    for script in ["postinst", "prerm", "postrm"] {
        let path = project().join("packages/deb").join(script);
        let checked = Command::new("sh").arg("-n").arg(&path).status().unwrap();
        assert!(checked.success(), "{}", path.display());
    }
}
