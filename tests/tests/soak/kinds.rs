//! The pods of the soak.
//!
//! Every container notes each run of its own on the host once it can be told to end, and ends as it is told:
//! SIGUSR1 with code 7, SIGUSR2 and SIGTERM with 0. Liveness looks for a file, which the test takes away.

use std::path::Path;

use coracle_tests::manifests::{pod, shell, with, with_shared};
use serde_json::{Value, json};

use crate::images::OF_PODS;
use crate::model::{Member, Pod, Policy, Role};

/// How many kinds of pods there are.
pub(crate) const KINDS: usize = 10;

/// The file in a container without which its liveness probe fails.
pub(crate) const ALIVE: &str = "tmp/www/alive";

/// Every `index`-th pod is of the same kind. `ran`: the directory where runs are noted.
pub(crate) fn make(index: usize, name: &str, ran: &Path) -> (Pod, Value) {
    use Policy::{Always, Never, OnFailure};
    let app = |container: &'static str, policy| Member::new(container, Role::App, policy);
    let web = |container: &str, port: u16| serving(name, container, port);
    let (policy, members, manifest) = match index % KINDS {
        0 => {
            let c = probed(web("c", 8080), &["startup", "liveness", "readiness"], &http(8080));
            (Always, vec![app("c", Always)], pod(name, vec![c]))
        }
        1 => {
            let c = probed(web("c", 8080), &["liveness", "readiness"], &exec());
            let c = with(with(c, "image", json!(OF_PODS)), "imagePullPolicy", json!("Always"));
            (Always, vec![app("c", Always)], pod(name, vec![c]))
        }
        2 => {
            let c = probed(web("c", 8080), &["liveness"], &http(8080));
            let c = probed(c, &["readiness"], &json!({"tcpSocket": {"port": 8080}}));
            (OnFailure, vec![app("c", OnFailure)], pod(name, vec![c]))
        }
        3 => {
            let c = probed(web("c", 8080), &["liveness", "readiness"], &http(8080));
            (Never, vec![app("c", Never)], pod(name, vec![c]))
        }
        4 => {
            let a = probed(web("a", 8080), &["liveness", "readiness"], &http(8080));
            let b = probed(web("b", 8081), &["startup", "liveness"], &exec());
            (Always, vec![app("a", Always), app("b", Always)], pod(name, vec![a, b]))
        }
        5 => {
            let a = probed(web("a", 8080), &["liveness"], &http(8080));
            let b =
                with(probed(web("b", 8081), &["readiness"], &http(8081)), "restartPolicy", json!("Always"));
            (OnFailure, vec![app("a", OnFailure), app("b", Always)], pod(name, vec![a, b]))
        }
        6 => {
            let sidecar = probed(web("proxy", 8081), &["startup", "liveness"], &http(8081));
            let init = json!([
                shell("first", &format!("echo run >> /ran/{name}.first")),
                with(sidecar, "restartPolicy", json!("Always")),
            ]);
            let c = probed(web("c", 8080), &["readiness"], &http(8080));
            let manifest = with(pod(name, vec![c]), "spec.initContainers", init);
            let first = Member::new("first", Role::Init, OnFailure);
            let proxy = Member::new("proxy", Role::Sidecar, Always);
            (OnFailure, vec![first, proxy, app("c", OnFailure)], manifest)
        }
        7 => {
            let a = probed(web("a", 8080), &["liveness", "readiness"], &http(8080));
            let b = probed(web("b", 8081), &["liveness"], &http(8081));
            let manifest = with(pod(name, vec![a, b]), "spec.shareProcessNamespace", json!(true));
            (Always, vec![app("a", Always), app("b", Always)], manifest)
        }
        8 => {
            let c = with(probed(web("c", 8080), &["liveness"], &http(8080)), "tty", json!(true));
            let c = with(c, "volumeMounts", json!([{"name": "memory", "mountPath": "/memory"}]));
            let manifest = with(
                pod(name, vec![c]),
                "spec.volumes",
                json!([{"name": "memory", "emptyDir": {"medium": "Memory"}}]),
            );
            (Never, vec![app("c", Never)], manifest)
        }
        _ => {
            let hangs = json!({"exec": {"command": ["/bin/sh", "-c", "sleep 1000 & sleep 1000"]}});
            let c = probed(web("c", 8080), &["liveness"], &http(8080));
            let c = with(probed(c, &["readiness"], &hangs), "readinessProbe.timeoutSeconds", json!(1));
            (Always, vec![Member { ready: false, ..app("c", Always) }], pod(name, vec![c]))
        }
    };
    let manifest = with(manifest, "spec.restartPolicy", json!(policy.as_str()));
    let manifest = with_shared(manifest, "ran", ran, "/ran");
    (Pod::new(index, name, members), manifest)
}

fn serving(pod: &str, container: &str, port: u16) -> Value {
    let script = format!(
        "trap 'exit 7' USR1; trap 'exit 0' USR2 TERM; mkdir -p /tmp/www; touch /{ALIVE}; \
         httpd -p {port} -h /tmp/www; echo run >> /ran/{pod}.{container}; \
         while :; do sleep 3600 & wait $!; done"
    );
    shell(container, &script)
}

fn http(port: u16) -> Value {
    json!({"httpGet": {"port": port, "path": "/alive"}})
}

fn exec() -> Value {
    json!({"exec": {"command": ["test", "-e", format!("/{ALIVE}")]}})
}

/// A busy machine does not fail these: only a file that is not there does, or a program that does not end.
fn probed(container: Value, kinds: &[&str], handler: &Value) -> Value {
    kinds.iter().fold(container, |container, kind| {
        let mut probe = handler.clone();
        probe["periodSeconds"] = json!(3);
        probe["timeoutSeconds"] = json!(20);
        probe["failureThreshold"] = json!(if *kind == "startup" { 30 } else { 3 });
        with(container, &format!("{kind}Probe"), probe)
    })
}
