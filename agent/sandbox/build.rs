//! Builds the static programs the crate embeds: pause, and container-init.
//!
//! Each is built by a cargo of its own, because neither can be built as part of this build: pause needs
//! another panic strategy and other link flags than everything else, and both are programs for this very
//! target, not for the host this script runs on. They are built in one directory next to the profiles of
//! this build, so that changing the profile or checking instead of building does not build them again.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the cargo that runs this script tells it, and what must not reach the ones it starts: they would
/// run under clippy, with the flags of another target, or write into a directory that is locked.
const NOT_INHERITED: &[&str] = &[
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
];

/// And what begins with these: profiles would change what is built, the rest describes another package.
const NOT_INHERITED_PREFIXES: &[&str] =
    &["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PROFILE_", "DEP_"];

/// A program to embed.
struct Program {
    /// The directory with its manifest, from this crate's.
    directory: &'static str,
    /// The name of its binary.
    binary: &'static str,
    profile: &'static str,
    /// Rust flags of its own; `None` when its directory has a cargo configuration that says them.
    rustflags: Option<&'static str>,
    /// What it is built from.
    sources: &'static [&'static str],
}

const PAUSE: Program = Program {
    directory: "../../pause/program",
    binary: "pause",
    profile: "release",
    rustflags: None,
    sources: &[
        "../../pause/program/.cargo/config.toml",
        "../../pause/program/Cargo.lock",
        "../../pause/program/Cargo.toml",
        "../../pause/program/src",
        "../../pause/wire/Cargo.toml",
        "../../pause/wire/src",
        "../../Cargo.toml",
    ],
};

const INIT: Program = Program {
    directory: "../init",
    binary: "coracle-init",
    profile: "embedded",
    rustflags: Some("-Ctarget-feature=+crt-static"),
    sources: &[
        "../init/Cargo.toml",
        "../init/src",
        "../program/src",
        "../linux/Cargo.toml",
        "../linux/src",
        "../../Cargo.lock",
        "../../Cargo.toml",
    ],
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    embed(&PAUSE)?;
    embed(&INIT)
}

/// Builds the program and puts it into `OUT_DIR` under its name.
fn embed(program: &Program) -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    for source in program.sources {
        println!("cargo::rerun-if-changed={}", here.join(source).display());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let built = build(program, &here.join(program.directory), &build_directory(&out))?;
    fs::copy(&built, out.join(program.binary))
        .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

fn build(program: &Program, directory: &Path, into: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = variable("TARGET")?;
    let mut cargo = Command::new(variable("CARGO")?);
    // Its dependencies are ours, or it has none: all is there already, and nothing may be fetched.
    cargo.current_dir(directory).args(["build", "--locked", "--offline"]);
    cargo.args(["--bin", program.binary, "--profile", program.profile]).arg("--target").arg(&target);
    cargo.arg("--target-dir").arg(into);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let listed = NOT_INHERITED.contains(&&*text);
        if listed || NOT_INHERITED_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    if let Some(rustflags) = program.rustflags {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags);
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err(format!("building {} in {} failed: {status}", program.binary, directory.display()).into());
    }
    let profile = if program.profile == "dev" { "debug" } else { program.profile };
    Ok(into.join(target).join(profile).join(program.binary))
}

/// `<build directory>/embedded`, where `OUT_DIR` is `<build directory>/<profile>/build/<package>/out`.
/// Where that does not hold, a directory of this build's own is as right, and only slower.
fn build_directory(out: &Path) -> PathBuf {
    let shared = out
        .ancestors()
        .find(|directory| directory.file_name().is_some_and(|name| name == "build"))
        .and_then(|build| build.parent()?.parent());
    shared.unwrap_or(out).join("embedded")
}

fn variable(name: &str) -> Result<OsString, Box<dyn Error>> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}").into())
}
