//! What a configuration says, and what is wrong with one.

use super::*;

fn wrong(text: &str) -> Vec<String> {
    let faults = Config::decode(text.as_bytes(), "plugin.yaml").expect_err("it is wrong");
    faults.into_iter().map(|fault| fault.to_string()).collect()
}

#[test]
fn nothing_said_is_every_gpu_and_nothing_else() {
    for text in ["", "---\n", "{}", "resources: []"] {
        assert_eq!(Config::decode(text.as_bytes(), "x"), Ok(Config::default()), "{text:?}");
    }
}

#[test]
fn everything_said() {
    let text = "
resources:
- name: coracle.dev/fuse
  shares: 16
  devices:
  - paths:
    - path: /dev/fuse
- name: coracle.dev/serial
  devices:
  - paths:
    - path: /dev/ttyUSB*
      containerPath: /dev/serial*
      permissions: rwm
    - path: /dev/lock
      optional: true
  - paths:
    - path: /dev/ttyACM*
nvidia:
  migStrategy: mixed
  deviceListStrategy: device-specs
  ignoredXids: [13, 999]
  prepareDriver: false
  sharing:
    timeSlicing:
      renameByDefault: true
      failRequestsGreaterThanOne: true
      resources:
      - name: nvidia.com/gpu
        replicas: 4
amd: {enabled: false}
intel: {shares: 10}
";
    let config = Config::decode(text.as_bytes(), "x").expect("it is right");
    let names: Vec<_> =
        config.resources.iter().map(|it| (it.name.as_str(), it.shares, it.groups.len())).collect();
    assert_eq!(names, [("coracle.dev/fuse", 16, 1), ("coracle.dev/serial", 1, 2)]);
    let group = config.resources[1].groups.first().expect("a group");
    assert_eq!(group.first.container_path.as_deref(), Some("/dev/serial*"));
    assert_eq!((group.first.permissions.as_str(), group.first.optional), ("rwm", false));
    assert_eq!(
        group.rest.iter().map(|it| (it.permissions.as_str(), it.optional)).collect::<Vec<_>>(),
        [("rw", true)]
    );
    let sharing = TimeSlicing {
        rename_by_default: true,
        fail_requests_greater_than_one: true,
        replicas: vec![("nvidia.com/gpu".to_owned(), 4)],
    };
    let nvidia = Nvidia {
        enabled: true,
        mig: MigStrategy::Mixed,
        sharing,
        delivery: Delivery::DeviceSpecs,
        ignored_xids: [13, 999].into(),
        prepare: false,
    };
    assert_eq!(config.nvidia, nvidia);
    assert_eq!(config.amd, RenderNodes { enabled: false, shares: 1 });
    assert_eq!(config.intel, RenderNodes { enabled: true, shares: 10 });
}

#[test]
fn everything_wrong_is_told_at_once_with_its_place() {
    let text = "\
resources:
- name: fuse
  shares: 0
- name: a.b/c
  devices:
  - paths: []
  - paths:
    - path: dev/x
    - path: /dev/*
      permissions: rx
- name: a.b/c
  devices:
  - paths:
    - path: /dev/x*
      optional: true
      containerPath: /dev/../*
    - path: /dev/*y?
nvidia:
  migStrategy: some
  sharing: {timeSlicing: {resources: [{name: amd.com/gpu}]}}
intel: {share: 2}
";
    let found = wrong(text);
    let expected = [
        "plugin.yaml:2:9: resources[0].name: Invalid value: \"fuse\": must be <domain>/<name>, such as coracle.dev/fuse",
        "plugin.yaml:2:3: resources[0].devices: Required value: at least one device",
        "plugin.yaml:3:11: resources[0].shares: Invalid value: 0: must be between 1 and 4096, inclusive",
        "plugin.yaml:6:5: resources[1].devices[0].paths: Required value: at least one path",
        "plugin.yaml:8:13: resources[1].devices[1].paths[0].path: Invalid value: \"dev/x\": must be an absolute path",
        "plugin.yaml:10:20: resources[1].devices[1].paths[1].permissions: Invalid value: \"rx\": must be some of r, w and m, each once",
        "plugin.yaml:11:9: resources[2].name: Duplicate value: \"a.b/c\"",
        "plugin.yaml:15:17: resources[2].devices[0].paths[0].optional: Forbidden: the first path says whether the device is there",
        "plugin.yaml:16:22: resources[2].devices[0].paths[0].containerPath: Invalid value: \"/dev/../*\": must have no empty part, and no . or ..",
        "plugin.yaml:17:13: resources[2].devices[0].paths[1].path: Invalid value: \"/dev/*y?\": has 2 wildcards and the device's first path 1: what they match must be the same",
        "plugin.yaml:19:16: nvidia.migStrategy: Unsupported value: \"some\": supported values: \"mixed\", \"none\", \"single\"",
        "plugin.yaml:20:39: nvidia.sharing.timeSlicing.resources[0].replicas: Required value: in how many shares each device is offered",
        "plugin.yaml:20:46: nvidia.sharing.timeSlicing.resources[0].name: Invalid value: \"amd.com/gpu\": must be a resource of nvidia.com, such as nvidia.com/gpu",
        "plugin.yaml:21:9: intel.share: unknown field; did you mean \"shares\"?",
    ];
    let mut expected: Vec<_> = expected.into_iter().map(str::to_owned).collect();
    expected.sort();
    let mut found = found;
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_second_document_is_refused() {
    assert_eq!(wrong("amd: {}\n---\nintel: {}\n").len(), 1);
    assert_eq!(wrong("[]").len(), 1);
    assert_eq!(wrong("{").len(), 1);
}

#[test]
fn a_node_that_a_container_cannot_have_is_refused() {
    let config = |paths: &str| format!("resources: [{{name: a.b/c, devices: [{{paths: [{paths}]}}]}}]");
    assert_eq!(
        wrong(&config("{path: /sys/x}, {path: /dev/y, containerPath: /proc/y}")),
        [
            "plugin.yaml:1:46: resources[0].devices[0].paths[0].containerPath: Required value: a path that is not in /proc or /sys, where no device node can be made",
            "plugin.yaml:1:92: resources[0].devices[0].paths[1].containerPath: Invalid value: \"/proc/y\": must not be in /proc or /sys, where no device node can be made",
        ]
    );
    let moved = config("{path: /srv/x, containerPath: /dev/x}, {path: /dev/y, containerPath: /srv/y}");
    assert!(Config::decode(moved.as_bytes(), "plugin.yaml").is_ok());
}
