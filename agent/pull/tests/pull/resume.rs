//! Pulls that are given up and taken up again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_tests::needs_root;
use coracle_tests::registry::{Body, Registry, tar_of};
use coracle_tests::wait::{SOON, wait_until};

use super::{Place, anybody, app, noise, of_layers};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_finished_does_not_come_again() {
    needs_root!();
    let archives = [tar_of(&[("first", &noise(100_000, 1))]), tar_of(&[("second", &noise(100_000, 2))])];
    let (image, content) = of_layers(&archives);
    let digest = |number: usize| image.manifest["layers"][number]["digest"].as_str().unwrap().to_owned();
    let (first, second) = (digest(0), digest(1));
    let held = Arc::new(AtomicBool::new(true));
    let (last, holding) = (second.clone(), Arc::clone(&held));
    let registry = Registry::start(move |request| {
        let reply = content.answer(request);
        if request.target.ends_with(&last) && holding.load(Ordering::SeqCst) {
            return reply.sent(|bytes| Body::Stalled(bytes, 1000));
        }
        reply
    });
    let place = Place::new();
    let pull = place.puller.pull(&app(&registry).parse().unwrap(), anybody());
    let finished = || {
        let records = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name == "layer.json");
        place.files().iter().any(records) && registry.lines().iter().any(|line| line.ends_with(&second))
    };
    wait_until("the first layer to be made, and the second to come", SOON, finished);
    drop(pull);
    held.store(false, Ordering::SeqCst);
    place.pull(&app(&registry)).await.unwrap();
    assert_eq!(place.store.verify_whole().unwrap(), Vec::<String>::new());
    let times = |digest: &str| registry.lines().iter().filter(|line| line.ends_with(digest)).count();
    assert_eq!(times(&first), 1, "the first layer was there");
    assert!(place.files().iter().all(|path| !path.starts_with(place.store.root().join("tmp"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_wants_ends_at_once() {
    needs_root!();
    let (_, content) = of_layers(&[tar_of(&[("a", &noise(1 << 20, 5))])]);
    let registry = Registry::start(move |request| {
        let reply = content.answer(request);
        if request.is_blob() && request.number > 2 {
            return reply.sent(|bytes| Body::Stalled(bytes, 500_000));
        }
        reply
    });
    let place = Place::new();
    let pull = place.puller.pull(&app(&registry).parse().unwrap(), anybody());
    wait_until("the layer to come", SOON, || place.files().iter().any(|path| path.ends_with("diff")));
    drop(pull);
    // Nobody holds what it was making any more, and it is not there.
    wait_until("the layer to be given up", SOON, || !place.files().iter().any(|path| path.ends_with("diff")));
    assert!(place.directory.path().exists());
}
