//! What a container looks like from inside.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use crate::harness::{Image, Recipe};

fn run(script: &str) -> String {
    let image = Image::new();
    Recipe::new(&image, script).run().unwrap()
}

#[test]
fn the_program_runs_as_pid_1_with_nothing_but_its_own() {
    let output = run("echo $$; pwd; echo $GREETING; echo $HOME; ls /proc/self/fd; echo /proc/[0-9]*");
    // ls itself has the directory open as 3.
    assert_eq!(output, "1\n/\nhello world\n/\n0\n1\n2\n3\n/proc/1\n");
}

#[test]
fn the_mounts_are_those_of_the_specification_and_no_others() {
    let output = run("cat /proc/self/mounts");
    let mounts: BTreeSet<(&str, &str)> = output
        .lines()
        .filter(|line| !line.contains(" / "))
        .map(|line| {
            let mut fields = line.split(' ');
            (fields.nth(1).unwrap(), fields.next().unwrap())
        })
        .collect();
    let expected = [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ];
    for mount in mounts.difference(&BTreeSet::from(expected)) {
        // Masks and read-only paths, with the container's own null device.
        let expected = match mount.0 {
            "/proc/bus" | "/proc/fs" | "/proc/irq" | "/proc/sys" | "/proc/sysrq-trigger" => "proc",
            "/proc/acpi" | "/proc/scsi" | "/sys/firmware" => "tmpfs",
            "/proc/kcore" | "/proc/keys" | "/proc/timer_list" => "tmpfs",
            other => panic!("{other} is mounted"),
        };
        assert_eq!(mount.1, expected, "{mount:?}");
    }
    assert!(mounts.is_superset(&BTreeSet::from(expected)), "{output}");
    let sys = output.lines().find(|line| line.contains(" /sys sysfs ")).unwrap();
    assert!(sys.contains(" ro,nosuid,nodev,noexec"), "{sys}");
}

#[test]
fn dev_has_the_standard_nodes_and_links() {
    let output = run("cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty; \
         for l in fd stdin stdout stderr core ptmx; do echo $l $(readlink $l); done; \
         echo lost > null; dd if=zero bs=4 count=1 2>null | cat -v; echo; echo x >full || echo full");
    let expected = "null character special file 1:3 666\nzero character special file 1:5 666\n\
         full character special file 1:7 666\nrandom character special file 1:8 666\n\
         urandom character special file 1:9 666\ntty character special file 5:0 666\n\
         fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\n\
         core /proc/kcore\nptmx pts/ptmx\n^@^@^@^@\n";
    assert!(output.starts_with(expected), "{output}");
    assert!(output.contains("\nfull\n"), "{output}");
}

#[test]
fn masked_paths_show_nothing_and_readonly_paths_take_nothing() {
    // Not every machine has ACPI.
    let output = run(
        "cat /proc/keys /proc/timer_list; ls -A /sys/firmware; [ ! -d /proc/acpi ] || ls -A /proc/acpi; \
         stat -c %t:%T /proc/keys; chmod 777 /proc/keys; \
         echo 1 > /proc/sys/net/ipv4/ip_forward; touch /sys/firmware/x",
    );
    assert!(output.starts_with("1:3\n"), "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 3, "{output}");
}

#[test]
fn identity_capabilities_and_flags_are_as_specified() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "id; umask; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
    recipe.spec["process"]["user"] = json!({ "uid": 1000, "gid": 2000, "additionalGids": [3000, 4000] });
    let output = recipe.run().unwrap();
    assert!(output.starts_with("uid=1000 gid=2000 groups=3000,4000\n0022\n"), "{output}");
    assert!(
        output.contains("CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"),
        "{output}"
    );
    assert!(
        output.contains("CapBnd:\t0000000000000021\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"),
        "{output}"
    );
}

#[test]
fn root_has_exactly_its_capabilities_and_none_inheritable() {
    let output = run("grep ^Cap /proc/self/status");
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000021\nCapEff:\t0000000000000021\n\
         CapBnd:\t0000000000000021\nCapAmb:\t0000000000000000\n";
    assert_eq!(output, expected);
}

#[test]
fn no_signal_is_ignored_or_blocked() {
    let output = run("exec grep -E '^Sig(Blk|Ign)' /proc/self/status");
    assert_eq!(output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn a_readonly_root_takes_nothing_but_its_volumes_do() {
    let image = Image::new();
    let volume = image.outside("volume");
    fs::create_dir(&volume).unwrap();
    let script = "touch /x 2>&1; echo written > /data/file; touch /fixed/y 2>&1; cat /etc/one; pwd";
    fs::write(image.outside("file"), "content\n").unwrap();
    let mut recipe = Recipe::new(&image, script)
        .volume(&volume, "/data", &["rbind", "rprivate"])
        .volume(&volume, "/fixed", &["rbind", "ro"])
        .volume(&image.outside("file"), "/etc/one", &["bind", "ro"]);
    recipe.spec["root"]["readonly"] = json!(true);
    recipe.spec["process"]["cwd"] = json!("/made/for/it");
    let output = recipe.run().unwrap();
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    assert!(output.ends_with("content\n/made/for/it\n"), "{output}");
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "written\n");
}

#[test]
fn a_readonly_tmpfs_still_takes_the_mounts_in_it() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "touch /t/x 2>&1; touch /t/in/x && echo inside");
    let mounts = recipe.spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/t", "type": "tmpfs", "source": "t", "options": ["ro"] }));
    mounts.push(json!({ "destination": "/t/in", "type": "tmpfs", "source": "in" }));
    assert_eq!(recipe.run().unwrap(), "touch: /t/x: Read-only file system\ninside\n");
}

#[test]
fn a_user_who_is_not_root_can_open_standard_output() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "echo out > /dev/stdout");
    recipe.spec["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    assert_eq!(recipe.run().unwrap(), "out\n");
}

#[test]
fn a_null_device_among_the_standard_streams_is_the_containers() {
    let script = "test $(stat -L -c %d:%i /proc/self/fd/0) = $(stat -c %d:%i /dev/null) && echo own";
    assert_eq!(run(script), "own\n");
    let image = Image::new();
    let other = image.outside("file");
    fs::write(&other, "").unwrap();
    let failure = Recipe::new(&image, "true").volume(&other, "/dev/null", &["bind"]).run().unwrap_err();
    assert_eq!((failure.step.as_str(), failure.path.as_deref()), ("standard streams", Some("/dev/null")));
}

#[test]
fn home_comes_from_the_image_unless_it_is_given() {
    let image = Image::new();
    fs::create_dir(image.root().join("etc")).unwrap();
    fs::write(image.root().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:\n").unwrap();
    let mut recipe = Recipe::new(&image, "echo $HOME");
    recipe.spec["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    assert_eq!(recipe.run().unwrap(), "/srv\n");
    let mut recipe = Recipe::new(&image, "echo $HOME");
    recipe.spec["process"]["env"] = json!(["HOME=/given", "PATH=/bin"]);
    assert_eq!(recipe.run().unwrap(), "/given\n");
}

#[test]
fn limits_are_set_and_what_the_host_does_not_grant_is_said() {
    let image = Image::new();
    let mut recipe =
        Recipe::new(&image, "grep -E 'open files|core' /proc/self/limits; cat /proc/self/oom_score_adj");
    recipe.spec["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 512, "hard": 600 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
    ]);
    recipe.spec["process"]["oomScoreAdj"] = json!(900);
    let mut container = recipe.create().unwrap();
    assert_eq!(container.warnings, Vec::<String>::new());
    container.start().unwrap();
    let output = container.finish().0;
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "Max", "core", "file", "size", "0", "0", "bytes", "Max", "open", "files", "512", "600", "files",
            "900"
        ]
    );

    // What only CAP_SYS_RESOURCE grants.
    let mut recipe = Recipe::new(&image, "cat /proc/self/limits");
    recipe.spec["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_RESOURCE"]);
    recipe.spec["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_MEMLOCK", "soft": u64::MAX, "hard": u64::MAX }]);
    recipe.spec["process"]["oomScoreAdj"] = json!(-999);
    let mut container = recipe.create().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
    let granted = u64::from_str_radix(permitted, 16).unwrap() & (1 << 24) != 0;
    let warnings: Vec<&str> =
        container.warnings.iter().map(|warning| warning.split(": ").next().unwrap()).collect();
    let expected: &[&str] = match granted {
        true => &[],
        false => &["oom_score_adj", "resource limit Memlock", "capabilities"],
    };
    assert_eq!(warnings, expected);
    container.start().unwrap();
    container.finish();
}

#[test]
fn a_privileged_container_gets_the_devices_it_lists() {
    let image = Image::new();
    let mut recipe =
        Recipe::new(&image, "stat -c '%F %t:%T %a %u' /dev/net/tun /dev/null; readlink /dev/ptmx");
    recipe.spec["linux"]["devices"] = json!([
        { "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 7 },
        { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640 },
        { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 },
    ]);
    let expected = "character special file a:c8 600 7\ncharacter special file 1:3 640 0\npts/ptmx\n";
    assert_eq!(recipe.run().unwrap(), expected);
}

#[test]
fn a_sysctl_of_a_namespace_is_set_and_one_of_the_host_is_refused() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    recipe.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "42" });
    assert_eq!(recipe.run().unwrap(), "42\n");
    let mut recipe = Recipe::new(&image, "true");
    recipe.spec["linux"]["sysctl"] = json!({ "kernel.core_pattern": "|/x" });
    let failure = recipe.run().unwrap_err();
    assert_eq!((failure.step.as_str(), failure.errno), ("sysctl", None));
}

#[test]
fn a_terminal_is_the_containers_own() {
    let image = Image::new();
    let mut recipe = Recipe::new(
        &image,
        "tty; stty size; stat -c %u:%t:%T /dev/console /dev/pts/0; echo >/dev/tty; echo to-console > /dev/console",
    );
    recipe.spec["process"]["terminal"] = json!(true);
    recipe.spec["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    recipe.spec["process"]["user"] = json!({ "uid": 5, "gid": 5 });
    let mut container = recipe.create().unwrap();
    let master = container.console.take().unwrap();
    container.start().unwrap();
    // A terminal's end of file is EIO, when its last user has gone.
    let mut output = Vec::new();
    let mut chunk = [0; 256];
    while let Ok(length @ 1..) = rustix::io::read(&master, &mut chunk) {
        output.extend_from_slice(&chunk[..length]);
    }
    let output = String::from_utf8(output).unwrap();
    assert_eq!(output, "/dev/pts/0\r\n33 77\r\n5:88:0\r\n5:88:0\r\n\r\nto-console\r\n");
    assert_eq!(container.finish(), (String::new(), Some(0)));
}

#[test]
fn exit_codes_and_signals_are_the_programs() {
    let image = Image::new();
    let mut container = Recipe::new(&image, "exit 42").create().unwrap();
    container.start().unwrap();
    assert_eq!(container.finish().1, Some(42));
}

#[test]
fn an_agent_that_goes_away_before_start_takes_the_container_along() {
    let image = Image::new();
    let container = Recipe::new(&image, "echo never").create().unwrap();
    assert_eq!(container.finish(), (String::new(), Some(128)));
}

#[test]
fn nothing_of_a_container_appears_among_the_hosts_mounts() {
    let table = || -> BTreeSet<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect()
    };
    let image = Image::new();
    let before = table();
    let container = Recipe::new(&image, "true").create().unwrap();
    let during = table();
    container.finish();
    assert_eq!(before, during);
}
