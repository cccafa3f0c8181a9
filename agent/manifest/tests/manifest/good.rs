//! Manifests that are accepted.

use coracle_manifest::decode;
use coracle_model::{
    EmptyDirMedium, HostPathType, ImagePullPolicy, MountPropagation, QosClass, Quantity, RestartPolicy,
    SeccompProfile, VolumeSource, qos_class,
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
    assert_eq!(pod.spec.security.supplemental_groups, [2000, 3000]);
    assert_eq!(pod.spec.security.seccomp, Some(SeccompProfile::RuntimeDefault));
    assert_eq!(qos_class(&pod.spec), QosClass::Burstable);

    let server = pod.container("server").unwrap();
    assert_eq!(server.image_pull_policy, ImagePullPolicy::Always);
    assert_eq!(server.env[1].value, "world");
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
fn a_uid_follows_content_and_source_and_nothing_else() {
    let decode_at = |source: &str, text: &str| decode(source, text.as_bytes()).unwrap().remove(0).pod.uid;
    let uid = decode_at("/m/web.yaml", TWO);
    assert_eq!(decode_at("/m/web.yaml", TWO), uid);
    assert_eq!(decode_at("/m/web.yaml", &format!("# a comment\n---\n{TWO}status:\n  phase: Running\n")), uid);
    assert_ne!(decode_at("/m/other.yaml", TWO), uid);
    assert_ne!(decode_at("/m/web.yaml", &TWO.replace("hello", "hallo")), uid);
    assert_ne!(decode_at("/m/web.yaml", &TWO.replace("name: web", "name: web2")), uid);
}
