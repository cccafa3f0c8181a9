//! What a container looks like from inside.

use crate::harness::{Image, Recipe};

fn run(script: &str) -> String {
    let image = Image::new();
    Recipe::new(&image, script).run().unwrap()
}

#[test]
fn the_program_runs_as_pid_1_with_nothing_but_its_own() {
    let output =
        run("echo $$; pwd; echo $GREETING; echo $HOME; ls /proc/self/fd; ls /proc | grep -c '^[0-9]'");
    // ls itself has the directory open as 3, and is the second process.
    assert_eq!(output, "1\n/\nhello world\n/\n0\n1\n2\n3\n3\n");
}
