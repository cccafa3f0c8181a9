//! Probes, hooks, restart rules and what else a pod's life follows, as they reach the model.

use std::time::Duration;

use coracle_model::{
    FsGroupChangePolicy, Grpc, Handler, HttpGet, PortRef, Probe, Probes, RestartAction, RestartPolicy,
    RestartRule, Scheme, SupplementalGroupsPolicy, TcpSocket, TerminationMessagePolicy,
};

use super::{one, with_container};

const POD: &str = include_str!("good/lifecycle.yaml");

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A probe with the API server's defaults.
fn probe(handler: Handler) -> Probe {
    Probe {
        handler,
        initial_delay: seconds(0),
        timeout: seconds(1),
        period: seconds(10),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace_period: None,
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn probes() {
    let pod = one(POD);
    let http_get = HttpGet {
        host: Some("example.com".to_owned()),
        port: PortRef::Number(8443),
        path: "/healthz?full=1".to_owned(),
        scheme: Scheme::Https,
        headers: vec![("X-Probe".to_owned(), "a b".to_owned()), ("X-Probe".to_owned(), String::new())],
    };
    let tcp_socket = TcpSocket { host: Some("10.0.0.1".to_owned()), port: PortRef::Name("http".to_owned()) };
    let expected = Probes {
        startup: Some(Probe {
            failure_threshold: 30,
            period: seconds(2),
            ..probe(Handler::TcpSocket(tcp_socket))
        }),
        liveness: Some(Probe {
            initial_delay: seconds(3),
            timeout: seconds(4),
            period: seconds(5),
            failure_threshold: 6,
            termination_grace_period: Some(seconds(1)),
            ..probe(Handler::HttpGet(http_get))
        }),
        readiness: Some(Probe {
            success_threshold: 2,
            ..probe(Handler::Grpc(Grpc { port: 9090, service: "shop".to_owned() }))
        }),
    };
    let main = pod.container("main").unwrap();
    assert_eq!(main.probes, expected);
    assert_eq!(PortRef::Name("http".to_owned()).resolve(main), Some(8080));

    let other = pod.container("other").unwrap();
    let health = Handler::Grpc(Grpc { port: 1, service: String::new() });
    assert_eq!(other.probes, Probes { liveness: Some(probe(health)), ..Probes::default() });

    let side = pod.container("side").unwrap();
    let ready = probe(Handler::Exec(texts(&["cat", "/ready"])));
    assert_eq!(side.probes, Probes { startup: Some(ready), ..Probes::default() });
    assert!(pod.container("setup").unwrap().probes.is_empty());
}

#[test]
fn hooks_and_stop_signals() {
    let pod = one(POD);
    let http_get = HttpGet {
        host: None,
        port: PortRef::Name("http".to_owned()),
        path: "/".to_owned(),
        scheme: Scheme::Http,
        headers: Vec::new(),
    };
    let main = &pod.container("main").unwrap().lifecycle;
    assert_eq!(main.post_start, Some(Handler::HttpGet(http_get)));
    assert_eq!(main.pre_stop, Some(Handler::Exec(texts(&["sh", "-c", "exit 0"]))));
    assert_eq!(main.stop_signal.unwrap().number(), 10);
    let other = &pod.container("other").unwrap().lifecycle;
    assert_eq!(other.post_start, Some(Handler::Sleep(seconds(20))));
    let tcp_socket = TcpSocket { host: None, port: PortRef::Number(65535) };
    assert_eq!(other.pre_stop, Some(Handler::TcpSocket(tcp_socket)));
    assert_eq!(other.stop_signal, None);
    let side = &pod.container("side").unwrap().lifecycle;
    assert_eq!(side.pre_stop, Some(Handler::Sleep(Duration::ZERO)));
}

#[test]
fn restart_policies_and_rules() {
    let pod = one(POD);
    let container = |name| pod.container(name).unwrap();
    assert_eq!(container("setup").restart_policy, Some(RestartPolicy::Never));
    assert_eq!(
        container("setup").restart_rules,
        [RestartRule { action: RestartAction::Restart, among: true, exit_codes: vec![42, 43] }]
    );
    assert_eq!(container("side").restart_policy, Some(RestartPolicy::Always));
    assert_eq!(container("main").restart_policy, Some(RestartPolicy::OnFailure));
    assert_eq!(
        container("main").restart_rules,
        [
            RestartRule { action: RestartAction::RestartAllContainers, among: false, exit_codes: vec![0, 1] },
            RestartRule { action: RestartAction::Restart, among: true, exit_codes: vec![] },
        ]
    );
    assert_eq!(container("other").restart_policy, None);
}

#[test]
fn what_is_said_of_the_pod_as_a_whole() {
    let pod = one(POD);
    assert_eq!(pod.spec.active_deadline, Some(seconds(600)));
    assert_eq!(pod.spec.readiness_gates, ["example.com/Synced"]);
    assert_eq!(pod.spec.priority, 2_000_000_000);
    assert_eq!(pod.spec.service_account, "builder");
    assert_eq!(pod.spec.security.fs_group, Some(1234));
    assert_eq!(pod.spec.security.fs_group_change_policy, FsGroupChangePolicy::OnRootMismatch);
    assert_eq!(pod.spec.security.supplemental_groups_policy, SupplementalGroupsPolicy::Strict);
    let main = pod.container("main").unwrap();
    assert_eq!(main.termination_message_path, "/run/message");
    assert_eq!(main.termination_message_policy, TerminationMessagePolicy::FallbackToLogsOnError);

    let object: serde_json::Value = serde_json::from_str(&pod.object).unwrap();
    assert_eq!(object["spec"]["priority"], 2_000_000_000);
    assert_eq!(object["spec"]["serviceAccountName"], "builder");
}

#[test]
fn the_priority_follows_the_class() {
    for (fields, priority) in [
        ("", 0),
        ("priority: 5", 5),
        ("priority: -5", -5),
        ("priorityClassName: system-node-critical", 2_000_001_000),
        ("priorityClassName: system-node-critical, priority: 2000001000", 2_000_001_000),
        ("priorityClassName: high, priority: 1000", 1000),
        ("priorityClassName: ''", 0),
    ] {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{containers: [{{name: c, image: i}}], {fields}}}}}"
        );
        assert_eq!(one(&text).spec.priority, priority, "{fields}");
    }
}

/// What the API server shows of a pod that leaves out everything it can.
#[test]
fn the_defaults_of_probes_are_the_api_servers() {
    let pod = one(&with_container("livenessProbe: {httpGet: {port: 80}}, readinessProbe: {grpc: {port: 1}}"));
    let object: serde_json::Value = serde_json::from_str(&pod.object).unwrap();
    let container = &object["spec"]["containers"][0];
    assert_eq!(
        container["livenessProbe"],
        serde_json::json!({
            "httpGet": { "path": "/", "port": 80, "scheme": "HTTP" },
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3
        })
    );
    assert_eq!(container["readinessProbe"]["grpc"], serde_json::json!({ "port": 1, "service": "" }));
}
