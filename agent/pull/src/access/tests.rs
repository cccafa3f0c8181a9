//! Who may use an image, across agents.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use coracle_credentials::Source;
use coracle_model::Name;
use coracle_registry::{Credential, Secret};
use tempfile::TempDir;

use super::*;

struct Node {
    root: TempDir,
    access: Access,
}

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

fn image() -> Digest {
    Digest::of(b"image")
}

fn basic(password: &str) -> Credential {
    Credential::Basic { username: "me".to_owned(), password: Secret::new(password) }
}

fn secret(secret: &str, password: &str) -> Found {
    let [namespace, name] = ["default", secret].map(|text| Name::label(text).unwrap());
    Found { credential: basic(password), source: Source::Secret { namespace, name } }
}

fn nodes_own() -> Found {
    Found { credential: basic("node"), source: Source::Provider("x".to_owned()) }
}

fn anonymous() -> Found {
    Found { credential: Credential::Anonymous, source: Source::Nobody }
}

// === impl Node ===

impl Node {
    fn new(policy: VerificationPolicy) -> Self {
        let root = TempDir::new().unwrap();
        let access = Access::open(&directory(root.path()), policy, &[]).unwrap();
        Self { root, access }
    }

    /// The next agent, which finds these images.
    fn again(&mut self, images: &[(Digest, Vec<ImageName>)]) {
        let policy = self.access.0.policy.read().unwrap().clone();
        self.access = Access::open(&directory(self.root.path()), policy, images).unwrap();
    }

    async fn pulled(&self, of: &str, with: &Found) {
        self.access.begin(&name(of)).await.unwrap().pulled(image(), with).await.unwrap();
    }

    async fn must_pull(&self, of: &str, shown: &[Found]) -> bool {
        self.access.must_pull(image(), &name(of), shown).await
    }

    fn files(&self, of: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory(self.root.path()).join(of)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

#[tokio::test]
async fn an_image_of_a_secret_is_for_those_who_show_it() {
    let node = Node::new(VerificationPolicy::default());
    node.pulled("reg.example/x:1", &secret("one", "right")).await;
    assert!(node.must_pull("reg.example/x:1", &[]).await);
    assert!(node.must_pull("reg.example/x:1", &[secret("two", "wrong"), nodes_own()]).await);
    assert!(!node.must_pull("reg.example/x:1", &[secret("two", "wrong"), secret("one", "right")]).await);
    assert!(!node.must_pull("reg.example/x:2", &[secret("one", "right")]).await, "of the repository");
    assert!(node.must_pull("reg.example/y:1", &[secret("one", "right")]).await, "not of another");

    // The same in another Secret, from then on also by that Secret's name; and what was renewed.
    assert!(!node.must_pull("reg.example/x:1", &[secret("other", "right")]).await);
    assert!(!node.must_pull("reg.example/x:1", &[secret("other", "renewed")]).await);
    assert!(!node.must_pull("reg.example/x:1", &[secret("third", "renewed")]).await);
    assert!(node.must_pull("reg.example/x:1", &[secret("fourth", "unheard of")]).await);
}

#[tokio::test]
async fn what_the_node_or_everybody_could_pull_is_for_all() {
    for with in [nodes_own(), anonymous()] {
        let node = Node::new(VerificationPolicy::AlwaysVerify);
        node.pulled("reg.example/x", &secret("one", "right")).await;
        assert!(node.must_pull("reg.example/x", &[]).await);
        node.pulled("reg.example/x", &with).await;
        assert!(!node.must_pull("reg.example/x", &[]).await);
        node.pulled("reg.example/x", &secret("one", "right")).await;
        assert!(!node.must_pull("reg.example/x", &[]).await, "it still is");
    }
}

#[tokio::test]
async fn what_is_preloaded_is_as_the_policy_says() {
    for (policy, must) in [
        (VerificationPolicy::NeverVerify, false),
        (VerificationPolicy::NeverVerifyPreloadedImages, false),
        (VerificationPolicy::NeverVerifyAllowlistedImages(vec!["reg.example/x".to_owned()]), false),
        (VerificationPolicy::NeverVerifyAllowlistedImages(vec!["reg.example/y".to_owned()]), true),
        (VerificationPolicy::AlwaysVerify, true),
    ] {
        let node = Node::new(policy.clone());
        assert_eq!(node.must_pull("reg.example/x", &[]).await, must, "{policy:?}");
    }
}

#[tokio::test]
async fn a_pull_whose_end_is_not_on_record_makes_nothing_public() {
    let mut node = Node::new(VerificationPolicy::default());
    let pulling = node.access.begin(&name("reg.example/x")).await.unwrap();
    assert!(node.must_pull("reg.example/x", &[]).await, "while it runs");
    assert!(!node.must_pull("reg.example/y", &[]).await);
    std::mem::forget(pulling);
    node.again(&[(image(), vec![name("reg.example/x")])]);
    assert_eq!(node.files("pulling").len(), 0);
    assert!(node.must_pull("reg.example/x", &[]).await, "after a kill");
    assert!(node.must_pull("reg.example/x", &[secret("one", "right")]).await);
    node.pulled("reg.example/x", &secret("one", "right")).await;
    assert!(!node.must_pull("reg.example/x", &[secret("one", "right")]).await);

    // By tag and digest, a store files it without the tag.
    let by_digest = format!("reg.example/x:1@{}", Digest::of(b"manifest"));
    std::mem::forget(node.access.begin(&name(&by_digest)).await.unwrap());
    node.again(&[(Digest::of(b"second"), vec![name(&by_digest).key()])]);
    assert!(node.access.must_pull(Digest::of(b"second"), &name(&by_digest), &[]).await);
}

#[tokio::test]
async fn of_several_pulls_the_last_ends_it() {
    let node = Node::new(VerificationPolicy::default());
    let begin = || async { node.access.begin(&name("reg.example/x")).await.unwrap() };
    let (one, two) = (begin().await, begin().await);
    assert_eq!(node.files("pulling").len(), 1);
    one.failed().await;
    assert_eq!(node.files("pulling").len(), 1);
    assert!(node.must_pull("reg.example/x", &[]).await);
    two.failed().await;
    assert_eq!(node.files("pulling").len(), 0);
    assert!(!node.must_pull("reg.example/x", &[]).await, "nothing was pulled");

    drop(begin().await);
    assert_eq!(node.files("pulling").len(), 1, "what was given up may have brought something");
    assert!(node.must_pull("reg.example/x", &[]).await);
    begin().await.failed().await;
    assert_eq!(node.files("pulling").len(), 0);
}

#[tokio::test]
async fn what_a_pull_brings_after_it_was_given_up_is_not_public() {
    let node = Node::new(VerificationPolicy::default());
    let begin = || async { node.access.begin(&name("reg.example/x")).await.unwrap() };
    let pulling = begin().await;
    pulling.brings(image()).await.unwrap();
    drop(pulling);
    // The next, which shows nothing, is refused.
    begin().await.failed().await;
    assert_eq!(node.files("pulling").len(), 0);
    let by_digest = format!("reg.example/x@{}", Digest::of(b"manifest"));
    for of in ["reg.example/x", by_digest.as_str()] {
        assert!(node.must_pull(of, &[]).await && node.must_pull(of, &[secret("one", "right")]).await, "{of}");
    }
    node.pulled("reg.example/x", &secret("one", "right")).await;
    assert!(!node.must_pull("reg.example/x", &[secret("one", "right")]).await);

    // What is known of who may use it stays known when it comes again, also by a pull that fails.
    let again = begin().await;
    again.brings(image()).await.unwrap();
    again.failed().await;
    assert!(!node.must_pull("reg.example/x", &[secret("one", "right")]).await);
    assert!(node.must_pull("reg.example/x", &[]).await);
}

#[tokio::test]
async fn an_image_that_cannot_be_put_on_record_does_not_come() {
    let node = Node::new(VerificationPolicy::default());
    let pulling = node.access.begin(&name("reg.example/x")).await.unwrap();
    fs::remove_dir_all(directory(node.root.path()).join("pulled")).unwrap();
    assert!(pulling.brings(image()).await.is_err());
    pulling.failed().await;
}

#[tokio::test]
async fn records_go_with_their_images() {
    let mut node = Node::new(VerificationPolicy::default());
    node.pulled("reg.example/x", &secret("one", "right")).await;
    node.again(&[(image(), vec![name("reg.example/x")])]);
    assert!(node.must_pull("reg.example/x", &[]).await);
    assert!(!node.must_pull("reg.example/x", &[secret("two", "right")]).await, "hashes outlive an agent");
    node.again(&[]);
    assert_eq!(node.files("pulled").len(), 0);
    node.pulled("reg.example/x", &secret("one", "right")).await;
    node.access.forget(image(), || true).await;
    assert_eq!(node.files("pulled").len(), 0);
    node.access.forget(image(), || true).await;
}

#[tokio::test]
async fn an_image_that_comes_again_before_it_is_forgotten_is_not_public() {
    let node = Node::new(VerificationPolicy::default());
    node.pulled("reg.example/x", &secret("one", "right")).await;
    // It is removed, and before that is told the next pull brings it.
    let pulling = node.access.begin(&name("reg.example/x")).await.unwrap();
    pulling.brings(image()).await.unwrap();
    node.access.forget(image(), || true).await;
    pulling.pulled(image(), &secret("one", "right")).await.unwrap();
    assert!(node.must_pull("reg.example/x", &[]).await);
    node.access.forget(image(), || false).await;
    assert!(node.must_pull("reg.example/x", &[]).await);
    node.access.forget(image(), || true).await;
    assert_eq!(node.files("pulled").len(), 0);
}

#[tokio::test]
async fn torn_files_make_nothing_public_and_are_mended() {
    let mut node = Node::new(VerificationPolicy::default());
    node.pulled("reg.example/x", &anonymous()).await;
    let file = node.files("pulled").remove(0);
    let whole = fs::read(&file).unwrap();
    for length in 0..whole.len() {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(node.must_pull("reg.example/x", &[]).await, "{length} bytes");
    }
    let unfinished = format!(".{}.new", file.file_name().unwrap().to_str().unwrap());
    fs::write(file.with_file_name(unfinished), "{").unwrap();
    node.again(&[(image(), vec![name("reg.example/x")])]);
    assert!(node.must_pull("reg.example/x", &[]).await);
    assert_eq!(node.files("pulled"), std::slice::from_ref(&file));
    serde_json::from_slice::<Record>(&fs::read(&file).unwrap()).unwrap();
    node.pulled("reg.example/x", &anonymous()).await;
    assert_eq!(fs::read(&file).unwrap(), whole);
}

#[tokio::test]
async fn files_show_no_secret_and_are_their_owners_alone() {
    let node = Node::new(VerificationPolicy::default());
    node.pulled("reg.example/x", &secret("one", "hunter2")).await;
    let root = directory(node.root.path());
    for file in node.files("pulled").into_iter().chain([root.join("salt")]) {
        let bytes = fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let text = fs::read_to_string(node.files("pulled").remove(0)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let noted = &json["credentialMapping"]["reg.example/x"]["kubernetesSecrets"][0];
    assert_eq!((&noted["namespace"], &noted["name"]), (&"default".into(), &"one".into()));
    let hash = noted["credentialHash"].as_str().unwrap();
    assert!(hash.starts_with("sha256:"));

    let other = Node::new(VerificationPolicy::default());
    other.pulled("reg.example/x", &secret("one", "hunter2")).await;
    let of_other = fs::read_to_string(other.files("pulled").remove(0)).unwrap();
    assert!(!of_other.contains(hash), "the hashes of two nodes are not comparable");
}

#[tokio::test]
async fn a_pull_that_cannot_be_put_on_record_does_not_begin() {
    let node = Node::new(VerificationPolicy::default());
    fs::remove_dir_all(directory(node.root.path()).join("pulling")).unwrap();
    let error = node.access.begin(&name("reg.example/x")).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot write the record of an image pull /"), "{error}");
    assert!(!node.must_pull("reg.example/x", &[]).await, "nothing has begun");
}
