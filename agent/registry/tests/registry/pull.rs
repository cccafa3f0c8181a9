//! What a good registry gives.

use coracle_model::Digest;
use coracle_tests::registry::{Content, Image, Registry};

use super::{ANYBODY, client, name, pull};

#[tokio::test]
async fn an_image_comes_whole() {
    let image = Image::small("one");
    let mut content = Content::default();
    let descriptor = content.image(&image);
    content.tag("team/app", "v1", &descriptor);
    let registry = Registry::with(content);
    let client = client();
    let host = registry.host();

    for text in [
        format!("{host}/team/app:v1"),
        format!("{host}/team/app@{}", descriptor.digest),
        format!("{host}/team/app:moved@{}", descriptor.digest),
    ] {
        let (manifest, config, layers) = pull(&client, &text, ANYBODY).await.unwrap();
        assert_eq!(manifest.digest.to_string(), descriptor.digest, "{text}");
        assert_eq!(manifest.manifest_digest, manifest.digest);
        assert_eq!(Digest::of(&manifest.bytes), manifest.digest);
        assert_eq!((config, layers), (image.config.clone(), image.layers.clone()));
        let digest = client.digest(&name(&text), ANYBODY).await.unwrap();
        assert_eq!(digest, Some(manifest.digest));
    }
    let asked = registry.asked();
    assert!(asked.iter().all(|one| one.header("user-agent") == Some("coracle/test")));
    assert!(asked.iter().all(|one| one.header("authorization").is_none()));
    assert!(asked[0].header("accept").unwrap().contains("application/vnd.oci.image.index.v1+json"));
    assert!(registry.lines().iter().all(|line| !line.contains("moved") && !line.contains("ns=")));
    // One that was tried with TLS, and one that served all that followed.
    assert_eq!(registry.connections(), 2);
}

#[tokio::test]
async fn an_index_leads_to_this_platform() {
    let mut content = Content::default();
    let (own, other) = (content.image(&Image::small("own")), content.image(&Image::small("other")));
    let index = content.index(&[("linux/arm64/v8", other.clone()), ("linux/amd64", own.clone())]);
    content.tag("app", "latest", &index);
    let foreign = content.index(&[("linux/arm64/v8", other), ("windows/amd64", own.clone())]);
    content.tag("app", "foreign", &foreign);
    let nested = content.index(&[("linux/amd64", index.clone())]);
    content.tag("app", "nested", &nested);
    let registry = Registry::with(content);
    let (client, host) = (client(), registry.host());

    let manifest = client.manifest(&name(&format!("{host}/app")), ANYBODY).await.unwrap();
    assert_eq!(manifest.digest.to_string(), index.digest);
    assert_eq!(manifest.manifest_digest.to_string(), own.digest);

    let manifest = client.manifest(&name(&format!("{host}/app:nested")), ANYBODY).await.unwrap();
    assert_eq!(manifest.digest.to_string(), nested.digest);
    assert_eq!(manifest.manifest_digest.to_string(), own.digest);

    let error = client.manifest(&name(&format!("{host}/app:foreign")), ANYBODY).await.unwrap_err();
    assert_eq!(error.to_string(), "has no image for linux/amd64; there is: linux/arm64/v8, windows/amd64");
}

#[tokio::test]
async fn a_tag_that_moves_is_seen_to_move() {
    let mut content = Content::default();
    let images = ["one", "two"].map(|text| content.image(&Image::small(text)));
    let registry = Registry::start(move |request| {
        let mut content = content.clone();
        content.tag("app", "latest", &images[usize::from(request.number > 1)]);
        content.answer(request)
    });
    let (client, name) = (client(), name(&format!("{}/app", registry.host())));
    let first = client.digest(&name, ANYBODY).await.unwrap().unwrap();
    assert_eq!(client.digest(&name, ANYBODY).await.unwrap(), Some(first));
    assert_ne!(client.digest(&name, ANYBODY).await.unwrap(), Some(first));
    assert!(
        registry.lines().iter().all(|line| line == "HEAD /v2/app/manifests/latest"),
        "{:?}",
        registry.lines()
    );
}

#[tokio::test]
async fn many_blobs_at_a_time() {
    let mut content = Content::default();
    let blobs: Vec<_> = (0..20_u8).map(|n| content.blob("", vec![n; 300_000])).collect();
    let registry = Registry::with(content);
    let (client, name) = (client(), name(&format!("{}/app", registry.host())));
    let tasks: Vec<_> = blobs
        .into_iter()
        .map(|blob| {
            let (client, name) = (client.clone(), name.clone());
            let descriptor = super::descriptor(&blob);
            tokio::spawn(async move {
                let bytes =
                    super::read(client.blob(&name, &descriptor, ANYBODY).await.unwrap()).await.unwrap();
                assert_eq!(Digest::of(&bytes), descriptor.digest);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
