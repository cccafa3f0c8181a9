use coracle_server::client::{AttachOptions, ExecOutput};
use tokio::net::UnixStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::node::{pod, running, waiting};
use crate::{Served, refusal, within};

fn served() -> Served {
    let served = Served::new();
    served.node.put(&pod(), vec![running("web", 0, None), waiting("side", "ContainerCreating", 0, None)]);
    served
}

#[tokio::test]
async fn a_containers_streams_are_passed_on_until_its_end() {
    let served = served();
    let options = AttachOptions { stdin: true, tty: false };
    let (mut input, mut outputs) = served.client.attach("default", "web", "web", options).await.unwrap();
    input.stdin(b"hello\n").await.unwrap();
    input.close_stdin().await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = loop {
        match within(outputs.next()).await.unwrap() {
            ExecOutput::Stdout(bytes) => out.extend_from_slice(&bytes),
            ExecOutput::Stderr(bytes) => err.extend_from_slice(&bytes),
            ExecOutput::Ended(status) => break status,
        }
    };
    assert_eq!((out.as_slice(), err.as_slice()), (&b"attached\nhello\n"[..], &b"errors\n"[..]));
    assert_eq!(status.exit_code(), Some(0));
}

#[tokio::test]
async fn what_does_not_run_is_not_attached_to() {
    let served = served();
    let attach = |container| served.client.attach("default", "web", container, AttachOptions::default());
    assert_eq!(refusal(attach("nginx").await).message, "container nginx is not valid for pod web");
    assert!(refusal(attach("side").await).message.contains("container not found (\"side\")"));
}

#[tokio::test]
async fn a_uid_and_the_apis_own_names_are_understood() {
    let served = served();
    let connect = async |uid: &str, query: &str| {
        let stream = UnixStream::connect(served.client.socket()).await.unwrap();
        let path = format!("ws://localhost/attach/default/web/{uid}/web?{query}");
        let mut request = path.into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "v4.channel.k8s.io".parse().unwrap());
        client_async(request, stream).await.map(drop)
    };
    let uid = pod().uid.to_string();
    connect(&uid, "stdout=true").await.unwrap();
    assert!(connect(&uid, "tty=true").await.is_err(), "no stream is wanted");
    assert!(connect("another", "stdout=true").await.is_err());
}
