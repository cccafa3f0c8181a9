//! Images that come layer by layer, from several threads.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use coracle_image::{CollectPolicy, Digest, ImageError, Incoming, Limits, Store};
use coracle_model::ContainerId;
use serde_json::json;

use crate::support::{Fixture, Tar, gzip, names};

/// An image as a registry has it.
pub(crate) struct Remote {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl Remote {
    pub(crate) fn new(layers: &[Vec<u8>]) -> Self {
        let architecture = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
        let diff_ids: Vec<_> = layers.iter().map(|tar| Digest::of(tar)).collect();
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
                            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        Self::described(config.to_string().into_bytes(), layers.iter().map(|tar| gzip(tar)).collect())
    }

    /// The same image with its layers as they are.
    pub(crate) fn uncompressed(&self, layers: &[Vec<u8>]) -> Self {
        Self::described(self.config.clone(), layers.to_vec())
    }

    fn described(config: Vec<u8>, blobs: Vec<Vec<u8>>) -> Self {
        let described: Vec<_> = blobs
            .iter()
            .map(|blob| {
                json!({"digest": Digest::of(blob), "size": blob.len(),
                               "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"})
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "layers": described,
                              "config": {"digest": Digest::of(&config), "size": config.len(),
                                         "mediaType": "application/vnd.oci.image.config.v1+json"}});
        Self { manifest: manifest.to_string().into_bytes(), config, blobs }
    }

    pub(crate) fn begin(&self, store: &Store) -> Incoming {
        store.incoming(&self.manifest, &self.config, Limits::default()).unwrap()
    }

    pub(crate) fn blob(&self, index: usize) -> (Digest, u64) {
        (Digest::of(&self.blobs[index]), self.blobs[index].len() as u64)
    }

    pub(crate) fn unpack(&self, incoming: &Incoming, index: usize) -> Result<(), ImageError> {
        incoming.unpack(index, &self.blobs[index][..], self.blob(index))
    }

    pub(crate) fn pull(&self, store: &Store, name: &str) {
        let incoming = self.begin(store);
        (0..self.blobs.len()).for_each(|index| self.unpack(&incoming, index).unwrap());
        incoming.commit(&[name.parse().unwrap()], None).unwrap();
    }
}

/// Gives its bytes when it is told to.
struct Held<'a>(Option<Receiver<()>>, &'a [u8]);

impl Read for Held<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(gate) = self.0.take() {
            gate.recv().map_err(|_| io::Error::other("the test gave up"))?;
        }
        self.1.read(out)
    }
}

struct NeverRead;

impl Read for NeverRead {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("the layer was there already")
    }
}

fn three() -> Remote {
    let base = Tar::new().dir("d", 0o1777).dir("d/sub", 0o711).symlink("lib", "d/sub").build();
    let middle = Tar::new().file("d/sub/one", "1").build();
    let top = Tar::new().file("lib/two", "2").file("d/.wh.nothing", "").build();
    Remote::new(&[base, middle, top])
}

#[test]
fn layers_are_made_at_once_and_wait_for_those_below() {
    let f = Fixture::new();
    let remote = three();
    let incoming = remote.begin(&f.store);
    let (open, gate) = channel();
    thread::scope(|scope| {
        let (done, finished) = channel();
        for index in [2, 1] {
            let (done, incoming, remote) = (done.clone(), &incoming, &remote);
            scope.spawn(move || {
                remote.unpack(incoming, index).unwrap();
                done.send(index).unwrap();
            });
        }
        let held = Held(Some(gate), &remote.blobs[0]);
        let (incoming, remote) = (&incoming, &remote);
        scope.spawn(move || {
            incoming.unpack(0, held, remote.blob(0)).unwrap();
            done.send(0).unwrap();
        });
        let early = finished.recv_timeout(std::time::Duration::from_millis(300));
        assert!(early.is_err(), "layer {early:?} did not wait for the directories below it");
        open.send(()).unwrap();
        let mut order: Vec<_> = finished.iter().take(3).collect();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
    });
    assert!(matches!(f.store.resolve(&"app".parse().unwrap()), Ok(None)), "it is visible before its commit");
    let imported = incoming.commit(&["app".parse().unwrap()], None).unwrap();
    assert_eq!((imported.new_layers, imported.known_layers), (3, 0));
    let m = f.mount("app");
    assert_eq!((m.read("d/sub/one"), m.read("d/sub/two")), ("1".into(), "2".into()));
    assert_eq!(fs::metadata(m.path.join("d")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(m.path.join("d/sub")).unwrap().mode() & 0o7777, 0o711);
    drop(incoming);
    f.assert_sound();
}

#[test]
fn room_is_wanted_for_the_layers_that_are_missing() {
    let f = Fixture::new();
    let remote = three();
    remote.unpack(&remote.begin(&f.store), 0).unwrap();
    let incoming = remote.begin(&f.store);
    incoming.check_room([u64::MAX, 0, 1 << 10].into_iter()).unwrap();
    let error = incoming.check_room([0, 1, u64::MAX].into_iter()).unwrap_err();
    assert!(matches!(error, ImageError::DiskFull { needed: u64::MAX, .. }), "{error}");
}

#[test]
fn what_was_finished_is_not_fetched_again() {
    let f = Fixture::new();
    let remote = three();
    let incoming = remote.begin(&f.store);
    remote.unpack(&incoming, 0).unwrap();
    let cut = &remote.blobs[1][..remote.blobs[1].len() - 5];
    let error = incoming.unpack(1, cut, remote.blob(1)).unwrap_err();
    assert!(matches!(error, ImageError::LayerSource { .. }), "{error}");
    let error = incoming.commit(&["app".parse().unwrap()], None).unwrap_err();
    assert!(matches!(error, ImageError::Incomplete { .. }), "{error}");
    drop(incoming);
    assert_eq!(names(&f.path("images/tmp")).len(), 1, "only the layer that is whole stays");

    let incoming = remote.begin(&f.store);
    assert_eq!(incoming.layers().iter().map(|layer| layer.have).collect::<Vec<_>>(), [true, false, false]);
    incoming.unpack(0, NeverRead, remote.blob(0)).unwrap();
    (1..3).for_each(|index| remote.unpack(&incoming, index).unwrap());
    incoming.commit(&["app".parse().unwrap()], None).unwrap();
    f.assert_sound();
    assert_eq!(f.mount("app").read("d/sub/two"), "2");
}

#[test]
fn a_layer_of_two_images_is_made_once() {
    let f = Fixture::new();
    let base = Tar::new().dir("d", 0o755).build();
    let image = |file: &str| Remote::new(&[base.clone(), Tar::new().file(file, "x").build()]);
    let (one, two) = (image("d/one"), image("d/two"));
    let (first, second) = (one.begin(&f.store), two.begin(&f.store));
    let (open, gate) = channel();
    let (started, begun) = channel();
    thread::scope(|scope| {
        let (first, second, one, two) = (&first, &second, &one, &two);
        scope.spawn(move || {
            let source = Notify(started).chain(Held(Some(gate), &one.blobs[0]));
            first.unpack(0, source, one.blob(0)).unwrap();
        });
        // The first has the layer's directory and its lock once it reads.
        begun.recv().unwrap();
        let waiting = scope.spawn(move || second.unpack(0, NeverRead, two.blob(0)).unwrap());
        open.send(()).unwrap();
        waiting.join().unwrap();
    });
    one.unpack(&first, 1).unwrap();
    two.unpack(&second, 1).unwrap();
    first.commit(&["one".parse().unwrap()], None).unwrap();
    // What the second counts on stays, whoever goes.
    drop(first);
    f.store.remove("one", |_| None).unwrap();
    let imported = second.commit(&["two".parse().unwrap()], None).unwrap();
    assert_eq!((imported.new_layers, imported.known_layers), (1, 1));
    drop(second);
    assert_eq!(names(&f.mount("two").path.join("d")), ["two"]);
    f.assert_sound();
}

/// Tells when it is read.
struct Notify(std::sync::mpsc::Sender<()>);

impl Read for Notify {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let _ = self.0.send(());
        Ok(0)
    }
}

#[test]
fn who_waits_for_a_layer_that_fails_is_told() {
    let f = Fixture::new();
    let remote = three();
    let incoming = remote.begin(&f.store);
    thread::scope(|scope| {
        let waits = scope.spawn(|| remote.unpack(&incoming, 1));
        let wrong =
            incoming.unpack(0, &remote.blobs[1][..], (remote.blob(0).0, remote.blob(1).1)).unwrap_err();
        assert!(matches!(wrong, ImageError::Mismatch { .. } | ImageError::Layer { .. }), "{wrong}");
        assert!(matches!(waits.join().unwrap(), Err(ImageError::Aborted)));
        let waits = scope.spawn(|| remote.unpack(&incoming, 2));
        incoming.abort();
        assert!(matches!(waits.join().unwrap(), Err(ImageError::Aborted)));
        assert!(matches!(remote.unpack(&incoming, 0), Err(ImageError::Aborted)));
    });
    f.assert_sound();
    remote.pull(&f.store, "app");
    f.assert_sound();
}

#[test]
fn more_or_fewer_bytes_than_promised() {
    let f = Fixture::new();
    let remote = Remote::new(&[Tar::new().file("f", "x").build()]);
    let incoming = remote.begin(&f.store);
    let (digest, size) = remote.blob(0);
    for (promised, says) in [(size - 1, "goes on after"), (size + 1, "ends after")] {
        let error = incoming.unpack(0, &remote.blobs[0][..], (digest, promised)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let endless = incoming.unpack(0, remote.blobs[0].chain(io::repeat(0)), (digest, size)).unwrap_err();
    assert!(endless.to_string().contains("goes on after"), "{endless}");
    f.assert_sound();
    remote.unpack(&incoming, 0).unwrap();
}

#[test]
fn pins_and_names_stay_with_an_image_that_comes_again() {
    let f = Fixture::new();
    let remote = three();
    remote.pull(&f.store, "app");
    let image = f.image("app");
    let archive = coracle_image::Pin::Archive("/a.tar".into());
    f.store.pin(&image.id, coracle_image::Pin::Hand).unwrap();
    f.store.pin(&image.id, archive.clone()).unwrap();
    assert_eq!(f.image("app").last_used, image.last_used, "a pin is no use");
    f.store.tag("app", &"other:1".parse().unwrap()).unwrap();
    remote.pull(&f.store, "app");
    f.store.unpin(&image.id, &archive).unwrap();
    let again = f.image("other:1");
    assert_eq!((again.pins.clone(), again.repo_tags.len()), (vec![coracle_image::Pin::Hand], 2));
    assert!(again.last_used > image.last_used);
    let digest = format!("x@{}", image.id).parse().unwrap();
    assert!(f.store.tag("app", &digest).unwrap_err().to_string().contains("give a tag"));
}

#[test]
fn what_is_damaged_can_be_removed_or_comes_again() {
    let f = Fixture::new();
    let remote = three();
    remote.pull(&f.store, "app");
    let image = f.image("app");
    let layer = |n: usize| f.path("images/layers").join(image.layers[n].chain_id.hex());
    fs::remove_dir_all(layer(0).join("diff")).unwrap();
    fs::remove_file(layer(1).join("layer.json")).unwrap();
    assert_eq!(f.store.verify().unwrap().len(), 2);
    let incoming = remote.begin(&f.store);
    assert_eq!(incoming.layers().iter().map(|layer| layer.have).collect::<Vec<_>>(), [false, false, true]);
    (0..2).for_each(|index| remote.unpack(&incoming, index).unwrap());
    let imported = incoming.commit(&["app".parse().unwrap()], None).unwrap();
    assert_eq!((imported.new_layers, imported.known_layers), (2, 1));
    drop(incoming);
    f.assert_sound();
    assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new());

    for damaged in ["images", "blobs/sha256"] {
        let name = if damaged == "images" { format!("{}.json", image.id.hex()) } else { image.id.hex() };
        fs::write(f.path("images").join(damaged).join(name), "{").unwrap();
        let error = f.store.find("app").unwrap_err().to_string();
        assert!(error.contains("remove the image and import it again"), "{error}");
        match damaged {
            "images" => f.store.remove("app", |_| None).unwrap(),
            _ => f.store.remove(&image.id.hex()[..10], |_| None).unwrap(),
        };
        assert_eq!(names(&f.path("images/layers")), Vec::<String>::new());
        f.assert_sound();
        remote.pull(&f.store, "app");
    }
}

#[test]
fn a_layer_whose_record_is_damaged_comes_again_but_not_under_a_container() {
    let f = Fixture::new();
    let remote = three();
    remote.pull(&f.store, "app");
    let image = f.image("app");
    let layer = f.path("images/layers").join(image.layers[1].chain_id.hex());
    fs::write(layer.join("layer.json"), "{").unwrap();
    let container = ContainerId::random();
    f.store.lease(&image.id, container).unwrap();
    let incoming = remote.begin(&f.store);
    assert_eq!(incoming.layers().iter().map(|layer| layer.have).collect::<Vec<_>>(), [true, false, true]);
    remote.unpack(&incoming, 1).unwrap();
    let error = incoming.commit(&["app".parse().unwrap()], None).unwrap_err().to_string();
    assert!(error.contains(&format!("container {container} uses it")), "{error}");
    assert!(layer.join("diff").is_dir());
    f.store.release(container).unwrap();
    let imported = incoming.commit(&["app".parse().unwrap()], None).unwrap();
    assert_eq!((imported.new_layers, imported.known_layers), (1, 2));
    drop(incoming);
    f.assert_sound();
}

#[test]
fn documents_that_are_there_are_not_replaced_when_their_image_comes_again() {
    let f = Fixture::new();
    let remote = three();
    remote.pull(&f.store, "app");
    let config = f.image("app").id.hex();
    let blobs = f.path("images/blobs/sha256");
    let inodes = || {
        let inode = |name: &String| fs::metadata(blobs.join(name)).unwrap().ino();
        names(&blobs).iter().map(inode).collect::<Vec<_>>()
    };
    let before = inodes();
    assert_eq!(before.len(), 2);
    remote.pull(&f.store, "app");
    assert_eq!(inodes(), before, "nobody flushes what nothing new comes with");
    fs::write(blobs.join(config), "{").unwrap();
    remote.pull(&f.store, "app");
    assert_ne!(inodes(), before, "what is damaged gives way");
    f.assert_sound();
}

#[test]
fn what_this_machine_runs_beside_its_own_is_taken() {
    let f = Fixture::new();
    let tar = Tar::new().file("f", "").build();
    let of = |architecture: &str| {
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
                            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]}});
        Remote::described(config.to_string().into_bytes(), vec![gzip(&tar)])
    };
    of(if std::env::consts::ARCH == "x86_64" { "386" } else { "arm" }).pull(&f.store, "older");
    assert_eq!(f.image("older").layers.len(), 1);
    let other = of("s390x");
    let error = f.store.incoming(&other.manifest, &other.config, Limits::default()).unwrap_err();
    assert!(matches!(error, ImageError::Platform { .. }), "{error}");
}

#[test]
fn an_image_that_is_removed_the_moment_it_is_there_has_come_all_the_same() {
    let f = Fixture::new();
    let remote = three();
    let (end, ended) = channel::<()>();
    thread::scope(|scope| {
        let store = f.store.clone();
        let collector = scope.spawn(move || {
            let all = CollectPolicy { wanted: u64::MAX, ..CollectPolicy::default() };
            let mut removed = 0;
            while matches!(ended.try_recv(), Err(TryRecvError::Empty)) {
                removed += store.collect(&all, |_| None).unwrap().images.len();
            }
            removed
        });
        for _ in 0..50 {
            let incoming = remote.begin(&f.store);
            (0..3).for_each(|index| remote.unpack(&incoming, index).unwrap());
            let image = incoming.commit(&["app".parse().unwrap()], None).unwrap().image;
            assert_eq!((image.repo_tags.len(), image.layers.len()), (1, 3));
            // Whoever lists the images meanwhile finds none damaged.
            f.store.list().unwrap();
        }
        drop(end);
        assert!(collector.join().unwrap() > 0);
    });
}
