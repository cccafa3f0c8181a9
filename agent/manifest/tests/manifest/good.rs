//! Manifests that are accepted.

use std::net::IpAddr;

use coracle_manifest::{Decoded, decode};
use coracle_model::{
    DnsOption, DnsPolicy, EmptyDirMedium, EnvValue, ExtendedResource, HostPathType, ImagePullPolicy,
    MountPropagation, Name, QosClass, Quantity, RestartPolicy, SeccompProfile, VolumeSource, qos_class,
};

use super::one;

const TWO: &str = include_str!("good/two-containers.yaml");

#[test]
fn every_field_of_a_pod_reaches_the_model() {
    let pod = one(TWO);
    assert_eq!(pod.key.to_string(), "default/web");
    assert_eq!(pod.labels["app"], "web");
    assert_eq!(pod.annotations["kubernetes.io/config.source"], "file");
    assert_eq!(pod.spec.restart_policy, RestartPolicy::OnFailure);
    assert_eq!(pod.spec.termination_grace_period.as_secs(), 5);
    assert_eq!(pod.spec.image_pull_secrets, [Name::subdomain("registry.example").unwrap()]);
    assert_eq!(pod.spec.security.supplemental_groups, [2000, 3000]);
    assert_eq!(pod.spec.security.seccomp, Some(SeccompProfile::RuntimeDefault));
    assert_eq!(qos_class(&pod.spec), QosClass::Burstable);

    let server = pod.container("server").unwrap();
    assert_eq!(server.image_pull_policy, ImagePullPolicy::Always);
    assert_eq!(server.env[1].value, EnvValue::Literal("world".to_owned()));
    assert_eq!(server.resources.limits.cpu, Some(Quantity::from_milli(500)));
    assert_eq!(server.resources.requests.memory, Some(Quantity::from_units(32 << 20)));
    assert_eq!(server.security.allow_privilege_escalation, Some(false));
    assert_eq!(server.security.capabilities.add, ["NET_BIND_SERVICE"]);
    assert_eq!(server.volume_mounts[1].sub_path.as_deref(), Some("nginx/cache".as_ref()));

    let shell = pod.container("shell").unwrap();
    assert_eq!(shell.image_pull_policy, ImagePullPolicy::Never);
    assert!(shell.security.privileged && shell.stdin && shell.tty);
    assert_eq!(shell.volume_mounts[0].propagation, MountPropagation::Bidirectional);

    let volumes = &pod.spec.volumes;
    assert!(
        matches!(&volumes[0].source, VolumeSource::HostPath { path, kind: HostPathType::DirectoryOrCreate } if path.as_os_str() == "/data")
    );
    assert_eq!(
        volumes[1].source,
        VolumeSource::EmptyDir {
            medium: EmptyDirMedium::Memory,
            size_limit: Some(Quantity::from_units(16 << 20))
        }
    );
    assert_eq!(
        volumes[2].source,
        VolumeSource::EmptyDir { medium: EmptyDirMedium::Default, size_limit: None }
    );
}

#[test]
fn volumes_of_images_have_the_pull_policies_of_containers() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: main\n    image: i\n    \
                volumeMounts: [{name: a, mountPath: /a, subPath: x/y}]\n  volumes:\n\
                \x20 - {name: a, image: {reference: reg.example:5000/a}}\n\
                \x20 - {name: b, image: {reference: 'b:1'}}\n\
                \x20 - {name: c, image: {reference: 'c:latest', pullPolicy: Never}}\n";
    let pod = one(text);
    let sources = pod.spec.volumes.iter().map(|volume| match &volume.source {
        VolumeSource::Image { reference, pull_policy } => (reference.as_str(), *pull_policy),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        sources.collect::<Vec<_>>(),
        [
            ("reg.example:5000/a", ImagePullPolicy::Always),
            ("b:1", ImagePullPolicy::IfNotPresent),
            ("c:latest", ImagePullPolicy::Never),
        ]
    );
    let main = pod.container("main").unwrap();
    let mounted: Vec<_> = pod.image_volumes(main).map(|volume| volume.name.as_str()).collect();
    assert_eq!(mounted, ["a"]);
    assert!(pod.object.contains(r#""image":{"pullPolicy":"Always","reference":"reg.example:5000/a"}"#));
}

#[test]
fn how_a_pod_is_named() {
    let decoded = decode("names.yaml", include_bytes!("good/names.yaml")).unwrap();
    let [pod, overridden] = &decoded.pods[..] else { panic!("two pods: {decoded:?}") };
    let dns = &pod.spec.dns;
    assert_eq!(dns.policy, DnsPolicy::None);
    let nameservers: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    assert_eq!(dns.config.nameservers, nameservers);
    assert_eq!(dns.config.searches, ["lan", "."]);
    let option =
        |name: &str, value: Option<&str>| DnsOption { name: name.into(), value: value.map(Into::into) };
    assert_eq!(dns.config.options, [option("ndots", Some("1")), option("rotate", None)]);
    assert_eq!(dns.host_aliases[1].ip, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(dns.host_aliases[0].hostnames, ["a.example", "a"].map(|name| Name::subdomain(name).unwrap()));

    let sysctls: Vec<_> = pod.spec.security.sysctls.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(sysctls, [("net.ipv4.conf.eth0/1.rp_filter", "1"), ("net.ipv4.tcp_syncookies", "0")]);

    let names = pod.names("cluster.local").unwrap();
    assert_eq!((names.hostname.as_str(), names.kernel.as_str()), ("web", "web.db.shop.svc.cluster.local"));
    assert_eq!(names.domain.as_deref(), Some("db.shop.svc.cluster.local"));
    assert_eq!(pod.names("").unwrap().kernel, "web.db.shop.svc");
    let long = pod.names(&"x".repeat(49)).unwrap_err().to_string();
    assert!(long.ends_with(" is too long (64 characters is the max, 65 characters requested)"), "{long}");
    assert_eq!(pod.names(&"x".repeat(48)).unwrap().kernel.len(), 64);

    let names = overridden.names("cluster.local").unwrap();
    assert_eq!((names.hostname.as_str(), names.kernel.as_str()), ("its.own.name", "its.own.name"));
    assert_eq!((names.domain, overridden.spec.dns.policy), (None, DnsPolicy::ClusterFirst));
}

#[test]
fn a_uid_follows_content_and_source_and_nothing_else() {
    let decode_at = |source: &str, text: &str| decode(source, text.as_bytes()).unwrap().pods.remove(0).uid;
    let uid = decode_at("/m/web.yaml", TWO);
    assert_eq!(decode_at("/m/web.yaml", TWO), uid);
    assert_eq!(decode_at("/m/web.yaml", &format!("# a comment\n---\n{TWO}status:\n  phase: Running\n")), uid);
    assert_ne!(decode_at("/m/other.yaml", TWO), uid);
    assert_ne!(decode_at("/m/web.yaml", &TWO.replace("hello", "hallo")), uid);
    assert_ne!(decode_at("/m/web.yaml", &TWO.replace("name: web", "name: web2")), uid);
}

#[test]
fn a_static_pod_of_a_control_plane_is_accepted() {
    let pod = one(include_str!("good/static-etcd.yaml"));
    assert_eq!(pod.key.to_string(), "kube-system/etcd");
    assert!(pod.spec.host.network);
    assert_eq!(pod.spec.containers[0].ports[0].host_port, Some(2381));
    assert!(pod.object.contains("system-node-critical"), "what only a scheduler acts on is shown");
}

#[test]
fn a_pod_exported_from_a_cluster_is_accepted() {
    let pod = one(include_str!("good/exported.yaml"));
    assert_eq!(pod.uid.as_str(), "6f8e1f0c-8a53-4b6e-9a55-3d7f1c2b9a10");
    assert_eq!(pod.key.to_string(), "shop/web");
    let object: serde_json::Value = serde_json::from_str(&pod.object).unwrap();
    assert_eq!(object["metadata"]["generation"], 3);
    assert_eq!(object["spec"]["tolerations"][0]["tolerationSeconds"], 300);
    assert_eq!(object["metadata"].get("managedFields"), None);
    assert_eq!(object.get("status"), None);
}

#[test]
fn the_defaults_are_the_api_servers() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  hostNetwork: true\n  containers:\n  - name: c\n    image: i:1\n    ports: [{containerPort: 80}]\n    resources: {limits: {cpu: 1, memory: 1e6}}\n  volumes:\n  - {name: v}\n  - {name: h, hostPath: {path: /x}}\n";
    let pod = one(text);
    let mut object: serde_json::Value = serde_json::from_str(&pod.object).unwrap();
    // Derived from the text above.
    object["metadata"]["uid"] = "[uid]".into();
    object["metadata"]["annotations"]["kubernetes.io/config.hash"] = "[hash]".into();
    insta::assert_json_snapshot!("defaults", object);
    let container = &pod.spec.containers[0];
    assert_eq!(container.resources.requests, container.resources.limits);
    assert_eq!(container.image_pull_policy, ImagePullPolicy::IfNotPresent);
    assert_eq!(container.ports[0].host_port, Some(80));
    assert_eq!(pod.spec.termination_grace_period.as_secs(), 30);
    assert_eq!(pod.spec.restart_policy, RestartPolicy::Always);
    assert_eq!(pod.key.namespace, "default");
}

/// One pod, written in every way the formats allow.
#[test]
fn layout_does_not_matter() {
    let plain = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i, env: [{name: X, value: \"1\"}], tty: true}]}\n";
    let expected = one(plain);
    let json = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i","env":[{"name":"X","value":"1"}],"tty":true}]}}"#;
    for (form, text) in [
        ("json", json.to_owned()),
        ("json with tabs", json.replace(',', ",\n\t")),
        ("byte order mark", format!("\u{feff}{plain}")),
        ("crlf", plain.replace('\n', "\r\n")),
        ("no last newline", plain.trim_end().to_owned()),
        ("documents", format!("# nothing\n---\n---\n# nothing\n---\n{plain}...\n---\n")),
        ("kyaml", format!("---\n{}", json.replace(",\"spec", ", # comment\n\"spec"))),
        ("flow with a comment", json.replace(",\"spec", ", # comment\n\"spec")),
        ("yaml 1.1 booleans", plain.replace("true", "yes")),
        ("nulls", plain.replace("tty: true", "tty: true, args: null, resources: ~, ports:")),
        ("list", format!("apiVersion: v1\nkind: List\nitems: [{json}]\n")),
        (
            "typed list",
            format!(
                "kind: PodList\napiVersion: v1\nitems: [{}]",
                json.replace("\"kind\":\"Pod\",\"apiVersion\":\"v1\",", "")
            ),
        ),
        (
            "anchors",
            plain
                .replace("name: a}", "name: &n a}")
                .replace("spec: {", "spec: {hostname: *n, ")
                .replace("hostname: *n, ", ""),
        ),
        (
            "merge keys",
            plain.replace("[{name: c, image: i, env", "[{<<: {image: i, name: hidden}, name: c, env"),
        ),
    ] {
        let pod = one(&text);
        assert_eq!(pod.spec, expected.spec, "{form}");
        assert_eq!(pod.uid, expected.uid, "{form}");
    }
}

#[test]
fn a_manifest_may_be_empty() {
    for text in
        ["", "\n", "# only a comment\n", "---\n", "---\n---\n# x\n", "{}\n".trim_matches(|c| c != '\n')]
    {
        assert_eq!(decode("test.yaml", text.as_bytes()).unwrap(), Decoded::default(), "{text:?}");
    }
}

#[test]
fn numbers_are_read_as_kubectl_reads_them() {
    let pod = one(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  terminationGracePeriodSeconds: 0o17\n  securityContext: {runAsUser: 010, runAsGroup: 1_000, supplementalGroups: [0x10, 5.0]}\n  containers: [{name: c, image: i, resources: {limits: {cpu: 1.5, memory: 128974848}}}]\n",
    );
    assert_eq!(pod.spec.termination_grace_period.as_secs(), 15);
    assert_eq!(pod.spec.security.run_as_user, Some(8));
    assert_eq!(pod.spec.security.run_as_group, Some(1000));
    assert_eq!(pod.spec.security.supplemental_groups, [16, 5]);
    let limits = pod.spec.containers[0].resources.limits.clone();
    assert_eq!(
        (limits.cpu, limits.memory),
        (Some(Quantity::from_milli(1500)), Some(Quantity::from_units(128_974_848)))
    );
}

#[test]
fn init_containers_may_use_the_ports_of_those_that_come_later() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  hostNetwork: true\n  initContainers:\n  - {name: i, image: i, ports: [{containerPort: 80}]}\n  - {name: j, image: i, ports: [{containerPort: 80}]}\n  containers:\n  - {name: c, image: i, ports: [{containerPort: 80}]}\n";
    assert_eq!(one(text).spec.init_containers.len(), 2);
}

#[test]
fn devices_are_asked_for_by_limits_in_every_container_that_may() {
    let pod = one(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  initContainers:\n  - {name: i, image: i, resources: {limits: {example.com/gpu: '2'}}}\n  - {name: s, image: i, restartPolicy: Always, resources: {limits: {example.com/gpu: 1000m}}}\n  containers:\n  - {name: c, image: i, resources: {requests: {example.com/gpu: 3}, limits: {example.com/gpu: 3, example.com/none: 0}}}\n",
    );
    let asked = |container: &str| -> Vec<(String, u64)> {
        let extended = &pod.container(container).unwrap().resources.extended;
        extended.iter().map(|(resource, count)| (resource.to_string(), *count)).collect()
    };
    let gpus = |count| vec![("example.com/gpu".to_owned(), count)];
    assert_eq!((asked("i"), asked("s"), asked("c")), (gpus(2), gpus(1), gpus(3)));
    let gpu = ExtendedResource::new("example.com/gpu").unwrap();
    assert_eq!(pod.spec.extended_resources(), [(&gpu, 4)].into());
    // Devices make no class, and what is shown has the requests that follow from the limits.
    assert_eq!(qos_class(&pod.spec), QosClass::BestEffort);
    assert!(pod.object.contains(r#""requests":{"example.com/gpu":"2"}"#), "{}", pod.object);
}
