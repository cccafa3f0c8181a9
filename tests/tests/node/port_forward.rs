//! `coracle port-forward`.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_tests::images::NGINX;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::network::connect_from;
use coracle_tests::node::Node;
use coracle_tests::processes::{self, descendants};
use coracle_tests::wait::{SOON, wait_for, wait_until};
use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A forward under way.
struct Forwarding<'a> {
    node: &'a Node,
    entry: Child,
    output: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
}

impl<'a> Forwarding<'a> {
    /// Starts one and waits until it listens with so many sockets.
    fn start(node: &'a Node, arguments: &[&str], sockets: usize) -> Self {
        let mut command = node.command(&[&["port-forward"], arguments].concat());
        let mut entry = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = collect(entry.stdout.take().unwrap());
        let errors = collect(entry.stderr.take().unwrap());
        let forwarding = Self { node, entry, output, errors };
        wait_until("the forward to listen", SOON, || forwarding.listening().len() == sockets);
        forwarding
    }

    /// Where it listens, and the port in the pod, in the order it says so.
    fn listening(&self) -> Vec<(SocketAddr, u16)> {
        let output = self.output.lock().unwrap();
        let lines =
            output.lines().filter_map(|line| line.strip_prefix("Forwarding from ")?.split_once(" -> "));
        lines.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())).collect()
    }

    fn connect(&self, at: SocketAddr) -> TcpStream {
        connect_from(self.node.machine().init(), at).unwrap()
    }

    /// What it reported as gone wrong.
    fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    fn interrupt(&self) {
        let below = descendants(self.entry.id().cast_signed());
        let coracle = below.into_iter().find(|pid| processes::name(*pid) == "coracle");
        processes::signal(coracle.expect("the forward runs"), Signal::INT);
    }

    fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for("the forward to end", SOON, || self.entry.try_wait().unwrap());
        (status, self.errors())
    }
}

/// What comes out of a stream, as it comes.
fn collect(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collected = Arc::clone(&text);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let mut text = collected.lock().unwrap();
            text.push_str(&line.unwrap());
            text.push('\n');
        }
    });
    text
}

/// A pod of nginx that listens as its directives say, and answers with its page.
fn nginx(node: &Node, name: &str, listen: &str, page: &str) -> Value {
    let directory = node.path(name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("index.html"), page).unwrap();
    let config = format!(
        "user www-data;\nworker_processes 1;\npid /run/nginx.pid;\nerror_log /dev/stderr notice;\n\
         events {{ worker_connections 512; }}\nhttp {{ access_log off; server {{ {listen} root /data; }} }}\n"
    );
    fs::write(directory.join("nginx.conf"), config).unwrap();
    let container =
        json!({"name": "nginx", "image": NGINX, "args": ["-c", "/data/nginx.conf", "-g", "daemon off;"]});
    with_host_path(pod(name, vec![container]), "data", &directory, "/data")
}

/// Asks for the page; `None` where the connection breaks.
fn get(mut stream: TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn node_with_nginx() -> Node {
    let node = Node::start();
    node.import("nginx", NGINX);
    node
}

#[test]
fn a_thousand_connections_and_their_resets_do_not_end_the_forward() {
    needs_root!();
    const CONNECTIONS: usize = 1000;
    let node = node_with_nginx();
    node.run(&nginx(&node, "web", "listen 80;", "the page"));
    node.wait_running("web");
    let forward = Forwarding::start(&node, &["web", ":80", ":81"], 4);
    let [(v4, _), (v6, _), (nobody, _), _] = forward.listening()[..] else { panic!() };
    assert_eq!((v4.ip(), v6.ip()), (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()));
    assert_eq!(v4.port(), v6.port(), "localhost is two addresses with one port");
    wait_until("nginx to listen", SOON, || {
        get(forward.connect(v4)).is_ok_and(|answer| answer.ends_with("the page"))
    });
    let before = processes::descriptors(node.agent_pid()).len();

    let number = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                loop {
                    match number.fetch_add(1, Ordering::Relaxed) {
                        CONNECTIONS.. => return,
                        // Broken off by the user, with the answer on its way.
                        n if n % 4 == 1 => {
                            let mut stream = forward.connect(v4);
                            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                        }
                        // Refused by the pod: the user sees a reset, and nothing more.
                        n if n % 4 == 2 => {
                            let ended = forward.connect(nobody).read(&mut [0; 1]);
                            assert!(matches!(&ended, Err(error) if error.kind() == io::ErrorKind::ConnectionReset), "{ended:?}");
                        }
                        n => {
                            let answer = get(forward.connect(if n % 4 == 0 { v4 } else { v6 })).unwrap();
                            assert!(answer.ends_with("\r\n\r\nthe page"), "{answer}");
                        }
                    }
                }
            });
        }
    });
    assert!(get(forward.connect(v4)).unwrap().ends_with("the page"), "it goes on");
    let errors = forward.errors();
    let refused = format!(
        "an error occurred forwarding {} -> 81: error forwarding port 81 to pod default/web",
        nobody.port()
    );
    assert_eq!(errors.matches(&refused).count(), CONNECTIONS / 4, "{errors}");
    assert!(errors.contains("IPv4: Connection refused"), "{errors}");
    wait_until("the agent to have let go of all connections", SOON, || {
        processes::descriptors(node.agent_pid()).len() <= before
    });
    forward.interrupt();
    assert!(forward.wait().0.success());
    node.finish();
}

#[test]
fn much_goes_both_ways_and_each_way_ends_alone() {
    needs_root!();
    const LENGTH: usize = 96 << 20;
    let node = Node::start();
    // Programs that see the end of their input, and only then answer; or that only write.
    let script =
        "nc -ll -p 1001 -e sha256sum & nc -ll -p 1002 -e seq 1 5000000 & nc -ll -p 1003 -e cat & wait";
    node.run(&pod("sums", vec![shell("c", script)]));
    node.wait_running("sums");
    let inside = "for n in 1001 1002 1003; do netstat -tln | grep -q \":$n \" || exit 1; done";
    wait_until("the programs to listen", SOON, || {
        node.coracle(&["exec", "sums", "--", "sh", "-c", inside]).code == 0
    });
    let forward = Forwarding::start(&node, &["--address", "127.0.0.1", "sums", ":1001", ":1002", ":1003"], 3);
    let [(sum, _), (count, _), (echo, _)] = forward.listening()[..] else { panic!() };

    let mut state = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(LENGTH)
    .collect();
    let file = node.path("bytes");
    fs::write(&file, &bytes).unwrap();
    let hash =
        std::process::Command::new("sha256sum").stdin(fs::File::open(&file).unwrap()).output().unwrap();
    let mut up = forward.connect(sum);
    up.write_all(&bytes).unwrap();
    up.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    up.read_to_end(&mut answer).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), String::from_utf8(hash.stdout).unwrap());

    let mut expected = 1..=5_000_000;
    for line in BufReader::new(forward.connect(count)).lines() {
        assert_eq!(line.unwrap().parse().ok(), expected.next());
    }
    assert_eq!(expected.next(), None, "all of it came");

    let mut both = forward.connect(echo);
    let mut writing = both.try_clone().unwrap();
    let mut echoed = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writing.write_all(&bytes).unwrap();
            writing.shutdown(Shutdown::Write).unwrap();
        });
        both.read_to_end(&mut echoed).unwrap();
    });
    assert!(echoed == bytes, "what came back is what was sent");
    assert_eq!(forward.errors(), "");
    forward.interrupt();
    assert!(forward.wait().0.success());
    node.finish();
}

#[test]
fn ports_of_either_family_and_of_the_hosts_network_are_reached() {
    needs_root!();
    let node = node_with_nginx();
    node.run(&nginx(&node, "six", "listen [::1]:80 ipv6only=on;", "by IPv6"));
    let host = nginx(&node, "host", "listen 127.0.0.1:8099;", "of the host");
    node.run(&with(host, "spec.hostNetwork", json!(true)));
    node.wait_running("six");
    node.wait_running("host");
    for (name, port, page) in [("six", "80", "by IPv6"), ("host", "8099", "of the host")] {
        let forward = Forwarding::start(&node, &["--address=127.0.0.1", name, &format!(":{port}")], 1);
        let (at, _) = forward.listening()[0];
        wait_until("nginx to answer", SOON, || {
            get(forward.connect(at)).is_ok_and(|answer| answer.ends_with(page))
        });
        forward.interrupt();
        assert!(forward.wait().0.success());
    }
    // The same port of the other pod's loopback is another.
    let forward = Forwarding::start(&node, &["--address=127.0.0.1", "six", ":8099"], 1);
    assert!(get(forward.connect(forward.listening()[0].0)).is_err());
    drop(forward);
    node.finish();
}

#[test]
fn a_forward_outlives_the_agent_and_ends_with_its_pod() {
    needs_root!();
    let mut node = node_with_nginx();
    let ports = json!([{"name": "http", "containerPort": 80}]);
    let web = nginx(&node, "web", "listen 80;", "the page");
    node.run(&with(web, "spec.containers.0.ports", ports));
    node.wait_running("web");
    // Of another process of the test, so that the node can be changed meanwhile.
    let mut command = node.command(&["port-forward", "--address=127.0.0.1", "pod/web", "8123:http"]);
    let mut entry = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = collect(entry.stdout.take().unwrap());
    let errors = collect(entry.stderr.take().unwrap());
    wait_until("the forward to listen", SOON, || {
        *output.lock().unwrap() == "Forwarding from 127.0.0.1:8123 -> 80\n"
    });
    let at: SocketAddr = (Ipv4Addr::LOCALHOST, 8123).into();
    let answers = |node: &Node| {
        connect_from(node.machine().init(), at).and_then(get).is_ok_and(|answer| answer.ends_with("the page"))
    };
    wait_until("nginx to answer", SOON, || answers(&node));

    let mut open = connect_from(node.machine().init(), at).unwrap();
    open.write_all(b"GET / HTTP/1.0\r\n").unwrap();
    wait_until("the connection to be made", SOON, || output.lock().unwrap().matches("Handling").count() >= 2);
    node.kill_agent();
    assert!(open.read(&mut [0; 1]).is_err(), "a connection ends with the agent it went through");
    assert!(!answers(&node));
    assert!(entry.try_wait().unwrap().is_none(), "the forward does not");
    node.start_agent();
    wait_until("the next agent to forward", SOON, || answers(&node));

    let _open = connect_from(node.machine().init(), at).unwrap();
    node.remove("web");
    node.wait_gone("web");
    let status = wait_for("the forward to end", SOON, || entry.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    let errors = errors.lock().unwrap().clone();
    assert!(errors.ends_with("error: lost connection to pod\n"), "{errors}");
    node.finish();
}

#[test]
fn what_cannot_be_forwarded_is_said() {
    needs_root!();
    let node = Node::start();
    let done = with(pod("done", vec![shell("c", "true")]), "spec.restartPolicy", json!("Never"));
    node.run(&done);
    node.run(&pod("idle", vec![idle("c")]));
    node.wait_phase("done", "Succeeded");
    node.wait_running("idle");
    let forward = Forwarding::start(&node, &["--address=127.0.0.1", "idle", ":80"], 1);
    let taken = forward.listening()[0].0.port();
    let taken_by = format!("{taken}:80");
    for (arguments, message) in [
        (&["none", "80"][..], "Error from server (NotFound): pods \"none\" not found"),
        (
            &["done", "80"],
            "error: unable to forward port because pod is not running. Current status=Succeeded",
        ),
        (&["idle", "80:http"], "error: Pod 'idle' does not have a named port 'http'"),
        (&["--address", "nowhere", "idle", "80"], "error: nowhere is not a valid IP"),
        (
            &["--address", "127.0.0.1", "idle", &taken_by],
            "error: unable to listen on any of the requested ports",
        ),
    ] {
        let answer = node.coracle(&[&["port-forward"], arguments].concat());
        assert_eq!(answer.code, 1, "{}", answer.stderr);
        assert!(answer.stderr.contains(message), "{}", answer.stderr);
    }
    forward.interrupt();
    assert!(forward.wait().0.success());
    node.finish();
}
