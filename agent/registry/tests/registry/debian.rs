//! Debian's `docker-registry`, which is what many registries are made of.

use std::fs;

use coracle_registry::{Credential, Secret};
use coracle_tests::docker_registry::{Access, DockerRegistry, PASSWORD, Tokens, USER};
use coracle_tests::registry::{Authority, Image};
use serde_json::json;

use super::{ANYBODY, LIMITS, client, name, pull, read, with};

fn user() -> Credential {
    Credential::Basic { username: USER.to_owned(), password: Secret::new(PASSWORD) }
}

#[tokio::test]
async fn images_and_indexes_come_without_tls_on_loopback() {
    let registry = DockerRegistry::start();
    let image = Image::small("one");
    let pushed = registry.push("team/app", "v1", &image);
    let index = registry.push_manifest(
        "team/app",
        "latest",
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": pushed.media_type, "digest": pushed.digest, "size": pushed.size,
                "platform": {"os": "linux", "architecture": "amd64"},
            }],
        }),
    );
    let client = client();
    for (reference, digest) in
        [(":v1", &pushed.digest), ("", &index.digest), (&format!("@{}", index.digest), &index.digest)]
    {
        let text = format!("{}/team/app{reference}", registry.host());
        let (manifest, config, layers) = pull(&client, &text, ANYBODY).await.unwrap();
        assert_eq!(manifest.digest.to_string(), *digest, "{text}");
        assert_eq!(manifest.manifest_digest.to_string(), pushed.digest);
        assert_eq!((&config, &layers), (&image.config, &image.layers));
        assert_eq!(client.digest(&name(&text), ANYBODY).await.unwrap(), Some(manifest.digest));
    }
    let error = pull(&client, &format!("{}/team/app:v2", registry.host()), ANYBODY).await.unwrap_err();
    assert!(error.is_not_found());
    assert!(
        error.to_string().contains("not found (404 Not Found, MANIFEST_UNKNOWN: manifest unknown)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_private_root_and_a_password() {
    let authority = Authority::new();
    let certificate = authority.certificate(&["127.0.0.1"]);
    let registry = DockerRegistry::start_as(Some((&authority, &certificate)), Access::Basic);
    registry.push("app", "latest", &Image::small("one"));
    let image = format!("{}/app", registry.host());
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join(registry.host());
    fs::create_dir(&own).unwrap();
    let client = with(Some(directory.path()), LIMITS);
    let error = pull(&client, &image, &user()).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    authority.write(&own.join("root.pem"));
    fs::write(own.join("hosts.toml"), "ca = \"root.pem\"").unwrap();
    pull(&client, &image, &user()).await.unwrap();

    let error = pull(&client, &image, ANYBODY).await.unwrap_err();
    assert!(error.is_unauthorized());
    let expected = "unauthorized (401 Unauthorized, UNAUTHORIZED: authentication required): it was asked without credentials";
    assert!(error.to_string().contains(expected), "{error}");
    let wrong = Credential::Basic { username: USER.to_owned(), password: Secret::new("wrong") };
    let error = pull(&client, &image, &wrong).await.unwrap_err();
    assert!(error.is_unauthorized() && error.to_string().contains("do not suffice"), "{error}");
}

#[tokio::test]
async fn tokens_are_asked_for_where_the_registry_says() {
    let tokens = Tokens::start();
    let registry = DockerRegistry::start_as(None, Access::Tokens(&tokens));
    let image = Image::small("one");
    registry.push("public/app", "latest", &image);
    registry.push("private/app", "latest", &image);
    let client = client();
    let [public, private] = ["public", "private"].map(|team| format!("{}/{team}/app", registry.host()));
    pull(&client, &public, ANYBODY).await.unwrap();
    assert_eq!(tokens.asked().len(), 1);
    assert!(pull(&client, &private, ANYBODY).await.unwrap_err().is_unauthorized());
    pull(&client, &private, &user()).await.unwrap();
    assert_eq!(tokens.asked().len(), 3);
    let wrong = Credential::Basic { username: USER.to_owned(), password: Secret::new("wrong") };
    let error = pull(&client, &private, &wrong).await.unwrap_err();
    assert!(error.is_unauthorized());
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn it_stands_in_for_docker_hub() {
    let registry = DockerRegistry::start();
    registry.push("library/nginx", "latest", &Image::small("nginx"));
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("docker.io")).unwrap();
    let hosts = format!("server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\n", registry.host());
    fs::write(directory.path().join("docker.io/hosts.toml"), hosts).unwrap();
    pull(&with(Some(directory.path()), LIMITS), "nginx", ANYBODY).await.unwrap();
}

#[tokio::test]
async fn parts_of_a_blob_can_be_had() {
    let registry = DockerRegistry::start();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    registry.push_blob("app", &bytes);
    // Cut off on its way, once.
    let relay = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = relay.local_addr().unwrap();
    let target = registry.address();
    let task = tokio::spawn(async move {
        relay.set_nonblocking(true).unwrap();
        let relay = tokio::net::TcpListener::from_std(relay).unwrap();
        let mut number = 0;
        while let Ok((stream, _)) = relay.accept().await {
            let onward = tokio::net::TcpStream::connect(target).await.unwrap();
            number += 1;
            let most = if number == 2 { 1_000_000 } else { u64::MAX };
            tokio::spawn(async move {
                let ((mut asked, mut answers), (mut answer, mut onward)) =
                    (stream.into_split(), onward.into_split());
                let asking = tokio::spawn(async move { tokio::io::copy(&mut asked, &mut onward).await });
                let mut answer = tokio::io::AsyncReadExt::take(&mut answer, most);
                let _ = tokio::io::copy(&mut answer, &mut answers).await;
                asking.abort();
            });
        }
    });
    let descriptor = super::descriptor(&coracle_tests::registry::Descriptor::of("", &bytes));
    let (client, name) = (client(), name(&format!("{address}/app")));
    let blob = client.blob(&name, &descriptor, ANYBODY).await.unwrap();
    assert!(read(blob).await.unwrap() == bytes);
    task.abort();
    assert!(registry.log().contains("http.response.status=206"), "{}", registry.log());
}
