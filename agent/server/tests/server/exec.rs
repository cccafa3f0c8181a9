use std::sync::atomic::Ordering;

use coracle_server::Status;
use coracle_server::client::{ExecInput, ExecOptions, ExecOutput, ExecOutputs};
use futures_util::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::node::{pod, running, waiting};
use crate::{Served, refusal, within};

fn served() -> Served {
    let served = Served::new();
    served.node.put(&pod(), vec![running("web", 0, None), waiting("side", "ContainerCreating", 0, None)]);
    served
}

fn shell(script: &str) -> ExecOptions {
    ExecOptions { command: ["sh", "-c", script].map(str::to_owned).to_vec(), stdin: false, tty: false }
}

async fn start(served: &Served, options: &ExecOptions) -> (ExecInput, ExecOutputs) {
    served.client.exec("default", "web", "web", options).await.unwrap()
}

/// All output, and the end.
async fn finish(outputs: &mut ExecOutputs) -> (Vec<u8>, Vec<u8>, Status) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match within(outputs.next()).await.unwrap() {
            ExecOutput::Stdout(bytes) => out.extend_from_slice(&bytes),
            ExecOutput::Stderr(bytes) => err.extend_from_slice(&bytes),
            ExecOutput::Ended(status) => return (out, err, *status),
        }
    }
}

#[tokio::test]
async fn output_is_told_apart_and_the_exit_code_comes_last() {
    let served = served();
    let (_input, mut outputs) = start(&served, &shell("echo out; echo err >&2; exit 3")).await;
    let (out, err, status) = finish(&mut outputs).await;
    assert_eq!((out.as_slice(), err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!((status.reason.as_str(), status.exit_code()), ("NonZeroExitCode", Some(3)));

    let (_input, mut outputs) = start(&served, &shell("kill -9 $$")).await;
    assert_eq!(finish(&mut outputs).await.2.exit_code(), Some(137));
    let (_input, mut outputs) = start(&served, &shell(":")).await;
    assert_eq!(finish(&mut outputs).await.2.exit_code(), Some(0));
}

#[tokio::test]
async fn input_ends_alone_and_nothing_is_lost() {
    let served = served();
    let options = ExecOptions { stdin: true, ..shell("cat; echo done") };
    let (mut input, mut outputs) = start(&served, &options).await;
    let sent: Vec<u8> = (0..8u32 << 20).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let sending = async {
        input.stdin(&sent).await.unwrap();
        input.close_stdin().await.unwrap();
    };
    let ((), (mut out, _, status)) = tokio::join!(sending, finish(&mut outputs));
    assert_eq!(status.exit_code(), Some(0));
    assert_eq!(out.split_off(sent.len()), b"done\n");
    assert!(out == sent, "the bytes came back as they were sent");
}

#[tokio::test]
async fn input_a_program_does_not_want_does_not_stop_it() {
    let served = served();
    let options = ExecOptions { stdin: true, ..shell("exec 0<&-; echo still here") };
    let (mut input, mut outputs) = start(&served, &options).await;
    let sending = async { while input.stdin(&[0; 100_000]).await.is_ok() {} };
    let (out, _, status) = tokio::select! {
        finished = finish(&mut outputs) => finished,
        () = sending => panic!("the input broke before the program ended"),
    };
    assert_eq!((out.as_slice(), status.exit_code()), (&b"still here\n"[..], Some(0)));
}

#[tokio::test]
async fn output_nobody_reads_is_not_collected() {
    let served = served();
    let length = 64u64 << 20;
    let (_input, mut outputs) = start(&served, &shell(&format!("head -c {length} /dev/zero"))).await;
    let mut received = 0;
    let status = loop {
        match within(outputs.next()).await.unwrap() {
            ExecOutput::Stdout(bytes) => received += bytes.len() as u64,
            ExecOutput::Stderr(bytes) => panic!("{}", String::from_utf8_lossy(&bytes)),
            ExecOutput::Ended(status) => break status,
        }
        let ahead = served.node.output.load(Ordering::Relaxed) - received;
        assert!(ahead < 4 << 20, "the server is {ahead} bytes ahead of its client");
    };
    assert_eq!((received, status.exit_code()), (length, Some(0)));
}

#[tokio::test]
async fn a_client_that_goes_ends_what_it_started() {
    let served = served();
    let marker = served.directory.path().join("ended");
    let script = format!("echo $$; cat >/dev/null; touch {}", marker.display());
    let (input, mut outputs) = start(&served, &ExecOptions { stdin: true, ..shell(&script) }).await;
    let ExecOutput::Stdout(_) = within(outputs.next()).await.unwrap() else { panic!("no output") };
    drop((input, outputs));
    within(async {
        while !marker.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_terminal_has_a_size_that_changes() {
    let served = served();
    let script = "trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.05; done";
    let (mut input, mut outputs) =
        start(&served, &ExecOptions { stdin: true, tty: true, ..shell(script) }).await;
    let mut text = String::new();
    while !text.contains("ready") {
        let ExecOutput::Stdout(bytes) = within(outputs.next()).await.unwrap() else { panic!("{text}") };
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    input.resize(coracle_server::TerminalSize { width: 123, height: 45 }).await.unwrap();
    let (out, _, status) = finish(&mut outputs).await;
    assert!(String::from_utf8_lossy(&out).contains("45 123"), "{out:?}");
    assert_eq!(status.exit_code(), Some(7));
}

#[tokio::test]
async fn what_cannot_be_started_is_told() {
    let served = served();
    let exec = |container: &'static str| served.client.exec("default", "web", container, EMPTY);
    const EMPTY: &ExecOptions = &ExecOptions { command: Vec::new(), stdin: false, tty: false };
    assert_eq!(refusal(exec("nginx").await).message, "container nginx is not valid for pod web");
    assert!(refusal(exec("side").await).message.contains("container not found (\"side\")"));
    assert!(refusal(exec("web").await).message.contains("at least one command"));
    let options = ExecOptions { command: vec!["/no/such/program".to_owned()], ..ExecOptions::default() };
    let (_input, mut outputs) = start(&served, &options).await;
    let status = finish(&mut outputs).await.2;
    assert_eq!((status.reason.as_str(), status.exit_code()), ("InternalError", None));
    assert!(status.message.contains("/no/such/program"), "{status}");
}

/// Another client than ours, with the older protocol.
#[tokio::test]
async fn v4_is_spoken_with_who_offers_no_v5() {
    let served = served();
    let connect = async |protocols: &'static str| {
        let stream = UnixStream::connect(served.client.socket()).await.unwrap();
        let path = "ws://localhost/exec/default/web/web?command=cat&input=1&output=1";
        let mut request = path.into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
        client_async(request, stream).await
    };
    let (mut socket, response) = connect("channel.k8s.io, v4.channel.k8s.io").await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "v4.channel.k8s.io");
    let text = b"\0hello".to_vec();
    socket.send(Message::Binary(text.into())).await.unwrap();
    // Without v5 there is no close channel: nothing is closed by it.
    socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    // Neither an unknown channel nor an empty message is an error.
    socket.send(Message::Binary(vec![9, 9].into())).await.unwrap();
    socket.send(Message::Binary(Vec::new().into())).await.unwrap();
    socket.send(Message::Binary(b"\0 again".to_vec().into())).await.unwrap();
    let mut out = Vec::new();
    while out != b"hello again" {
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Binary(data) => {
                assert_eq!(data[0], 1);
                out.extend_from_slice(&data[1..]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(connect("v1.channel.k8s.io").await.is_err());
}
