//! Mounts, variables and groups.

use std::fs;

use coracle_model::EditMount;
use coracle_sandbox::ExecUser;

use super::{KINDS, place, said};
use crate::takeover::place::Kind;

fn mount(host: &std::path::Path, container: &str, options: &[&str]) -> EditMount {
    EditMount {
        host_path: host.to_str().unwrap().to_owned(),
        container_path: container.to_owned(),
        fs_type: String::new(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

#[tokio::test]
async fn files_and_directories_of_the_host_are_where_and_as_they_were_given() {
    let script = "cat() { /bin/busybox cat $*; }; cat /usr/lib/there/is/none/lib.so; (echo x >/usr/lib/there/is/none/lib.so) \
                  2>&1 | /bin/busybox sed 's/.*: //'; cat /data/in; echo new >/data/new; \
                  /bin/busybox grep -c ' /data .*nosuid' /proc/self/mountinfo; \
                  /bin/busybox grep -c ' /scratch .* - tmpfs' /proc/self/mountinfo";
    for kind in KINDS {
        let Some(mut owned) = place(kind, script) else { continue };
        let out = owned.place.out();
        fs::write(out.join("lib.so"), "library\n").unwrap();
        fs::create_dir(out.join("data")).unwrap();
        fs::write(out.join("data/in"), "inside\n").unwrap();
        owned.place.edits.mounts = vec![
            mount(
                &out.join("lib.so"),
                "/usr/lib/there/is/none/lib.so",
                &["ro", "nosuid", "nodev", "rbind", "rprivate"],
            ),
            mount(&out.join("data"), "/data", &["bind", "nosuid"]),
            EditMount { fs_type: "tmpfs".to_owned(), ..mount("tmpfs".as_ref(), "/scratch", &["size=64k"]) },
        ];
        assert_eq!(said(&owned).await, ["library", "Read-only file system", "inside", "1", "1"], "{kind:?}");
        assert_eq!(fs::read_to_string(out.join("data/new")).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(out.join("lib.so")).unwrap(), "library\n");
    }
}

#[tokio::test]
async fn a_devices_variables_and_groups_are_the_containers() {
    let script = "echo $GPU $PATH; /bin/busybox id -G";
    let Some(mut owned) = place(Kind::Plain, script) else { return };
    owned.place.user = ExecUser { uid: 1000, gid: 1000, additional_gids: vec![20] };
    owned.place.edits.env = vec![("GPU".to_owned(), "0".to_owned()), ("PATH".to_owned(), "/mine".to_owned())];
    owned.place.edits.additional_gids = vec![44, 0, 20];
    assert_eq!(said(&owned).await, ["0 /mine", "1000 20 44"]);
}
