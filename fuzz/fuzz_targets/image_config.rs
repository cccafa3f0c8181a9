//! Any bytes as an image's configuration: an error, or a process whose parts are what they say.

#![no_main]

use std::os::fd::AsFd;

use coracle_image::{ImageDocument, effective_process, resolve_user, verify_non_root};
use coracle_model::{Container, Name, Pod, PodKey, PodSpec};
use libfuzzer_sys::fuzz_target;

fn pod() -> Pod {
    let name = || Name::label("fuzz").unwrap();
    let mut container = Container { tty: true, ..Container::new(name(), "fuzz") };
    container.security.run_as_non_root = Some(true);
    Pod {
        uid: "fuzz".parse().unwrap(),
        key: PodKey { namespace: name(), name: name() },
        labels: Default::default(),
        annotations: Default::default(),
        spec: PodSpec::new(vec![container]),
        object: String::new(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = serde_json::from_slice::<ImageDocument>(bytes) else { return };
    let pod = pod();
    let container = &pod.spec.containers[0];
    if let Ok(process) = effective_process(container, &[], &document.config, "host") {
        assert!(!process.args[0].is_empty() && process.cwd.starts_with('/'));
        let mut names: Vec<_> = process.env.iter().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
    // Whom runAsNonRoot lets through is not root.
    if verify_non_root(&pod, container, &document.config.user).is_ok() {
        let empty = std::fs::File::open("/proc/self/fdinfo").unwrap();
        if let Ok(user) = resolve_user(empty.as_fd(), &pod, container, &document.config.user) {
            assert!(user.uid != 0 && user.uid <= i32::MAX as u32 && user.gid <= i32::MAX as u32);
        }
    }
});
