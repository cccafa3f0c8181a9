//! Several pulls, and images of many layers.

use std::collections::BTreeMap;

use coracle_pull::PullLimits;
use coracle_tests::needs_root;
use coracle_tests::registry::{Body, Content, Image, Registry, Reply, tar_of};
use serde_json::json;

use super::{LIMITS, Place, noise, of_layers};

#[tokio::test]
async fn layers_that_images_share_come_once() {
    needs_root!();
    let base = tar_of(&[("base", &noise(300_000, 1))]);
    let mut content = Content::default();
    for number in 0..6 {
        let own = tar_of(&[("own", format!("{number}").as_bytes())]);
        let descriptor = content.image(&Image::of(&[base.clone(), own], &json!({})));
        content.tag(&format!("app{number}"), "latest", &descriptor);
    }
    let registry = Registry::with(content);
    let place = Place::new();
    let names: Vec<_> = (0..6).map(|number| format!("{}/app{number}", registry.host())).collect();
    let pulls = names.iter().map(|name| place.pull(name));
    for pulled in futures_util::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(place.store.verify_whole().unwrap(), Vec::<String>::new());
    assert_eq!(place.store.list().unwrap().len(), 6);
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for line in registry.lines().into_iter().filter(|line| line.contains("/blobs/")) {
        *asked.entry(line.rsplit('/').next().unwrap().to_owned()).or_default() += 1;
    }
    // Six configurations, six layers of their own, and the one below them all.
    assert_eq!(asked.len(), 13);
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
}

#[tokio::test]
async fn as_many_layers_as_overlayfs_takes() {
    needs_root!();
    let archives: Vec<_> =
        (0..500).map(|number| tar_of(&[(&format!("dir/file{number}"), b"text")])).collect();
    let (_, content) = of_layers(&archives);
    let registry = Registry::with(content);
    let place = Place::new();
    let pulled = place.pull(&super::app(&registry)).await.unwrap();
    assert_eq!(pulled.image.lower_dirs().len(), 500);
    assert_eq!(place.store.verify_whole().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_registry_that_does_not_answer_keeps_nobody_from_another() {
    needs_root!();
    let (_, content) = of_layers(&[tar_of(&[("file", b"text")])]);
    let (silent, answering) =
        (Registry::start(|_| Reply::status("200 OK").body(Body::Silence)), Registry::with(content));
    let one = PullLimits { at_once: std::num::NonZeroUsize::new(1), rate: None };
    let place = Place::limited(Vec::new(), LIMITS, one);
    let hangs = place.puller.pull(&super::app(&silent).parse().unwrap(), super::anybody());
    while silent.asked().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let name = super::app(&answering);
    tokio::select! {
        pulled = place.pull(&name) => drop(pulled.unwrap()),
        hung = hangs.ended() => panic!("{:?}", hung.map(|pulled| pulled.digest)),
    }
}

#[tokio::test]
async fn registries_that_stop_in_the_midst_of_layers_keep_nobody_from_another() {
    needs_root!();
    let (_, content) = of_layers(&[tar_of(&[("file", b"text")])]);
    let answering = Registry::with(content);
    let place = Place::new();
    // More layers than come at once, each of them begun.
    let mut stopped = Vec::new();
    for number in 0..3 {
        let archives: Vec<_> = (0..3)
            .map(|layer| tar_of(&[(&format!("{number}/{layer}"), &noise(100_000, number * 3 + layer + 1))]))
            .collect();
        let (image, content) = of_layers(&archives);
        let layers = image.layers.len();
        let registry = Registry::start(move |request| {
            let reply = content.answer(request);
            let is_layer =
                request.is_blob() && matches!(&reply.body, Body::Whole(bytes) if bytes.len() > 50_000);
            if is_layer { reply.sent(|bytes| Body::Stalled(bytes, 1000)) } else { reply }
        });
        assert_eq!(layers, 3);
        let pull = place.puller.pull(&super::app(&registry).parse().unwrap(), super::anybody());
        stopped.push((registry, pull));
    }
    let (registries, hang): (Vec<_>, Vec<_>) = stopped.into_iter().unzip();
    let is_layer = |line: &String| line.contains("/blobs/");
    let asked = || registries.iter().flat_map(|registry| registry.lines()).filter(is_layer).count();
    // Three configurations, and as many layers as come at once.
    while asked() < 9 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let name = super::app(&answering);
    let ended = hang.into_iter().map(|pull| Box::pin(pull.ended()));
    tokio::select! {
        pulled = place.pull(&name) => drop(pulled.unwrap()),
        (hung, ..) = futures_util::future::select_all(ended) => panic!("{:?}", hung.map(|pulled| pulled.digest)),
    }
}
