//! Whom registries may be.

use std::fs;

use coracle_tests::registry::{Authority, Content, Image, Registry, Reply};
use tempfile::TempDir;

use super::{ANYBODY, LIMITS, pull, with};

/// A registry in TLS, whose root is in a file of a directory of hosts.
struct Private {
    authority: Authority,
    registry: Registry,
    directory: TempDir,
}

impl Private {
    fn new() -> Self {
        Self::with(|authority| authority.certificate(&["127.0.0.1"]))
    }

    fn with(certificate: impl FnOnce(&Authority) -> coracle_tests::registry::Certificate) -> Self {
        let authority = Authority::new();
        let certificate = certificate(&authority);
        let mut content = Content::default();
        let image = content.image(&Image::small("one"));
        content.tag("app", "latest", &image);
        let registry = Registry::start_tls(&certificate, move |request| content.answer(request));
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(registry.host())).unwrap();
        Self { authority, registry, directory }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(self.registry.host()).join(name)
    }

    fn hosts(&self, text: &str) {
        fs::write(self.file("hosts.toml"), text).unwrap();
    }

    async fn pull(&self) -> Result<(), String> {
        let client = with(Some(self.directory.path()), LIMITS);
        let result = pull(&client, &format!("{}/app", self.registry.host()), ANYBODY).await;
        result.map(drop).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn a_private_root_is_believed_where_it_is_named() {
    let private = Private::new();
    let error = private.pull().await.unwrap_err();
    assert!(error.contains("TLS with 127.0.0.1: invalid peer certificate: UnknownIssuer"), "{error}");
    assert!(error.contains("name its root as `ca` in the hosts.toml of this registry"), "{error}");
    assert_eq!(private.registry.connections(), 1, "not asked again, and not without TLS");
    private.authority.write(&private.file("root.crt.pem"));
    private.hosts("ca = [\"root.crt.pem\"]");
    private.pull().await.unwrap();
    assert_eq!(private.registry.asked().len(), 3);
    assert_eq!(private.registry.connections(), 2);

    let other = Private::new();
    other.authority.write(&other.file("root.pem"));
    private.hosts(&format!("ca = {:?}", other.file("root.pem")));
    assert!(private.pull().await.unwrap_err().contains("invalid peer certificate"));
    private.hosts("ca = \"none.pem\"");
    let error = private.pull().await.unwrap_err();
    assert!(error.contains("none.pem: No such file or directory"), "{error}");
    fs::write(private.file("none.pem"), "x").unwrap();
    let error = private.pull().await.unwrap_err();
    assert!(error.contains("none.pem: it holds no certificate in PEM"), "{error}");
}

#[tokio::test]
async fn dockers_layout_is_read_where_there_is_no_hosts_toml() {
    let private =
        Private::with(|authority| authority.certificate(&["127.0.0.1"]).wanting_clients_of(authority));
    private.authority.write(&private.file("root.crt"));
    let error = private.pull().await.unwrap_err();
    assert!(error.contains("CertificateRequired") || error.contains("certificate required"), "{error}");
    assert!(error.contains("name one that it believes, and its key, as `client`"), "{error}");
    assert_eq!(private.registry.connections(), 1, "not asked again");
    let directory = private.file("");
    private.authority.certificate(&[]).write(&directory, "client");
    private.pull().await.unwrap();
}

#[tokio::test]
async fn a_client_shows_the_certificate_it_is_given() {
    let private =
        Private::with(|authority| authority.certificate(&["127.0.0.1"]).wanting_clients_of(authority));
    private.authority.write(&private.file("root.pem"));
    let directory = private.file("");
    let other = Authority::new();
    other.certificate(&[]).write(&directory, "other");
    let (certificate, key) = private.authority.certificate(&[]).write(&directory, "own");
    // Of several the one that the server knows the issuer of.
    private
        .hosts("ca = \"root.pem\"\nclient = [[\"other.cert\", \"other.key\"], [\"own.cert\", \"own.key\"]]");
    private.pull().await.unwrap();
    private.hosts("ca = \"root.pem\"\nclient = [[\"own.cert\", \"other.key\"]]");
    let error = private.pull().await.unwrap_err();
    assert!(error.contains("other.key: its key is not that of the certificate"), "{error}");
    private.hosts("ca = \"root.pem\"\nclient = \"both.pem\"");
    let both = [certificate, key].map(|path| fs::read_to_string(path).unwrap()).concat();
    fs::write(private.file("both.pem"), both).unwrap();
    private.pull().await.unwrap();
    private.hosts("ca = \"root.pem\"\nclient = \"own.cert\"");
    let error = private.pull().await.unwrap_err();
    assert!(error.contains("own.cert: it holds no key in PEM"), "{error}");
}

#[tokio::test]
async fn verification_is_skipped_only_where_it_says_so() {
    let private = Private::with(|authority| authority.certificate(&["example.org"]));
    private.authority.write(&private.file("root.pem"));
    private.hosts("ca = \"root.pem\"");
    let error = private.pull().await.unwrap_err();
    assert!(error.contains("not valid for name \"127.0.0.1\""), "{error}");
    private.hosts("skip_verify = true");
    private.pull().await.unwrap();
}

#[tokio::test]
async fn who_speaks_no_tls_where_it_is_said_to_is_not_asked_without() {
    let plain = Registry::with(Content::default());
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join(plain.host());
    fs::create_dir(&at).unwrap();
    fs::write(at.join("hosts.toml"), format!("server = \"https://{}\"", plain.host())).unwrap();
    let client = with(Some(directory.path()), LIMITS);
    let error = pull(&client, &format!("{}/app", plain.host()), ANYBODY).await.unwrap_err().to_string();
    assert!(
        error.contains("it seems to speak no TLS: if it may be asked without, name it with http://"),
        "{error}"
    );
    assert_eq!(plain.asked().len(), 0);
}

#[tokio::test]
async fn nobody_is_led_from_https_to_http() {
    let authority = Authority::new();
    let plain = Registry::with(Content::default());
    let to = plain.url();
    let registry = Registry::start_tls(&authority.certificate(&["127.0.0.1"]), move |_| {
        Reply::redirect(&format!("{to}/x"))
    });
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join(registry.host())).unwrap();
    authority.write(&directory.path().join(registry.host()).join("root.crt"));
    let client = with(Some(directory.path()), LIMITS);
    let error = pull(&client, &format!("{}/app", registry.host()), ANYBODY).await.unwrap_err().to_string();
    assert!(error.contains("from https to http"), "{error}");
    assert_eq!(plain.asked().len(), 0);
}

#[tokio::test]
async fn a_registry_in_tls_has_its_token_service_in_tls() {
    let authority = Authority::new();
    let registry = Registry::start_tls(&authority.certificate(&["registry.test"]), move |_| {
        Reply::unauthorized("http://auth.test/token", "repository:app:pull")
    });
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("registry.test")).unwrap();
    authority.write(&directory.path().join("registry.test/root.crt"));
    // By a proxy, because the name leads nowhere.
    let (client, _relay) = super::through_a_relay(&registry, directory.path());
    let error = pull(&client, "registry.test/app", ANYBODY).await.unwrap_err().to_string();
    assert!(
        error.contains("is http://auth.test/token, which is asked without TLS, unlike the registry"),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_service_of_the_same_root_is_believed() {
    let authority = Authority::new();
    let certificate = authority.certificate(&["127.0.0.1", "localhost"]);
    let service =
        Registry::start_tls(&certificate, |_| Reply::ok("application/json", "{\"token\":\"sesame\"}"));
    let realm = format!("https://localhost:{}/token", service.address().port());
    let mut content = Content::default();
    let image = content.image(&Image::small("one"));
    content.tag("app", "latest", &image);
    let registry = Registry::start_tls(&certificate, move |request| match request.header("authorization") {
        Some("Bearer sesame") => content.answer(request),
        _ => Reply::unauthorized(&realm, "repository:app:pull"),
    });
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join(registry.host());
    fs::create_dir(&own).unwrap();
    authority.write(&own.join("root.pem"));
    fs::write(own.join("hosts.toml"), "ca = \"root.pem\"").unwrap();
    let image = format!("{}/app", registry.host());
    pull(&with(Some(directory.path()), LIMITS), &image, ANYBODY).await.unwrap();
    // That the registry need not prove who it is says nothing of the service.
    fs::write(own.join("hosts.toml"), "skip_verify = true").unwrap();
    let error = pull(&with(Some(directory.path()), LIMITS), &image, ANYBODY).await.unwrap_err().to_string();
    assert!(error.contains("the token service") && error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn who_stores_the_blobs_must_prove_who_it_is() {
    let authority = Authority::new();
    let certificate = authority.certificate(&["127.0.0.1"]);
    let mut content = Content::default();
    let image = content.image(&Image::small("one"));
    content.tag("app", "latest", &image);
    let all = content.clone();
    let storage = Registry::start_tls(&certificate, move |request| all.answer(request));
    let to = storage.url();
    let registry = Registry::start_tls(&certificate, move |request| match request.is_blob() {
        true => Reply::redirect(&format!("{to}{}", request.target)),
        false => content.answer(request),
    });
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join(registry.host());
    fs::create_dir(&own).unwrap();
    authority.write(&own.join("root.pem"));
    let image = format!("{}/app", registry.host());
    // That the registry need not prove who it is says nothing of where it leads.
    fs::write(own.join("hosts.toml"), "skip_verify = true").unwrap();
    let error = pull(&with(Some(directory.path()), LIMITS), &image, ANYBODY).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    fs::write(own.join("hosts.toml"), "ca = \"root.pem\"").unwrap();
    pull(&with(Some(directory.path()), LIMITS), &image, ANYBODY).await.unwrap();
}
