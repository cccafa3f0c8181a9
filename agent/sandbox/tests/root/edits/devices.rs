//! Device nodes: made as they are given, and opened as far as they are given.

use std::os::unix::fs::symlink;

use coracle_model::{DeviceNode, DeviceNumbers};

use super::{KINDS, place, said};
use crate::takeover::place::{Kind, Owned};

/// A major number for local use (Documentation/admin-guide/devices.txt), so that no driver is behind it: to open such a
/// device ends with ENXIO where the filter lets it pass, and else with EPERM, on any machine.
const LOCAL: u32 = 240;

fn node(path: &str, letter: char, minor: u32, permissions: &str) -> DeviceNode {
    DeviceNode {
        path: path.to_owned(),
        host_path: String::new(),
        kind: Some(DeviceNumbers { letter, numbers: Some((LOCAL, minor)) }),
        permissions: permissions.to_owned(),
        file_mode: Some(0o640),
        uid: Some(7),
        gid: Some(9),
        is_users: false,
    }
}

/// Tries to read and to write each of the paths.
fn attempts(paths: &str) -> String {
    format!(
        "try() {{ case \"$(eval \"$1\" 2>&1)\" in *'No such device'*) echo $2 passes;; *'not permitted'*) echo $2 denied;; \
         *) echo $2 opens;; esac; }}; \
         for d in {paths}; do try \": <$d\" \"$d r\"; try \": >>$d\" \"$d w\"; try \": <>$d\" \"$d rw\"; done"
    )
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn given() -> Vec<DeviceNode> {
    vec![
        node("/dev/both", 'c', 1, "rw"),
        node("/dev/sub/reads", 'c', 2, "r"),
        node("/dev/writes", 'u', 3, "w"),
        node("/dev/block", 'b', 1, "r"),
        node("/dev/none", 'c', 4, ""),
    ]
}

#[tokio::test]
async fn a_container_opens_what_it_was_given_as_it_was_given_and_nothing_else() {
    // The last two it makes itself: another device, and one of the other kind with numbers it was given.
    let script = format!(
        "busybox=/bin/busybox; $busybox mknod /dev/other c {LOCAL} 9; $busybox mknod /dev/alike b {LOCAL} 2; {}",
        attempts("/dev/both /dev/sub/reads /dev/writes /dev/block /dev/none /dev/other /dev/alike /dev/null")
    );
    for kind in KINDS {
        let Some(mut owned) = place(kind, &script) else { continue };
        owned.place.edits.device_nodes = given();
        let expected = lines(
            "/dev/both r passes
             /dev/both w passes
             /dev/both rw passes
             /dev/sub/reads r passes
             /dev/sub/reads w denied
             /dev/sub/reads rw denied
             /dev/writes r denied
             /dev/writes w passes
             /dev/writes rw denied
             /dev/block r passes
             /dev/block w denied
             /dev/block rw denied
             /dev/none r denied
             /dev/none w denied
             /dev/none rw denied
             /dev/other r denied
             /dev/other w denied
             /dev/other rw denied
             /dev/alike r denied
             /dev/alike w denied
             /dev/alike rw denied
             /dev/null r opens
             /dev/null w opens
             /dev/null rw opens",
        );
        assert_eq!(said(&owned).await, expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_privileged_container_gets_the_node_and_keeps_every_device() {
    let script =
        format!("/bin/busybox mknod /dev/other c {LOCAL} 9; {}", attempts("/dev/sub/reads /dev/other"));
    for kind in [Kind::Plain, Kind::Legacy] {
        let Some(mut owned) = place(kind, &script) else { continue };
        owned.place.privileged = true;
        owned.place.edits.device_nodes = given();
        let said = said(&owned).await;
        assert_eq!(said.len(), 6);
        assert!(said.iter().all(|line| line.ends_with(" passes")), "{kind:?}: {said:#?}");
    }
}

#[tokio::test]
async fn nodes_are_what_was_said_of_them_and_else_what_the_host_has() {
    let script = "cd /dev; /bin/busybox stat -c '%n %F %t:%T %a %u:%g' both sub/reads block pipe mine";
    let Some(mut owned) = place(Kind::Plain, script) else { return };
    // A link of the host; where it leads counts.
    let link = owned.place.out().join("link");
    symlink("/dev/zero", &link).unwrap();
    owned.place.edits.device_nodes = given();
    owned.place.edits.device_nodes.push(DeviceNode {
        kind: Some(DeviceNumbers { letter: 'p', numbers: None }),
        ..node("/dev/pipe", 'p', 0, "rw")
    });
    owned.place.edits.device_nodes.push(DeviceNode {
        host_path: link.to_str().unwrap().to_owned(),
        kind: None,
        file_mode: None,
        uid: None,
        gid: None,
        ..node("/dev/mine", 'c', 0, "r")
    });
    let expected = lines(
        "both character special file f0:1 640 7:9
         sub/reads character special file f0:2 640 7:9
         block block special file f0:1 640 7:9
         pipe fifo 0:0 640 7:9
         mine character special file 1:5 666 0:0",
    );
    assert_eq!(said(&owned).await, expected);
}

#[tokio::test]
async fn a_node_elsewhere_is_what_one_in_dev_is() {
    let script = format!(
        "/bin/busybox stat -c '%n %F %t:%T %a %u:%g' /opt/vendor/reads; [ -e /dev/elsewhere ] || echo no other; \
         {}",
        attempts("/opt/vendor/reads /srv/writes")
    );
    for kind in KINDS {
        let Some(mut owned) = place(kind, &script) else { continue };
        owned.place.edits.device_nodes =
            vec![node("/opt/vendor/reads", 'c', 2, "r"), node("/srv/writes", 'c', 3, "w")];
        let expected = lines(
            "/opt/vendor/reads character special file f0:2 640 7:9
             no other
             /opt/vendor/reads r passes
             /opt/vendor/reads w denied
             /opt/vendor/reads rw denied
             /srv/writes r denied
             /srv/writes w passes
             /srv/writes rw denied",
        );
        assert_eq!(said(&owned).await, expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_device_that_is_not_there_keeps_the_container_from_being_created_and_leaves_nothing() {
    let owned = Owned::new(Kind::Plain).unwrap();
    let place = &owned.place;
    let agent = place.agent().await;
    agent.runtime.ensure_sandbox(&place.pod()).await.unwrap();
    let mut request = place.request();
    request.edits.device_nodes =
        vec![DeviceNode { kind: None, ..node("/dev/there-is-no-such", 'c', 0, "r") }];
    let error = agent.runtime.create_container(request).await.unwrap_err().to_string();
    assert!(error.contains("/dev/there-is-no-such") && error.contains("does not exist"), "{error}");
    agent.remove(place).await;
}
