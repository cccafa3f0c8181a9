//! The URL source against a server on this machine's loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_controller::{
    Desired, DesiredState, DirectorySource, Manifests, Subject, UrlSource, decode_answer, decode_manifest,
};
use coracle_fetch::{Address, Fetcher, Limits, Proxies, RequestHeaders};
use coracle_model::ManifestSource;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For whatever must happen.
const DEADLINE: Duration = Duration::from_secs(20);
/// How often the server is asked. A failure is waited for twice as long, and so on.
const OFTEN: Duration = Duration::from_millis(5);

fn manifest(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: main, image: {image}}}\n"
    )
}

const NOTHING: &str = "{apiVersion: v1, kind: PodList, items: []}";

/// What is served: status line and headers, and the body. `None` closes the connection without a word.
type Served = Arc<Mutex<Option<(String, String)>>>;

struct Server {
    address: SocketAddr,
    served: Served,
    /// Answers given, and of them those of 304.
    answers: Arc<AtomicUsize>,
    unchanged: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

// === impl Server ===

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Served::default();
        let [answers, unchanged] = [const { AtomicUsize::new(0) }; 2].map(Arc::new);
        let (what, given, same) = (Arc::clone(&served), Arc::clone(&answers), Arc::clone(&unchanged));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                let Some((head, body)) = what.lock().unwrap().clone() else { continue };
                let tag = head.lines().find_map(|line| line.strip_prefix("ETag: "));
                let known = request.lines().find_map(|line| line.strip_prefix("if-none-match: "));
                let answer = if tag.is_some() && tag == known {
                    same.fetch_add(1, Ordering::Relaxed);
                    "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned()
                } else {
                    format!("HTTP/1.1 {head}Content-Length: {}\r\n\r\n{body}", body.len())
                };
                let _ = stream.write_all(answer.as_bytes()).await;
                given.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { address, served, answers, unchanged, task }
    }

    fn serve(&self, body: &str) {
        self.serve_with("200 OK\r\n", body);
    }

    fn serve_with(&self, head: &str, body: &str) {
        *self.served.lock().unwrap() = Some((head.to_owned(), body.to_owned()));
    }

    /// Waits until so many further answers were given.
    async fn wait(&self, of: &AtomicUsize, more: usize) {
        let before = of.load(Ordering::Relaxed);
        let reached = async {
            while of.load(Ordering::Relaxed) < before + more {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(DEADLINE, reached).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Both sources at work.
struct Node {
    root: TempDir,
    state: watch::Receiver<Option<Arc<DesiredState>>>,
    decoded: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

// === impl Node ===

impl Node {
    fn start(server: &Server, known: Vec<Desired>) -> Self {
        let root = TempDir::new().unwrap();
        let manifests = Manifests::new(known);
        let directory = DirectorySource::new(root.path(), decode_manifest, &manifests).unwrap();
        let decoded = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&decoded);
        let decode = move |source: &str, body: &[u8]| {
            counted.fetch_add(1, Ordering::Relaxed);
            decode_answer(source, body)
        };
        let url = UrlSource::new(fetcher(server), OFTEN, decode, &manifests);
        let state = manifests.desired();
        let tasks = vec![
            tokio::spawn(async move { panic!("{}", directory.run().await.unwrap_err()) }),
            tokio::spawn(async move { match url.run().await {} }),
        ];
        Self { root, state, decoded, tasks }
    }

    fn write(&self, name: &str, text: &str) {
        let temporary = self.root.path().join(".new");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.root.path().join(name)).unwrap();
    }

    /// Waits until the state is as wanted.
    async fn wait(&mut self, what: &str, wanted: impl Fn(&DesiredState) -> bool) -> Arc<DesiredState> {
        let reached = |state: &Option<Arc<DesiredState>>| state.as_deref().is_some_and(&wanted);
        let found = timeout(DEADLINE, self.state.wait_for(reached)).await;
        let found = found.map(|found| found.unwrap().clone().unwrap());
        found.unwrap_or_else(|_| panic!("waited in vain for {what}: {:#?}", self.state.borrow().clone()))
    }

    /// Waits until these pods, as `name=image`, are desired, with so many problems.
    async fn wants(&mut self, pods: &[&str], problems: usize) -> Arc<DesiredState> {
        let what = format!("{pods:?} and {problems} problems");
        self.wait(&what, |state| seen(state) == pods && state.problems.len() == problems).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn fetcher(server: &Server) -> Fetcher {
    let address = Address::parse(&format!("http://me:pw@{}/pods?token=secret", server.address)).unwrap();
    let limits = Limits { time: DEADLINE, bytes: coracle_controller::MAX_BYTES };
    let proxies = Proxies::from_variables(|_| None).unwrap();
    Fetcher::new(address, RequestHeaders::default(), proxies, "test", limits).unwrap()
}

fn seen(state: &DesiredState) -> Vec<String> {
    let image = |one: &Desired| format!("{}={}", one.pod.key.name, one.pod.spec.containers[0].image);
    let mut all: Vec<_> = state.pods.values().map(image).collect();
    all.sort();
    all
}

#[tokio::test]
async fn pods_come_change_and_go_with_what_is_served() {
    let server = Server::start().await;
    server.serve(&format!("{}---\n{}", manifest("web", "one"), manifest("db", "one")));
    let mut node = Node::start(&server, Vec::new());
    let state = node.wants(&["db=one", "web=one"], 0).await;
    for Desired { pod, source } in state.pods.values() {
        assert_eq!(*source, ManifestSource::Url(format!("http://{}/pods", server.address).into()));
        assert_eq!(pod.annotations["kubernetes.io/config.source"], "http");
    }
    server.serve(&format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}- {}",
        manifest("web", "two").replace('\n', "\n  ").trim_end_matches(' '),
        "{apiVersion: v1, kind: Secret, metadata: {name: login}, stringData: {user: me}}\n"
    ));
    let state = node.wants(&["web=two"], 0).await;
    assert_eq!(state.configs.objects.len(), 1);
    server.serve(NOTHING);
    let state = node.wants(&[], 0).await;
    assert!(state.configs.objects.is_empty() && state.configs.complete);
}

#[tokio::test]
async fn what_has_not_changed_is_not_read_again() {
    let server = Server::start().await;
    server.serve_with("200 OK\r\nETag: \"1\"\r\n", &manifest("web", "one"));
    let mut node = Node::start(&server, Vec::new());
    node.wants(&["web=one"], 0).await;
    server.wait(&server.unchanged, 3).await;
    assert_eq!(node.decoded.load(Ordering::Relaxed), 1);
    assert_eq!(server.answers.load(Ordering::Relaxed), server.unchanged.load(Ordering::Relaxed) + 1);
    // Without a tag the bytes tell.
    server.serve(&manifest("web", "one"));
    server.wait(&server.answers, 3).await;
    assert_eq!(node.decoded.load(Ordering::Relaxed), 1);
    server.serve_with("200 OK\r\nETag: \"2\"\r\n", &manifest("web", "two"));
    node.wants(&["web=two"], 0).await;
}

#[tokio::test]
async fn what_is_no_manifest_takes_nothing_from_the_pods() {
    let server = Server::start().await;
    server.serve(&manifest("web", "one"));
    let mut node = Node::start(&server, Vec::new());
    node.wants(&["web=one"], 0).await;
    for (head, body, subject, expected) in [
        ("200 OK\r\n", "<html>Log in</html>", Subject::Manifest, "/pods:1:1: a manifest must be a mapping"),
        (
            "200 OK\r\n",
            "",
            Subject::Manifest,
            "/pods: has answered with no object; what it held is left alone",
        ),
        ("200 OK\r\n", "# nothing\n---\n", Subject::Manifest, "has answered with no object"),
        ("200 OK\r\n", "{}", Subject::Manifest, "apiVersion: Required value"),
        (
            "500 Oops\r\n",
            NOTHING,
            Subject::Place,
            "has answered with status 500 Internal Server Error; the pods from it are left alone",
        ),
        ("404 Not Found\r\n", "", Subject::Place, "status 404"),
        ("200 OK\r\nContent-Encoding: br\r\n", NOTHING, Subject::Place, "content encoding"),
    ] {
        server.serve_with(head, body);
        let found = |state: &DesiredState| {
            state.problems.iter().any(|it| it.subject == subject && it.message.contains(expected))
        };
        let state = node.wait(expected, found).await;
        assert_eq!(seen(&state), ["web=one"], "{expected}");
        assert!(!format!("{:?}", state.problems).contains("secret"), "{:?}", state.problems);
    }
    *server.served.lock().unwrap() = None;
    node.wait("nobody", |state| state.problems.iter().any(|it| it.message.contains("connection closed")))
        .await;
    server.serve(&manifest("web", "two"));
    node.wants(&["web=two"], 0).await;
}

#[tokio::test]
async fn a_fault_in_the_content_lasts_as_long_as_the_content() {
    let server = Server::start().await;
    server.serve_with("200 OK\r\nETag: \"1\"\r\n", "not a pod");
    let mut node = Node::start(&server, Vec::new());
    let first = node.wants(&[], 1).await;
    server.serve_with("500 Oops\r\n", "");
    node.wants(&[], 2).await;
    let before = server.unchanged.load(Ordering::Relaxed);
    server.serve_with("200 OK\r\nETag: \"1\"\r\n", "not a pod");
    let again = node.wants(&[], 1).await;
    assert!(server.unchanged.load(Ordering::Relaxed) > before, "it was not modified");
    assert_eq!(again.problems, first.problems, "with its time");
}

#[tokio::test]
async fn a_pod_of_the_directory_and_of_the_address_is_a_conflict_of_both() {
    let server = Server::start().await;
    server.serve(&manifest("web", "one"));
    let mut node = Node::start(&server, Vec::new());
    node.wants(&["web=one"], 0).await;
    node.write("web.yaml", &manifest("web", "two"));
    let state = node.wants(&["web=one"], 2).await;
    let (file, url) = (node.root.path().join("web.yaml"), format!("http://{}/pods", server.address));
    for problem in &state.problems {
        for name in [&file.display().to_string(), &url, "stays as it is until only one defines it"] {
            assert!(problem.message.contains(name), "{problem:?} without {name}");
        }
    }
    server.serve(NOTHING);
    node.wants(&["web=two"], 0).await;
}

#[tokio::test]
async fn what_is_known_stays_until_the_address_answers() {
    let server = Server::start().await;
    server.serve(&manifest("web", "one"));
    let mut node = Node::start(&server, Vec::new());
    let known: Vec<_> = node.wants(&["web=one"], 0).await.pods.values().cloned().collect();
    drop(node);

    *server.served.lock().unwrap() = None;
    let mut next = Node::start(&server, known.clone());
    let state = next.wants(&["web=one"], 1).await;
    assert!(!state.configs.complete, "what else it serves is not known");
    next.write("db.yaml", &manifest("db", "one"));
    next.wants(&["db=one", "web=one"], 1).await;
    server.serve("not a pod");
    let state =
        next.wait("content", |state| state.problems.iter().any(|it| it.subject == Subject::Manifest)).await;
    assert_eq!(
        (seen(&state), state.configs.complete),
        (vec!["db=one".to_owned(), "web=one".to_owned()], false)
    );
    server.serve(&manifest("web", "one"));
    let state = next.wants(&["db=one", "web=one"], 0).await;
    assert!(state.configs.complete);
    assert!(known.iter().all(|one| state.pods.contains_key(&one.pod.uid)), "the same pod");
}

#[tokio::test]
async fn a_first_failure_holds_nobody_up() {
    let server = Server::start().await;
    let mut node = Node::start(&server, Vec::new());
    node.write("db.yaml", &manifest("db", "one"));
    let state = node.wants(&["db=one"], 1).await;
    assert!(state.configs.complete, "nothing ran from it");
}
