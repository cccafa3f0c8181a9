//! `coracle install`: the program, what systemd is told of it, manual pages, completions and examples in their places.
//!
//! The packages are made of the same list of files: it stands in [`files`] alone.

mod files;
mod manual;
mod place;
mod record;
mod systemd;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use coracle_linux::{NewFile, PowerLoss, remove_if_there};

pub(crate) use files::{Content, Installed};
pub(crate) use place::Place;
pub(crate) use record::Record;
pub(crate) use systemd::Systemd;

/// The program that runs, also when another has been put in its place.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Puts everything in its place and, unless told not to, starts the agent, or restarts the one that runs: its pods run
/// on. Can be repeated; what an earlier version has installed and this one does not is removed. One that was started once
/// is as the administrator has it from then on.
pub(crate) fn install(place: &Place, start: bool) -> anyhow::Result<()> {
    let before = Record::load(place)?;
    let files = files::all(place)?;
    refuse_what_is_not_ours(place, &files, before.as_ref())?;

    let mut record = before.unwrap_or_default();
    for file in &files {
        record.expect(&file.path);
    }
    place.make_root()?;
    // First, so that what is begun here can be finished, or taken back, by the next.
    record.make_directory(place, place.record().parent().unwrap_or(Path::new("/")), 0o755)?;
    record.save(place)?;
    for (directory, mode) in place.directories() {
        record.make_directory(place, &directory, mode)?;
    }
    for file in &files {
        record.make_directory(place, file.path.parent().unwrap_or(Path::new("/")), 0o755)?;
        put(place, file)?;
    }
    put_unless_there(place, &files::configuration())?;
    let stale = record.forget_all_but(&files);
    for path in &stale {
        remove(&place.on_disk(path))?;
    }
    record.save(place)?;
    println!(
        "installed coracle {} in {}",
        env!("CARGO_PKG_VERSION"),
        place.on_disk(place.prefix()).display()
    );

    let Some(systemd) = Systemd::of(place)? else {
        if !place.is_elsewhere() {
            println!("systemd does not run here: start `coracle agent` in your own way");
        }
        return Ok(());
    };
    systemd.reload()?;
    if !start {
        println!("start it with: systemctl enable --now coracle");
        return Ok(());
    }
    if systemd.start(!record.is_started())? && !record.is_started() {
        record.set_started();
        record.save(place)?;
    }
    Ok(())
}

/// A file that somebody else has put where one of ours belongs stays there.
fn refuse_what_is_not_ours(place: &Place, files: &[Installed], ours: Option<&Record>) -> anyhow::Result<()> {
    let known = |path: &Path| ours.is_some_and(|record| record.has(path));
    let foreign = |file: &&Installed| {
        !known(&file.path) && place.on_disk(&file.path).symlink_metadata().is_ok() && !is_program(place, file)
    };
    if let Some(file) = files.iter().find(foreign) {
        bail!(
            "{} is there already, and not from `coracle install`: if a package has brought it, let the package manager \
             upgrade it; else move it away, and try again",
            place.on_disk(&file.path).display()
        );
    }
    let elsewhere = place.units_elsewhere(ours.is_some());
    let Some(unit) = elsewhere.into_iter().find(|unit| is_unit(&place.on_disk(unit))) else { return Ok(()) };
    let there = place.on_disk(&unit);
    match prefix_on_record(place, &unit) {
        Some(prefix) => bail!(
            "coracle is installed already: there is {}. To upgrade it, name its place: `coracle install --prefix {}`. \
             To have it here instead, remove that one first, which ends its pods (`coracle uninstall --keep-data \
             --prefix {}`)",
            there.display(),
            prefix.display(),
            prefix.display()
        ),
        None => bail!(
            "coracle is installed already: there is {}, and not from `coracle install`: if a package has brought it, \
             let the package manager upgrade or remove it; else move it away, and try again",
            there.display()
        ),
    }
}

/// Whether there is a unit: one that is masked is a link to nothing, systemd.unit(5).
fn is_unit(path: &Path) -> bool {
    let is_mask = fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"));
    !is_mask && path.symlink_metadata().is_ok()
}

/// The prefix of the installation that a unit is of, if that is on record: the unit says where the program is.
fn prefix_on_record(place: &Place, unit: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(place.on_disk(unit)).ok()?;
    let program = text.lines().find_map(|line| line.strip_prefix("ExecStart=")?.split_whitespace().next())?;
    let prefix = PathBuf::from(program.strip_suffix("/bin/coracle")?);
    let record = Record::load(&place.at_prefix(prefix.clone())).ok()??;
    record.has(unit).then_some(prefix)
}

/// The program itself, put there by hand and now installing what belongs to it.
fn is_program(place: &Place, file: &Installed) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let own = fs::metadata(OWN_PROGRAM).map(identity);
    let there = fs::symlink_metadata(place.on_disk(&file.path)).map(identity);
    matches!(file.content, Content::Program) && matches!((own, there), (Ok(own), Ok(there)) if own == there)
}

/// Puts a file in its place in one step: whoever opens it has the old one or the new one, whole.
fn put(place: &Place, file: &Installed) -> anyhow::Result<()> {
    let path = place.on_disk(&file.path);
    let written = || {
        let mut new = NewFile::create(&path, file.mode)?;
        match &file.content {
            Content::Program => {
                io::copy(&mut File::open(OWN_PROGRAM)?, new.file())?;
            }
            Content::Text(text) => new.write_all(text)?,
        }
        new.put_in_place(PowerLoss::OldOrNew).map_err(io::Error::from)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that is the user's from then on, unless there is one.
fn put_unless_there(place: &Place, file: &Installed) -> anyhow::Result<()> {
    let path = place.on_disk(&file.path);
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => put(place, file),
        Err(error) => Err(error).with_context(|| format!("cannot look for {}", path.display())),
    }
}

/// Removes a file that is to be gone.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    remove_if_there(path).map(drop).with_context(|| format!("cannot remove {}", path.display()))
}
