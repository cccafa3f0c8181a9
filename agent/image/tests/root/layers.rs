//! Hostile and unusual layers.

use crate::support::{Fixture, Tar};

#[test]
fn nothing_leaves_the_layer() {
    let f = Fixture::new();
    let outside = f.dir.path().to_str().unwrap().to_owned();
    let up = "../".repeat(20);
    for (what, tar) in [
        ("..", Tar::new().file(&format!("{up}escape"), "x")),
        ("absolute", Tar::new().file("/escape", "x")),
        ("through a link", Tar::new().symlink("out", &outside).file("out/canary", "x")),
        (
            "through a relative link",
            Tar::new().symlink("out", &up).file(&format!("out{outside}/canary"), "x"),
        ),
    ] {
        f.import_tar(&tar.build(), "x").unwrap_or_else(|error| panic!("{what}: {error}"));
        f.assert_sound();
        assert!(!f.path("escape").exists() && !std::path::Path::new("/escape").exists(), "{what}");
    }
}
