use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("coracle-replace-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_file_is_replaced_by_another_one_with_exactly_the_mode_and_nothing_stays_beside_it() {
    let scratch = Scratch::new("whole");
    let path = scratch.at("file");
    fs::write(&path, "the old one, which is longer").unwrap();
    let mut old = File::open(&path).unwrap();
    for (mode, after) in [(0o600, PowerLoss::MayTear), (0o666, PowerLoss::OldOrNew), (0o755, PowerLoss::New)]
    {
        replace_file(&path, mode, after, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(scratch.names(), ["file"]);
    }
    let mut read = String::new();
    io::Read::read_to_string(&mut old, &mut read).unwrap();
    assert_eq!(read, "the old one, which is longer", "whoever has it open has the old one");
}

#[test]
fn what_a_killed_writer_left_is_neither_written_into_nor_followed() {
    let scratch = Scratch::new("left");
    let path = scratch.at("file");
    fs::write(scratch.at("elsewhere"), "another's").unwrap();
    symlink(scratch.at("elsewhere"), scratch.at(".file.new")).unwrap();
    replace_file(&path, 0o600, PowerLoss::MayTear, b"new").unwrap();
    fs::write(scratch.at(".file.new"), "torn, and longer than the new one").unwrap();
    let mut left = File::open(scratch.at(".file.new")).unwrap();
    fs::set_permissions(scratch.at(".file.new"), fs::Permissions::from_mode(0o777)).unwrap();
    replace_file(&path, 0o600, PowerLoss::New, b"newer").unwrap();
    let mut read = String::new();
    io::Read::read_to_string(&mut left, &mut read).unwrap();
    assert_eq!(read, "torn, and longer than the new one");
    assert_eq!(fs::read(scratch.at("elsewhere")).unwrap(), b"another's");
    assert_eq!(fs::read(&path).unwrap(), b"newer");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(scratch.names(), ["elsewhere", "file"]);
}

#[test]
fn one_that_is_not_finished_leaves_the_old_one_and_nothing_else() {
    let scratch = Scratch::new("dropped");
    let path = scratch.at("file");
    fs::write(&path, "old").unwrap();
    let mut new = NewFile::create(&path, 0o600).unwrap();
    new.write_all(b"half").unwrap();
    assert_eq!(scratch.names(), [".file.new", "file"]);
    assert!(scratch.names().iter().any(|name| is_unfinished(name)));
    drop(new);
    assert_eq!(scratch.names(), ["file"]);
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

#[test]
fn one_that_cannot_get_its_name_is_removed_and_the_error_says_which_step_failed_on_what() {
    let scratch = Scratch::new("refused");
    let path = scratch.at("directory");
    fs::create_dir(&path).unwrap();
    let error = replace_file(&path, 0o600, PowerLoss::New, b"new").unwrap_err();
    assert_eq!((error.step, &error.path), ("rename the new file to", &path));
    assert_eq!(scratch.names(), ["directory"]);
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    let said = format!("cannot rename the new file to {}: Is a directory (os error 21)", path.display());
    assert_eq!(error.to_string(), said);

    let missing = scratch.at("missing/file");
    let error = replace_file(&missing, 0o600, PowerLoss::New, b"new").unwrap_err();
    assert_eq!((error.step, error.source.kind()), ("open the directory of", io::ErrorKind::NotFound));
    for none in ["/", "..", ""] {
        let error = replace_file(Path::new(none), 0o600, PowerLoss::New, b"").unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::InvalidInput, "{none}");
    }
}

#[test]
fn in_a_directory_by_descriptor_no_link_leads_elsewhere() {
    let scratch = Scratch::new("descriptor");
    fs::write(scratch.at("elsewhere"), "another's").unwrap();
    fs::create_dir(scratch.at("directory")).unwrap();
    symlink("../elsewhere", scratch.at("directory/file")).unwrap();
    let directory = File::open(scratch.at("directory")).unwrap();
    let mut new = NewFile::create_in(directory.as_fd(), OsStr::new("file"), 0o644).unwrap();
    new.file().write_all(b"new").unwrap();
    new.put_in_place(PowerLoss::New).unwrap();
    assert!(fs::symlink_metadata(scratch.at("directory/file")).unwrap().is_file());
    assert_eq!(fs::read(scratch.at("elsewhere")).unwrap(), b"another's");
    assert_eq!(fs::read_dir(scratch.at("directory")).unwrap().count(), 1);
    for path in ["../outside", "/outside", "..", "."] {
        let made = NewFile::create_in(directory.as_fd(), OsStr::new(path), 0o644);
        assert_eq!(made.unwrap_err().source.kind(), io::ErrorKind::InvalidInput, "{path}");
    }
}

#[test]
fn one_that_is_written_elsewhere_comes_to_its_place() {
    let scratch = Scratch::new("elsewhere");
    fs::create_dir(scratch.at("tmp")).unwrap();
    let mut new = NewFile::create_as(&scratch.at("tmp/1"), &scratch.at("file"), 0o640).unwrap();
    new.write_all(b"new").unwrap();
    let inode = fs::metadata(scratch.at("tmp/1")).unwrap().ino();
    new.put_in_place(PowerLoss::OldOrNew).unwrap();
    assert_eq!(fs::metadata(scratch.at("file")).unwrap().ino(), inode);
    assert_eq!(fs::read_dir(scratch.at("tmp")).unwrap().count(), 0);
}

#[test]
fn removing_tells_whether_there_was_one() {
    let scratch = Scratch::new("remove");
    for remove in [remove_if_there, remove_durably] {
        fs::write(scratch.at("file"), "").unwrap();
        assert!(remove(&scratch.at("file")).unwrap());
        assert!(!remove(&scratch.at("file")).unwrap());
        assert!(remove(&scratch.0).is_err());
    }
}
