//! Images as the tools make them that people build with. Those that are not installed are passed over.

use std::fs;
use std::path::Path;
use std::process::Command;

use coracle_image::{Compression, ImportOptions};

use crate::support::{Fixture, names};

/// Runs a tool; `None` where there is none.
fn run(directory: &Path, program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(directory).output().ok()?;
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn images_of_buildah() {
    let f = Fixture::new();
    if run(f.dir.path(), "buildah", &["--version"]).is_none() {
        println!("skipped: buildah is not installed");
        return;
    }
    let context = f.path("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("file"), "content").unwrap();
    let steps = "FROM scratch\nCOPY file /dir/file\nCOPY file /dir/second\nUSER 7:8\nCMD [\"/dir/file\"]\n";
    fs::write(context.join("Dockerfile"), steps).unwrap();
    let name = "example.com/built:1";
    std::thread::scope(|scope| {
        let build = scope.spawn(|| {
            // What it mounts goes with this thread.
            coracle_linux::unshare_mount_namespace().unwrap();
            run(f.dir.path(), "mount", &["--make-rprivate", "/"]);
            let at = |name: &str| f.path(name).into_os_string().into_string().unwrap();
            let (root, runroot) = (at("storage"), at("run"));
            let buildah = |args: &[&str]| {
                let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
                run(f.dir.path(), "buildah", &[&own, args].concat()).unwrap()
            };
            buildah(&["bud", "-q", "--isolation", "chroot", "--layers", "-t", name, "context"]);
            buildah(&["push", "-q", name, &format!("oci-archive:{}:{name}", at("oci.tar"))]);
            buildah(&["push", "-q", "--format", "oci", name, &format!("oci:{}:{name}", at("oci"))]);
            buildah(&["push", "-q", name, &format!("docker-archive:{}:{name}", at("docker.tar"))]);
            buildah(&["images", "-q", "--no-trunc", name])
        });
        let id = build.join().unwrap();
        for path in ["oci.tar", "oci", "docker.tar"] {
            let imported = f.store.import(&f.path(path), &ImportOptions::default()).unwrap();
            // For Docker's archive it writes the configuration in Docker's way.
            assert!(
                path == "docker.tar" || imported[0].image.id.to_string() == id,
                "{path}: {imported:?} is not {id}"
            );
            let m = f.mount(name);
            assert_eq!(names(&m.path.join("dir")), ["file", "second"], "{path}");
            let image = f.image(name);
            assert_eq!((image.document.config.user.as_str(), image.layers.len()), ("7:8", 2), "{path}");
            f.store.export_directory(&[name.to_owned()], Compression::None, &f.path("out")).unwrap();
            fs::remove_dir_all(f.path("out")).unwrap();
        }
    });
    f.assert_sound();
}
