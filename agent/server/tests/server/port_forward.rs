use std::io;

use coracle_server::client::ForwardFailure;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

use crate::node::{pod, running};
use crate::{Served, refusal, within};

fn served() -> Served {
    let served = Served::new();
    served.node.put(&pod(), vec![running("web", 0, None)]);
    served
}

/// A listener, and its port.
async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let (listener, port) = listen().await;
    let (near, far) = tokio::join!(TcpStream::connect(("127.0.0.1", port)), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A user's connection that is being forwarded to `port`, and how that ends.
async fn forward(
    served: &Served,
    port: u16,
) -> (TcpStream, tokio::task::JoinHandle<Result<(), ForwardFailure>>) {
    let (user, local) = pair().await;
    let forward = served.client.port_forward("default", "web", pod().uid.as_str(), port).await.unwrap();
    (user, tokio::spawn(forward.run(local)))
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = within(stream.read_to_end(&mut rest)).await;
    read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn each_direction_ends_alone_and_nothing_is_lost() {
    let served = served();
    let (listener, port) = listen().await;
    let (mut user, forwarding) = forward(&served, port).await;
    let (mut program, _) = within(listener.accept()).await.unwrap();
    let sent: Vec<u8> = (0..8u32 << 20).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let expected = sent.clone();
    let program = tokio::spawn(async move {
        // All of it, before a single byte of the answer.
        let mut received = Vec::new();
        program.read_to_end(&mut received).await.unwrap();
        program.write_all(&received).await.unwrap();
    });
    let answer = within(async {
        user.write_all(&sent).await.unwrap();
        user.shutdown().await.unwrap();
        let mut answer = Vec::new();
        user.read_to_end(&mut answer).await.unwrap();
        answer
    });
    assert!(answer.await == expected, "the bytes came back as they were sent");
    program.await.unwrap();
    within(forwarding).await.unwrap().unwrap();

    // The other way around: the program has said all, and still listens.
    let (mut user, forwarding) = forward(&served, port).await;
    let (mut program, _) = within(listener.accept()).await.unwrap();
    program.write_all(b"all").await.unwrap();
    program.shutdown().await.unwrap();
    let mut text = String::new();
    within(user.read_to_string(&mut text)).await.unwrap();
    user.write_all(b"heard").await.unwrap();
    drop(user);
    let mut heard = String::new();
    within(program.read_to_string(&mut heard)).await.unwrap();
    assert_eq!((text.as_str(), heard.as_str()), ("all", "heard"));
    within(forwarding).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reset_stays_a_reset_on_either_side() {
    let served = served();
    let (listener, port) = listen().await;
    let (mut user, forwarding) = forward(&served, port).await;
    let (program, _) = within(listener.accept()).await.unwrap();
    program.set_zero_linger().unwrap();
    drop(program);
    assert!(is_reset(&mut user).await, "the user sees the program's reset");
    let error = within(forwarding).await.unwrap().unwrap_err().to_string();
    let expected = format!("error forwarding port {port} to pod default/web, uid {}: ", pod().uid);
    assert!(error.starts_with(&expected) && error.contains("reset"), "{error}");

    let (user, forwarding) = forward(&served, port).await;
    let (mut program, _) = within(listener.accept()).await.unwrap();
    user.set_zero_linger().unwrap();
    drop(user);
    assert!(is_reset(&mut program).await, "the program sees the user's reset");
    let error = within(forwarding).await.unwrap().unwrap_err();
    assert!(matches!(error, ForwardFailure::LocalRead(_)), "{error}");
}

#[tokio::test]
async fn what_is_not_answered_is_told() {
    let served = served();
    let (listener, port) = listen().await;
    drop(listener);
    let (mut user, forwarding) = forward(&served, port).await;
    assert!(is_reset(&mut user).await);
    let error = within(forwarding).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("failed to connect: Connection refused"), "{error}");

    let another = "00000000-0000-0000-0000-000000000000";
    let refused = served.client.port_forward("default", "web", another, 80).await;
    assert_eq!(refusal(refused).message, "pods \"web\" not found", "it is another pod of that name");
}

#[tokio::test]
async fn a_pod_that_ends_ends_its_connections() {
    let served = served();
    let (listener, port) = listen().await;
    let (mut user, forwarding) = forward(&served, port).await;
    let _program = within(listener.accept()).await.unwrap();
    served.node.gone.send_replace(true);
    assert!(is_reset(&mut user).await);
    let error = within(forwarding).await.unwrap().unwrap_err().to_string();
    assert!(error.ends_with(": the pod has ended"), "{error}");
}

type Kubelets = (WebSocketStream<UnixStream>, Response);

async fn connect(
    served: &Served,
    query: &str,
    protocols: &'static str,
) -> Result<Kubelets, tungstenite::Error> {
    let stream = UnixStream::connect(served.client.socket()).await.unwrap();
    let path = format!("ws://localhost/portForward/default/web{query}");
    let mut request = path.into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
    client_async(request, stream).await
}

/// The next message.
async fn next(socket: &mut WebSocketStream<UnixStream>) -> Vec<u8> {
    loop {
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Binary(data) => return data.into(),
            Message::Close(_) => return Vec::new(),
            _ => {}
        }
    }
}

/// Another client than ours, with several ports on one connection.
#[tokio::test]
async fn v4_is_spoken_as_the_kubelet_speaks_it() {
    let served = served();
    let (listener, port) = listen().await;
    let (gone, dead) = listen().await;
    drop(gone);
    let (mut socket, response) =
        connect(&served, &format!("?port={port}&port={dead}"), "v4.channel.k8s.io").await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "v4.channel.k8s.io");
    let (mut program, _) = within(listener.accept()).await.unwrap();
    let mut first = vec![Vec::new(); 4];
    let mut failure = Vec::new();
    while failure.is_empty() || first.iter().any(Vec::is_empty) {
        let message = next(&mut socket).await;
        let of_channel = &mut first[usize::from(message[0])];
        if of_channel.is_empty() { *of_channel = message[1..].to_vec() } else { failure = message }
    }
    let [low, high] = port.to_le_bytes();
    let [dead_low, dead_high] = dead.to_le_bytes();
    assert_eq!(
        first,
        [vec![low, high], vec![low, high], vec![dead_low, dead_high], vec![dead_low, dead_high]]
    );
    assert_eq!(failure[0], 3, "the second port's channel for errors");
    assert!(String::from_utf8_lossy(&failure).contains("Connection refused"));

    // The port that cannot be reached disturbs the other one in nothing.
    socket.send(Message::Binary(b"\0hello".to_vec().into())).await.unwrap();
    // Neither is an error: there are no such channels, and without v5 none for an end.
    socket.send(Message::Binary(b"\x09x".to_vec().into())).await.unwrap();
    socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    socket.send(Message::Binary(b"\0 again".to_vec().into())).await.unwrap();
    let mut text = [0; 11];
    within(program.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"hello again");
    program.write_all(b"bye").await.unwrap();
    drop(program);
    assert_eq!(next(&mut socket).await, b"\0bye");
    assert_eq!(next(&mut socket).await, b"", "the end of one direction is the end");
}

#[tokio::test]
async fn spdy_is_refused_by_name() {
    let served = served();
    for (protocols, query, expected) in [
        ("SPDY/3.1+portforward.k8s.io", "?port=80", "offers SPDY/3.1+portforward.k8s.io"),
        ("v4.channel.k8s.io", "", "query parameter \\\"port\\\" is required"),
    ] {
        match connect(&served, query, protocols).await {
            Err(tungstenite::Error::Http(response)) => {
                let body =
                    String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
                assert_eq!(response.status(), 400, "{body}");
                assert!(body.contains(expected), "{body}");
            }
            other => panic!("{other:?}"),
        }
    }
}
