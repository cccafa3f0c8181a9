//! What goes, what stays, and what the disk says.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use coracle_image::{CollectPolicy, Hold, Pin};
use coracle_model::{ContainerId, Name, PodUid};

use crate::incoming::Remote;
use crate::support::{Fixture, Tar, names};

const MIB: u64 = 1 << 20;

/// An image with a layer of its own of as many MiB, over a base of 1 MiB that all have.
fn image(f: &Fixture, name: &str, mebibytes: usize) {
    let base = Tar::new().file("base", &"b".repeat(1 << 20)).build();
    let own = Tar::new().file(name, &name[..1].repeat(mebibytes << 20)).build();
    Remote::new(&[base, own]).pull(&f.store, name);
}

/// When it was last used, by hours ago.
fn used(f: &Fixture, name: &str, hours: u64) {
    let record = f.path("images/images").join(format!("{}.json", f.image(name).id.hex()));
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    File::options().write(true).open(record).unwrap().set_modified(then).unwrap();
}

fn about(bytes: u64, mebibytes: u64) -> bool {
    (mebibytes * MIB..mebibytes * MIB + MIB / 2).contains(&bytes)
}

fn familiar(names: &[coracle_image::ImageName]) -> String {
    names.iter().map(coracle_image::ImageName::familiar).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_least_recently_used_go_first_until_it_is_enough() {
    let f = Fixture::new();
    for (name, hours) in [("a", 1), ("b", 4), ("c", 3), ("d", 2)] {
        image(&f, name, 2);
        used(&f, name, hours);
    }
    let policy = CollectPolicy { wanted: 3 * MIB, ..Default::default() };
    let collected = f.store.collect(&policy, |_| None).unwrap();
    let order: Vec<_> = collected.images.iter().map(|image| familiar(&image.names)).collect();
    assert_eq!(order, ["b:latest", "c:latest"]);
    assert!(about(collected.freed, 4) && collected.held.is_empty(), "{collected:?}");
    let all = CollectPolicy { wanted: u64::MAX, ..Default::default() };
    let collected = f.store.collect(&all, |_| None).unwrap();
    assert!(about(collected.freed, 5), "the base goes with the last: {collected:?}");
    assert_eq!(names(&f.path("images/layers")), Vec::<String>::new());
    assert_eq!(names(&f.path("images/blobs/sha256")), Vec::<String>::new());
    f.assert_sound();
}

#[test]
fn what_stays_says_why() {
    let f = Fixture::new();
    for (n, name) in ["leased", "wanted", "pinned", "young", "goes"].iter().enumerate() {
        image(&f, name, 1);
        used(&f, name, 10 - n as u64);
    }
    let container = ContainerId::random();
    let id = |name: &str| f.image(name).id;
    f.store.lease(&id("leased"), container).unwrap();
    used(&f, "leased", 20);
    f.store.pin(&id("pinned"), Pin::Archive("/archives/a.tar".into())).unwrap();
    let wanted = id("wanted");
    let in_use = |image: &_| (*image == wanted).then(|| "pod default/web".to_owned());
    let all = CollectPolicy { wanted: u64::MAX, min_age: Duration::from_secs(3600), ..Default::default() };
    let collected = f.store.collect(&all, in_use).unwrap();
    assert_eq!((collected.images.len(), collected.held.len()), (0, 5), "all came just now");

    let all = CollectPolicy { min_age: Duration::ZERO, ..all };
    let collected = f.store.collect(&all, in_use).unwrap();
    let why: Vec<_> = collected.held.iter().map(|held| (familiar(&held.names), held.why.clone())).collect();
    assert_eq!(
        why,
        [
            ("pinned:latest".into(), Hold::Pinned(vec![Pin::Archive("/archives/a.tar".into())])),
            // The collection before has noted that these two are in use.
            ("leased:latest".into(), Hold::InUse(format!("container {container}"))),
            ("wanted:latest".into(), Hold::InUse("pod default/web".into())),
        ]
    );
    assert!(collected.held.iter().all(|held| about(held.size, 2)), "{collected:?}");
    assert_eq!(collected.images.len(), 2);
    let error = f.store.remove("pinned", |_| None).unwrap_err().to_string();
    assert!(error.contains("pinned by /archives/a.tar, until the agent starts without it"), "{error}");
    f.store.unpin(&id("pinned"), &Pin::Archive("/archives/a.tar".into())).unwrap();
    f.store.remove("pinned", |_| None).unwrap();
    f.store.release(container).unwrap();
    assert_eq!(f.store.collect(&all, in_use).unwrap().images.len(), 1);
    f.assert_sound();
}

#[test]
fn age_alone_may_decide_and_names_may() {
    let f = Fixture::new();
    for (name, hours) in [("old", 30), ("new", 1)] {
        image(&f, name, 1);
        used(&f, name, hours);
    }
    let policy = CollectPolicy { max_unused: Some(Duration::from_secs(24 * 3600)), ..Default::default() };
    assert_eq!(f.store.collect(&policy, |_| None).unwrap().images.len(), 1);
    assert!(f.store.resolve(&"new".parse().unwrap()).unwrap().is_some());
    // A name that moved leaves an image without one.
    image(&f, "other", 1);
    f.store.tag("other", &"new".parse().unwrap()).unwrap();
    let dangling = CollectPolicy { wanted: u64::MAX, only_untagged: true, ..Default::default() };
    assert_eq!(f.store.collect(&dangling, |_| None).unwrap().images.len(), 1);
    assert_eq!(f.store.list().unwrap().len(), 1);
    // Use is noted when a container begins and when it ends.
    let container = ContainerId::random();
    for step in [0, 1] {
        used(&f, "new", 5);
        match step {
            0 => f.store.lease(&f.image("new").id, container).unwrap(),
            _ => f.store.release(container).unwrap(),
        }
        assert!(f.image("new").last_used > jiff::Timestamp::now() - jiff::SignedDuration::from_mins(1));
    }
}

#[test]
fn what_nobody_goes_on_with_goes() {
    let f = Fixture::new();
    let remote = Remote::new(&[Tar::new().file("base", &"b".repeat(2 << 20)).build(), Tar::new().build()]);
    let incoming = remote.begin(&f.store);
    remote.unpack(&incoming, 0).unwrap();
    let everything = CollectPolicy { wanted: u64::MAX, in_flight: true, ..Default::default() };
    assert_eq!(f.store.collect(&everything, |_| None).unwrap().stale, 0, "it is counted on");
    assert!(about(f.store.df(|_| None).unwrap().in_flight, 2));
    drop(incoming);
    let layer = f.path("images/tmp").join(&names(&f.path("images/tmp"))[0]);
    assert_eq!(f.store.collect(&CollectPolicy::default(), |_| None).unwrap().stale, 0, "it is young");
    let then = SystemTime::now() - Duration::from_secs(25 * 3600);
    File::open(layer.join("layer.json")).unwrap().set_modified(then).unwrap();
    let collected = f.store.collect(&CollectPolicy::default(), |_| None).unwrap();
    assert!(collected.stale == 1 && about(collected.freed, 2), "{collected:?}");

    let incoming = remote.begin(&f.store);
    remote.unpack(&incoming, 0).unwrap();
    drop(incoming);
    assert_eq!(f.store.collect(&everything, |_| None).unwrap().stale, 1);
    // Of another boot, before it was on disk.
    let incoming = remote.begin(&f.store);
    remote.unpack(&incoming, 0).unwrap();
    drop(incoming);
    let record = fs::read_to_string(layer.join("layer.json")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(layer.join("layer.json"), record.replace(boot.trim(), "another")).unwrap();
    assert!(!remote.begin(&f.store).layers()[0].have, "nobody has seen it on disk");
    f.assert_sound();
}

#[test]
fn a_layer_that_was_counted_on_goes_later() {
    let f = Fixture::new();
    image(&f, "a", 1);
    let base = Tar::new().file("base", &"b".repeat(1 << 20)).build();
    let other = Remote::new(&[base, Tar::new().file("x", "").build()]);
    let incoming = other.begin(&f.store);
    assert!(incoming.layers()[0].have);
    f.store.remove("a", |_| None).unwrap();
    assert!(about(f.store.df(|_| None).unwrap().unreferenced, 1));
    assert_eq!(f.store.collect(&CollectPolicy::default(), |_| None).unwrap().layers, 0);
    drop(incoming);
    let collected = f.store.collect(&CollectPolicy::default(), |_| None).unwrap();
    assert!(collected.layers == 1 && about(collected.freed, 1), "{collected:?}");
}

#[test]
fn the_disk_by_images() {
    let f = Fixture::new();
    image(&f, "a", 3);
    image(&f, "b", 2);
    f.store.pin(&f.image("a").id, Pin::Hand).unwrap();
    let usage = f.store.df(|_| None).unwrap();
    let [b, a] = usage.images.as_slice() else { panic!("{usage:?}") };
    assert!(about(a.size, 4) && about(a.unique, 3) && about(b.size, 3) && about(b.unique, 2), "{usage:?}");
    assert!(about(usage.layers, 6) && about(usage.shared, 1) && about(usage.reclaimable, 2), "{usage:?}");
    let freed =
        f.store.collect(&CollectPolicy { wanted: u64::MAX, ..Default::default() }, |_| None).unwrap().freed;
    assert_eq!(freed, usage.reclaimable);
    // Hard links are counted once, holes not at all.
    let links = (0..20)
        .fold(Tar::new().file("f", &"x".repeat(1 << 20)), |tar, n| tar.hard_link(&format!("l{n}"), "f"));
    let sparse =
        links.pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"104857600")]).file("hole", "x");
    Remote::new(&[sparse.build()]).pull(&f.store, "links");
    let usage = f.store.df(|_| None).unwrap();
    assert!(about(usage.images[0].size, 1), "{}", usage.images[0].size);
}

#[test]
fn a_pods_volume_keeps_its_image_and_is_the_same_for_all_its_containers() {
    let f = Fixture::new();
    image(&f, "one", 1);
    image(&f, "two", 1);
    let (one, two) = (f.image("one").id, f.image("two").id);
    let uid = |text: &str| text.parse::<PodUid>().unwrap();
    let volume = |text: &str| Name::label(text).unwrap();
    assert_eq!(f.store.volume_image(&uid("u1"), &volume("data")).unwrap(), None);
    assert_eq!(f.store.lease_volume(&one, &uid("u1"), &volume("data")).unwrap(), one);
    assert_eq!(f.store.lease_volume(&two, &uid("u1"), &volume("data")).unwrap(), one, "the first stays");
    assert_eq!(f.store.lease_volume(&two, &uid("u2"), &volume("data")).unwrap(), two);
    assert_eq!(f.store.volume_image(&uid("u1"), &volume("data")).unwrap(), Some(one));
    assert_eq!(f.store.volume_image(&uid("u1"), &volume("other")).unwrap(), None);
    assert!(f.store.leases().unwrap().is_empty(), "no container's");
    let error = f.store.remove("one", |_| None).unwrap_err().to_string();
    assert!(error.contains("volume data of the pod with UID u1"), "{error}");

    let all = CollectPolicy { wanted: u64::MAX, ..Default::default() };
    assert_eq!(f.store.collect(&all, |_| None).unwrap().images.len(), 0);
    f.store.release_volumes(&uid("u1")).unwrap();
    f.store.release_volumes(&uid("u1")).unwrap();
    assert_eq!(f.store.volume_image(&uid("u1"), &volume("data")).unwrap(), None);
    assert_eq!(f.store.collect(&all, |_| None).unwrap().images.len(), 1);
    assert!(matches!(
        f.store.lease_volume(&one, &uid("u3"), &volume("data")),
        Err(coracle_image::ImageError::NotFound(_))
    ));

    // Of another boot it counts for nothing.
    for name in names(&f.path("images/leases")) {
        let path = f.path("images/leases").join(name);
        let text = fs::read_to_string(&path).unwrap();
        let boot = text.lines().nth(1).unwrap().to_owned();
        fs::write(&path, text.replace(&boot, "another")).unwrap();
    }
    assert_eq!(f.store.volume_image(&uid("u2"), &volume("data")).unwrap(), None);
    assert_eq!(names(&f.path("images/leases")), Vec::<String>::new());
    assert_eq!(f.store.lease_volume(&two, &uid("u2"), &volume("data")).unwrap(), two);
}

#[test]
fn a_lease_that_is_being_written_is_not_taken_for_one_of_another_boot() {
    let f = Fixture::new();
    let path = f.path("images/leases").join(ContainerId::random().to_string());
    let image = coracle_image::Digest::of(b"image");
    for torn in [String::new(), image.to_string(), format!("{image}\n"), format!("{image}\n12ab")] {
        fs::write(&path, &torn).unwrap();
        assert!(f.store.leases().unwrap().is_empty() && path.exists(), "{torn:?}");
    }
    let then = SystemTime::now() - Duration::from_secs(2 * 3600);
    File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    assert!(f.store.leases().unwrap().is_empty() && !path.exists(), "nobody writes it any more");
    fs::write(&path, format!("{image}\nanother\n")).unwrap();
    assert!(f.store.leases().unwrap().is_empty() && !path.exists(), "it is of another boot");
}

#[test]
fn a_lease_stays_whoever_reads_leases_meanwhile() {
    let f = Fixture::new();
    f.import_tar(&Tar::new().file("f", "").build(), "app").unwrap();
    let image = f.image("app").id;
    let (end, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let store = f.store.clone();
        scope.spawn(move || {
            while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                store.leases().unwrap();
            }
        });
        let containers: Vec<_> = (0..300).map(|_| ContainerId::random()).collect();
        containers.iter().for_each(|container| f.store.lease(&image, *container).unwrap());
        assert_eq!(f.store.leases().unwrap().len(), containers.len());
        drop(end);
    });
}

#[test]
fn an_image_whose_documents_are_damaged_keeps_nobody_from_the_others() {
    let f = Fixture::new();
    image(&f, "a", 1);
    image(&f, "b", 1);
    let a = f.image("a").id;
    let record = f.path("images/images").join(format!("{}.json", a.hex()));
    let config = f.path("images/blobs/sha256").join(a.hex());
    let (whole, configuration) = (fs::read(&record).unwrap(), fs::read(&config).unwrap());
    let all = CollectPolicy { wanted: u64::MAX, ..Default::default() };
    let layers = || names(&f.path("images/layers")).len();

    fs::write(&record, "{").unwrap();
    let listed: Vec<_> = f.store.list().unwrap().iter().map(|image| familiar(&image.repo_tags)).collect();
    assert_eq!(listed, ["b:latest"]);
    let known = f.store.known().unwrap();
    assert!(known.len() == 2 && known.iter().any(|(id, names)| *id == a && !names.is_empty()), "{known:?}");
    assert!(f.store.df(|_| None).unwrap().images.len() == 1 && !f.store.verify().unwrap().is_empty());
    let collected = f.store.collect(&all, |_| None).unwrap();
    assert!(collected.images.len() == 1 && about(collected.freed, 1), "{collected:?}");
    assert_eq!(layers(), 2, "what its configuration names stays");

    // Where that is damaged too, nobody knows which layers it has.
    image(&f, "b", 1);
    fs::write(&config, "{").unwrap();
    assert_eq!(f.store.collect(&all, |_| None).unwrap().images.len(), 0, "it would free nothing");
    assert!(matches!(f.store.remove("b", |_| None), Ok(coracle_image::Removed::Deleted { freed: 0, .. })));
    assert_eq!(layers(), 3);
    fs::write(&record, &whole).unwrap();
    fs::write(&config, &configuration).unwrap();
    assert_eq!(f.store.collect(&CollectPolicy::default(), |_| None).unwrap().layers, 1);
    assert_eq!(f.mount("a").read("a").len(), 1 << 20);
    f.assert_sound();
}

#[test]
fn an_images_files_are_mounted_read_only() {
    let f = Fixture::new();
    f.import_tar(&Tar::new().dir("dir", 0o755).file("dir/file", "content").build(), "data").unwrap();
    let mounted = f.store.mount_image(&f.image("data")).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
    assert_eq!(fs::read_to_string(root.join("dir/file")).unwrap(), "content");
    assert!(fs::write(root.join("dir/file"), "other").is_err());
    assert!(fs::write(root.join("new"), "").is_err());
    assert_eq!(names(&root), ["dir"]);
}
