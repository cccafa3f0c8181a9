//! Who may use what comes.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_credentials::{Found, Source};
use coracle_model::{ImageName, Name};
use coracle_pull::access::{Access, VerificationPolicy};
use coracle_pull::{PullLimits, Puller};
use coracle_registry::Credential;
use coracle_tests::needs_root;
use coracle_tests::registry::{Registry, Reply, tar_of};
use coracle_tests::wait::{SOON, wait_until};

use super::{LIMITS, Place, anybody, app, client, of_layers};

/// What a pod shows: that the registry does not look at it is nothing to the node.
fn of_a_secret() -> Vec<Found> {
    let [namespace, name] = ["default", "one"].map(|text| Name::label(text).unwrap());
    vec![Found { credential: Credential::Anonymous, source: Source::Secret { namespace, name } }]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_comes_after_its_pull_was_given_up_is_not_for_all() {
    needs_root!();
    let (_, content) = of_layers(&[tar_of(&[("file", b"text")])]);
    let is_closed = Arc::new(AtomicBool::new(false));
    let closed = Arc::clone(&is_closed);
    let registry = Registry::start(move |request| match closed.load(Ordering::SeqCst) {
        true => Reply::error("403 Forbidden", "DENIED", "not you"),
        false => content.answer(request),
    });
    let place = Place::new();
    let directory = place.directory.path().join("image_manager");
    let access = Access::open(&directory, VerificationPolicy::default(), &[]).unwrap();
    let client = client(Vec::new(), LIMITS);
    let puller = Puller::new(place.store.clone(), client, PullLimits::default(), Some(access.clone()));
    let name: ImageName = app(&registry).parse().unwrap();

    // A container that is being made holds the store's lock like this: the commit waits for it.
    let path = place.store.root().join("lock");
    let lock = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    lock.lock_shared().unwrap();
    let pull = puller.pull(&name, of_a_secret());
    let commits = || {
        let entries = std::fs::read_dir(place.store.root().join("tmp")).unwrap();
        entries.flatten().any(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"layer-"))
    };
    wait_until("the commit to begin", SOON, commits);
    drop(pull);
    lock.unlock().unwrap();
    wait_until("the image to be there", SOON, || place.store.resolve(&name).unwrap().is_some());

    is_closed.store(true, Ordering::SeqCst);
    puller.pull(&name, anybody()).ended().await.expect_err("it is refused");
    let image = place.store.resolve(&name).unwrap().unwrap().id;
    assert!(access.must_pull(image, &name, &[]).await, "it came with a Secret");
}
