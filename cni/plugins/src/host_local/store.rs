//! Which addresses of a network are given, and to whom: files of a directory, in the layout of the reference
//! plugin, so that either can go on where the other has stopped.
//!
//! | file | content |
//! |---|---|
//! | `<address>` | container id and interface it is given to, apart by CR LF |
//! | `last_reserved_ip.<n>` | the address given last of the n-th set of ranges |
//! | `lock` | held with flock(2) by whoever changes anything |
//! | `.owners/<container id>:<interface>` | the addresses it has, or is about to have |
//! | `.released/<address>` | empty; changed when the address was given back |
//!
//! The last two are ours: the one finds an owner's addresses without reading all files, the other keeps an address
//! from being given again at once. Whatever is killed between two steps, an address is either free or its owner's
//! file names it. Nothing waits for the disk: what a power failure tears belongs to containers that it has ended,
//! and is collected.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coracle_linux::{NewFile, PowerLoss, remove_if_there};
use rustix::fs::{FlockOperation, flock};

use super::range::RangeSet;

/// How long an address that was given back is not given again while there are others: whoever spoke with the one
/// who had it may not have noticed yet.
pub(super) const COOLING_OFF: Duration = Duration::from_secs(60);

/// How many addresses are looked at one by one before the directory is read as a whole.
const SINGLY: usize = 16;

const OWNERS: &str = ".owners";
const RELEASED: &str = ".released";
/// Changed whenever what has cooled off was cleared away.
const CLEARED: &str = ".cleared";

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) container_id: String,
    pub(super) ifname: String,
}

/// A network's directory, locked.
pub(super) struct Store {
    directory: PathBuf,
    _lock: File,
}

/// What cannot be done in the directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// A file.
    #[error("cannot {step} {}: {source}", path.display())]
    Io { step: &'static str, path: PathBuf, source: io::Error },
    /// All are given.
    #[error("all {0} are in use")]
    Exhausted(String),
    /// Somebody else has it.
    #[error("address {0} is in use by container {1}")]
    Taken(IpAddr, String),
}

// === impl Owner ===

impl Owner {
    fn content(&self) -> String {
        format!("{}\r\n{}", self.container_id, self.ifname)
    }

    /// Files of old versions of the reference plugin name no interface.
    fn has(&self, content: &str) -> bool {
        let (container_id, ifname) = parse(content);
        container_id == self.container_id && ifname.is_none_or(|ifname| ifname == self.ifname)
    }
}

fn parse(content: &str) -> (&str, Option<&str>) {
    let mut lines = content.trim().lines().map(str::trim);
    (lines.next().unwrap_or_default(), lines.next())
}

// === impl Store ===

impl Store {
    /// Opens the directory of a network, makes it where it is missing, and waits for the lock.
    pub(super) fn open(directory: PathBuf) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&directory);
        made.map_err(failed("make", &directory))?;
        for name in [OWNERS, RELEASED] {
            let path = directory.join(name);
            match DirBuilder::new().mode(0o755).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("make", &path)(error));
                }
                _ => {}
            }
        }
        let lock = Self::lock(&directory)?;
        Ok(Self { directory, _lock: lock })
    }

    /// As [`Store::open`], unless there is nothing of the network.
    pub(super) fn open_existing(directory: PathBuf) -> Result<Option<Self>, StoreError> {
        if !directory.exists() {
            return Ok(None);
        }
        Self::open(directory).map(Some)
    }

    fn lock(directory: &Path) -> Result<File, StoreError> {
        let path = directory.join("lock");
        let opened = File::options().read(true).append(true).create(true).open(&path);
        let lock = opened.map_err(failed("open", &path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed("lock", &path)(errno.into()))?;
        Ok(lock)
    }

    /// Gives an owner an address of each set: those it has already, those it wants, or the ones that have been free
    /// longest.
    pub(super) fn reserve(
        &self,
        owner: &Owner,
        sets: &[RangeSet],
        wanted: &[Option<IpAddr>],
    ) -> Result<Vec<IpAddr>, StoreError> {
        let mut has = if self.is_new(owner, sets.len())? { Vec::new() } else { self.of(owner)? };
        let mut given = Vec::new();
        for (at, set) in sets.iter().enumerate() {
            let wanted = wanted.get(at).copied().flatten();
            let kept = has.iter().position(|it| match wanted {
                Some(wanted) => *it == wanted,
                None => set.find(*it).is_some(),
            });
            let address = match (kept, wanted) {
                (Some(kept), _) => has.swap_remove(kept),
                (None, Some(wanted)) => match self.holder(wanted)? {
                    Some(holder) => return Err(StoreError::Taken(wanted, holder)),
                    None => wanted,
                },
                (None, None) => self.longest_free(at, set, &given)?,
            };
            given.push(address);
        }
        // What it had of a try before this one, with other ranges.
        for address in has {
            self.release_address(address)?;
        }
        self.write_owner(owner, &given)?;
        for (at, address) in given.iter().enumerate() {
            self.give(owner, *address)?;
            let last = self.directory.join(format!("last_reserved_ip.{at}"));
            // Torn, it costs the order alone.
            fs::write(&last, address.to_string()).map_err(failed("write", &last))?;
        }
        Ok(given)
    }

    /// Whether an owner can have nothing, told without reading all files: no file names its addresses, and as many files
    /// name everybody else's as there are addresses. Then the reference plugin has given none.
    fn is_new(&self, owner: &Owner, sets: usize) -> Result<bool, StoreError> {
        if self.owner_path(owner).exists() {
            return Ok(false);
        }
        let owners = names(&self.directory.join(OWNERS))?.len();
        Ok(self.given()?.len() == owners.saturating_mul(sets))
    }

    /// Gives back what an owner has.
    pub(super) fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        for address in self.of(owner)? {
            self.release_address(address)?;
        }
        remove(&self.owner_path(owner))?;
        self.clear_released()
    }

    /// The addresses an owner has.
    pub(super) fn of(&self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        let path = self.owner_path(owner);
        let named: Option<Vec<IpAddr>> =
            read(&path)?.map(|text| text.lines().filter_map(|line| line.parse().ok()).collect());
        match named {
            // Named, and then killed: it may have become somebody else's since.
            Some(named) if !named.is_empty() => {
                let mut has = Vec::new();
                for address in named {
                    let content = read(&self.address_path(address))?;
                    // Empty: made, and then killed.
                    if content.is_some_and(|content| content.is_empty() || owner.has(&content)) {
                        has.push(address);
                    }
                }
                Ok(has)
            }
            // Given by the reference plugin, or torn.
            _ => {
                let mut has = Vec::new();
                for address in self.given()? {
                    if read(&self.address_path(address))?.is_some_and(|content| owner.has(&content)) {
                        has.push(address);
                    }
                }
                Ok(has)
            }
        }
    }

    /// Gives back what none of these owners has.
    pub(super) fn retain(&self, owners: &BTreeSet<Owner>) -> Result<(), StoreError> {
        let directory = self.directory.join(OWNERS);
        let mut named = BTreeSet::new();
        for name in names(&directory)? {
            let known = name.split_once(':').is_some_and(|(container_id, ifname)| {
                owners.contains(&Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
            });
            match known {
                // Of an owner that is there, an address whose file was torn stays its own.
                true => {
                    let text = read(&directory.join(&name))?.unwrap_or_default();
                    named.extend(text.lines().filter_map(|line| line.parse::<IpAddr>().ok()));
                }
                false => remove(&directory.join(&name))?,
            }
        }
        for address in self.given()? {
            let content = read(&self.address_path(address))?.unwrap_or_default();
            let known = match parse(&content) {
                ("", _) => named.contains(&address),
                (container_id, Some(ifname)) => {
                    let owner = Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() };
                    owners.contains(&owner)
                }
                (_, None) => owners.iter().any(|owner| owner.has(&content)),
            };
            if !known {
                self.release_address(address)?;
            }
        }
        self.clear_released()
    }

    /// Whether an address of the set is free.
    pub(super) fn has_free(&self, set: &RangeSet) -> Result<bool, StoreError> {
        let given = self.given()?;
        Ok(set.after(None).any(|address| !given.contains(&address)))
    }

    // --- Addresses ---

    /// The address that was given back longest ago; never one of `but`.
    fn longest_free(&self, at: usize, set: &RangeSet, but: &[IpAddr]) -> Result<IpAddr, StoreError> {
        let last = read(&self.directory.join(format!("last_reserved_ip.{at}")))?;
        let last = last.and_then(|text| text.trim().parse().ok());
        // Where few are given, one of the next is free, however many there are.
        for address in set.after(last).take(SINGLY).filter(|address| !but.contains(address)) {
            if !self.address_path(address).exists() && !self.is_cooling(address)? {
                return Ok(address);
            }
        }
        let (given, released) = (self.given()?, addresses(&self.directory.join(RELEASED))?);
        let mut coolest: Option<(SystemTime, IpAddr)> = None;
        let free = |address: &IpAddr| !but.contains(address) && !given.contains(address);
        for address in set.after(last).filter(free) {
            let since = match released.contains(&address) {
                true => self.released_at(address)?,
                false => None,
            };
            match since {
                Some(since) if is_recent(since) => {
                    if coolest.is_none_or(|(other, _)| since < other) {
                        coolest = Some((since, address));
                    }
                }
                _ => return Ok(address),
            }
        }
        coolest.map(|(_, address)| address).ok_or_else(|| StoreError::Exhausted(set.to_string()))
    }

    fn give(&self, owner: &Owner, address: IpAddr) -> Result<(), StoreError> {
        let path = self.address_path(address);
        let mut file = match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => file,
            // Whoever has no lock of ours, or this owner itself before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.holder(address)? {
                Some(holder) if holder != owner.container_id => {
                    return Err(StoreError::Taken(address, holder));
                }
                Some(_) => return Ok(()),
                None => File::create(&path).map_err(failed("write", &path))?,
            },
            Err(error) => return Err(failed("make", &path)(error)),
        };
        file.write_all(owner.content().as_bytes()).map_err(failed("write", &path))?;
        remove(&self.released_path(address))
    }

    fn release_address(&self, address: IpAddr) -> Result<(), StoreError> {
        let released = self.released_path(address);
        let marked = File::create(&released).and_then(|file| file.set_modified(SystemTime::now()));
        marked.map_err(failed("write", &released))?;
        remove(&self.address_path(address))
    }

    /// The container that has an address.
    fn holder(&self, address: IpAddr) -> Result<Option<String>, StoreError> {
        let content = read(&self.address_path(address))?;
        Ok(content.map(|content| parse(&content).0.to_owned()).filter(|holder| !holder.is_empty()))
    }

    fn is_cooling(&self, address: IpAddr) -> Result<bool, StoreError> {
        Ok(self.released_at(address)?.is_some_and(is_recent))
    }

    fn released_at(&self, address: IpAddr) -> Result<Option<SystemTime>, StoreError> {
        let path = self.released_path(address);
        modified(&path)
    }

    /// Removes the marks of addresses that have cooled off, at most once in that time.
    fn clear_released(&self) -> Result<(), StoreError> {
        let cleared = self.directory.join(CLEARED);
        if modified(&cleared)?.is_some_and(is_recent) {
            return Ok(());
        }
        for address in addresses(&self.directory.join(RELEASED))? {
            if !self.is_cooling(address)? {
                remove(&self.released_path(address))?;
            }
        }
        let marked = File::create(&cleared).and_then(|file| file.set_modified(SystemTime::now()));
        marked.map_err(failed("write", &cleared))
    }

    fn given(&self) -> Result<BTreeSet<IpAddr>, StoreError> {
        addresses(&self.directory)
    }

    // --- Files ---

    fn write_owner(&self, owner: &Owner, has: &[IpAddr]) -> Result<(), StoreError> {
        let path = self.owner_path(owner);
        let text: String = has.iter().map(|address| format!("{address}\n")).collect();
        // Not in the directory of owners, where it would be one.
        let written = NewFile::create_as(&self.directory.join(".new"), &path, 0o644)
            .and_then(|new| new.finish(text.as_bytes(), PowerLoss::MayTear));
        written.map_err(|error| failed("write", &path)(error.into()))
    }

    fn owner_path(&self, owner: &Owner) -> PathBuf {
        self.directory.join(OWNERS).join(format!("{}:{}", owner.container_id, owner.ifname))
    }

    fn address_path(&self, address: IpAddr) -> PathBuf {
        self.directory.join(address.to_string())
    }

    fn released_path(&self, address: IpAddr) -> PathBuf {
        self.directory.join(RELEASED).join(address.to_string())
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { step, path, source }
}

/// The text of a file, if there is one. What is no text was torn.
fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8(bytes).unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    remove_if_there(path).map(drop).map_err(failed("remove", path))
}

fn modified(path: &Path) -> Result<Option<SystemTime>, StoreError> {
    match fs::symlink_metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => Ok(Some(modified)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// Whether that was less than the time of cooling off ago. What lies in the future, by a clock that was set back,
/// is not: nothing would end it.
fn is_recent(then: SystemTime) -> bool {
    SystemTime::now().duration_since(then).is_ok_and(|ago| ago < COOLING_OFF)
}

fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(directory).map_err(failed("list", directory))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", directory))?;
        names.extend(entry.file_name().to_str().map(str::to_owned));
    }
    Ok(names)
}

fn addresses(directory: &Path) -> Result<BTreeSet<IpAddr>, StoreError> {
    Ok(names(directory)?.iter().filter_map(|name| name.parse().ok()).collect())
}
