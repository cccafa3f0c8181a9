//! Holds what `docs/architecture.md` says against what the workspace is.

#![allow(clippy::expect_used, reason = "a test that cannot read the project fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use coracle_tests::rust_source::RustSource;
use coracle_tests::spdx;

/// Crates whose job is to speak to the kernel, or to a library of another language, without the type system's help.
const UNSAFE_ALLOWED: &[&str] = &["agent/linux/", "device-plugin/nvml/", "pause/program/", "pause/wire/"];
/// The longest a file that is one thing gets.
const MOST_LINES: usize = 600;

/// What is in the tree and not of the project.
const SKIPPED: &[&str] = &[".git", "Cargo.lock", "target", "build", "corpus", "artifacts"];

/// What every crate's tests may use: the kernel without `unsafe`, and what tests share.
const TESTS_MAY_USE: &[&str] = &["linux", "tests", "device-plugin/scripted"];

/// External crates that only some crates may use directly, and why.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("k8s-openapi", &["manifest", "server"], "only these know Kubernetes' wire types"),
    ("cgroups-rs", &["cgroup"], "its absolute-path trap is handled there"),
    ("anyhow", &["daemon", "tests"], "libraries have typed errors"),
    ("nvml-wrapper", &["device-plugin/nvml"], "what is loaded into the process is spoken with in one place"),
    ("zbus", &["shutdown", "systemd", "tests"], "only logind and systemd are spoken with by D-Bus"),
    (
        "tokio",
        &[
            "cgroup",
            "controller",
            "credentials",
            "daemon",
            "device-plugin/api",
            "device-plugin/manager",
            "device-plugin/plugin",
            "device-plugin/scripted",
            "events",
            "fetch",
            "image",
            "pod",
            "probe",
            "pull",
            "registry",
            "sandbox",
            "server",
            "shutdown",
            "systemd",
            "tests",
            "volume",
        ],
        "the others need no runtime",
    ),
];

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ has a parent").to_owned()
}

/// Every file of the project below `directory`, without what is built or fetched.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("project directory can be read") {
        let entry = entry.expect("project directory can be listed");
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let kind = entry.file_type().expect("file type is known");
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// The project's text files as (path below the root, text).
fn texts() -> Vec<(String, String)> {
    let root = root();
    let mut paths = Vec::new();
    files(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let text = String::from_utf8(fs::read(&path).expect("project file can be read")).ok()?;
            let name = path.strip_prefix(&root).expect("below the root").to_str()?.to_owned();
            Some((name, text))
        })
        .collect()
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    texts().into_iter().filter(|(name, _)| name.ends_with(".rs"))
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

// --- Arrows ---

/// Who may use whom, by the short names of the document (`pod`, `pause/wire`).
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Reads the arrows from the document: every `` `A, B -> C, D` ``.
fn documented_arrows(document: &str, all: &BTreeSet<String>) -> Arrows {
    let section = document.split("\nArrows (").nth(1).expect("the document has its list of arrows");
    let section = section.split("**Invariant").next().unwrap_or_default();
    let mut arrows = Arrows::new();
    let statements = section.split('`').skip(1).step_by(2).filter_map(|span| span.split_once("->"));
    for (from, to) in statements.filter(|(from, _)| from.trim() != "A") {
        for user in from.split(',').map(str::trim) {
            let used: BTreeSet<String> = match to.trim() {
                "all" => all.iter().filter(|name| *name != user).cloned().collect(),
                names => names.split(',').map(|name| name.trim().to_owned()).collect(),
            };
            assert!(all.contains(user), "the document has an arrow from {user}, which is no crate");
            assert!(
                used.is_subset(all),
                "the document has an arrow from {user} to a crate there is not: {used:?}"
            );
            arrows.entry(user.to_owned()).or_default().extend(used);
        }
    }
    arrows
}

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).no_deps();
    command
        .other_options(["--locked".to_owned(), "--offline".to_owned()])
        .exec()
        .expect("cargo metadata answers")
}

/// The document's short name of a workspace member: its directory, without `agent/`.
fn short_name(metadata: &Metadata, manifest: &Path) -> String {
    let below = manifest.strip_prefix(&metadata.workspace_root).expect("a member is in the workspace");
    let directory = below.parent().and_then(Path::to_str).expect("a manifest has a directory");
    directory.strip_prefix("agent/").unwrap_or(directory).to_owned()
}

/// What each member depends on: ours by short name, others by package name. Dependencies of tests and
/// build scripts count: what a crate may not use, its tests may not either, but for these.
fn dependencies(metadata: &Metadata) -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let name = |manifest: &Path| short_name(metadata, manifest);
    let packages = metadata.workspace_packages();
    let ours: BTreeMap<String, String> = packages
        .iter()
        .map(|package| (package.name.to_string(), name(package.manifest_path.as_std_path())))
        .collect();
    packages
        .iter()
        .map(|package| {
            let (mut used, mut foreign) = (BTreeSet::new(), BTreeSet::new());
            for dependency in &package.dependencies {
                match ours.get(&dependency.name) {
                    Some(short)
                        if TESTS_MAY_USE.contains(&short.as_str())
                            && dependency.kind == DependencyKind::Development =>
                    {
                        false
                    }
                    Some(short) => used.insert(short.clone()),
                    // An optional one counts for the crates that turn its feature on, not for this one.
                    None => !dependency.optional && foreign.insert(dependency.name.clone()),
                };
            }
            (ours[&*package.name].clone(), (used, foreign))
        })
        .collect()
}

/// The arrows that are there and may not be.
fn undocumented(actual: &Arrows, documented: &Arrows) -> Vec<String> {
    let none = BTreeSet::new();
    actual
        .iter()
        .flat_map(|(user, used)| {
            let allowed = documented.get(user).unwrap_or(&none);
            used.difference(allowed).map(move |one| format!("{user} -> {one}"))
        })
        .collect()
}

#[test]
fn crates_use_only_what_the_architecture_lets_them() {
    let dependencies = dependencies(&metadata());
    let all = dependencies.keys().cloned().collect();
    let document = fs::read_to_string(root().join("docs/architecture.md")).expect("the document is there");
    let actual = dependencies.into_iter().map(|(name, (used, _))| (name, used)).collect();
    assert_none(
        "dependencies that docs/architecture.md has no arrow for",
        undocumented(&actual, &documented_arrows(&document, &all)),
    );
}

#[test]
fn an_undocumented_arrow_is_seen() {
    let all: BTreeSet<String> = ["model", "pod", "image"].map(str::to_owned).into();
    let documented = documented_arrows("\nArrows (`A -> B`):\n- `pod, image -> model`.\n**Invariant", &all);
    let actual: Arrows = [("pod", "model"), ("image", "pod")]
        .map(|(user, used)| (user.to_owned(), [used.to_owned()].into()))
        .into();
    assert_eq!(undocumented(&actual, &documented), ["image -> pod"]);
}

#[test]
fn every_crate_is_on_the_map() {
    let document = fs::read_to_string(root().join("docs/architecture.md")).expect("the document is there");
    let metadata = metadata();
    let missing = metadata.workspace_packages().into_iter().filter_map(|package| {
        let short = short_name(&metadata, package.manifest_path.as_std_path());
        let rows = [format!("| `{short}` |"), format!("| `agent/{short}` |")];
        (!rows.iter().any(|row| document.contains(row.as_str()))).then_some(short)
    });
    assert_none("crates missing from the table of docs/architecture.md", missing.collect());
}

#[test]
fn some_dependencies_stay_where_they_belong() {
    let mut found = Vec::new();
    for (name, (_, foreign)) in dependencies(&metadata()) {
        for (package, places, why) in CONFINED {
            if foreign.contains(*package) && !places.contains(&name.as_str()) {
                found.push(format!("{name} uses {package}, which only {places:?} may: {why}"));
            }
        }
    }
    assert_none("dependencies out of place", found);
}

#[test]
fn every_dependency_is_in_the_one_table() {
    let mut found = Vec::new();
    for package in metadata().workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest can be read");
        for dependency in &package.dependencies {
            let rename = dependency.rename.as_ref().unwrap_or(&dependency.name);
            let inherited = [format!("{rename}.workspace = true"), format!("{rename} = {{ workspace = true")];
            if !inherited.iter().any(|line| manifest.contains(line.as_str())) {
                found.push(format!("{}: {}", package.manifest_path, dependency.name));
            }
        }
    }
    assert_none("dependencies with a version of their own", found);
}

/// The strings of the list that follows `key` in a TOML document.
fn toml_strings<'a>(document: &'a str, key: &str) -> Vec<&'a str> {
    let list = document.split(&format!("{key} = [")).nth(1).expect("the key is there");
    let list = list.split(']').next().unwrap_or_default();
    list.split('"').skip(1).step_by(2).collect()
}

#[test]
fn every_dependency_has_a_licence_we_may_pass_on() {
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let allowed = toml_strings(&deny, "allow");
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // Only what is built here: the sources of other platforms' crates need not be on this machine.
    command.other_options(["--locked", "--offline", "--filter-platform", &host].map(str::to_owned));
    let metadata = command.exec().expect("cargo metadata answers");
    let found = metadata.packages.iter().filter_map(|package| {
        let licence = package.license.as_deref().unwrap_or_default();
        let fine = spdx::satisfied(licence, |one| allowed.contains(&one));
        (!fine).then(|| format!("{} {}: {licence:?}", package.name, package.version))
    });
    assert_none("licences that deny.toml does not allow", found.collect());
}

// --- Sources ---

fn unsafe_out_of_place(name: &str, text: &str) -> Vec<String> {
    let source = RustSource::parse(text);
    let allowed = UNSAFE_ALLOWED.iter().any(|place| name.starts_with(place));
    let found = source.words("unsafe").filter_map(|found| {
        let block = found.rest.starts_with('{') || found.rest.starts_with("impl");
        if !allowed {
            Some(format!("{name}:{}: not allowed in this crate", found.line))
        } else if block && !source.explained(found.line, "SAFETY:") {
            Some(format!("{name}:{}: no SAFETY comment above", found.line))
        } else {
            None
        }
    });
    found.collect()
}

#[test]
fn unsafe_stands_only_where_it_may_and_says_why_it_is_sound() {
    assert_none("unsafe", rust_files().flat_map(|(name, text)| unsafe_out_of_place(&name, &text)).collect());
}

#[test]
fn unsafe_out_of_place_is_seen() {
    let bare = "fn f() { unsafe { g() } }";
    let explained = "fn f() {\n    // SAFETY: g has no preconditions.\n    unsafe { g() }\n}";
    assert_eq!(unsafe_out_of_place("agent/pod/src/x.rs", explained).len(), 1);
    assert_eq!(unsafe_out_of_place("agent/linux/src/x.rs", bare).len(), 1);
    assert!(unsafe_out_of_place("agent/linux/src/x.rs", explained).is_empty());
}

#[test]
fn only_the_sandbox_and_what_executes_programs_of_the_node_start_processes() {
    let found = rust_files().filter(|(name, _)| {
        let product = ["agent/", "cni/", "device-plugin/"].iter().any(|part| name.starts_with(part))
            && name.contains("/src/");
        let may = ["agent/sandbox/", "agent/linux/", "agent/program/"];
        product && !may.iter().any(|place| name.starts_with(place))
    });
    let found = found.flat_map(|(name, text)| {
        let source = RustSource::parse(&text);
        let commands = source.words("Command").filter(|found| found.rest.starts_with("::new("));
        let spawns = source.words("posix_spawn").chain(source.words("fork"));
        commands.chain(spawns).map(|found| format!("{name}:{}", found.line)).collect::<Vec<_>>()
    });
    assert_none("processes started outside agent/sandbox and agent/program", found.collect());
}

#[test]
fn a_file_is_one_thing() {
    let written = rust_files().filter(|(name, _)| !name.contains("/src/generated/"));
    let found = written.filter_map(|(name, text)| {
        let lines = text.lines().count();
        (lines > MOST_LINES).then(|| format!("{name}: {lines} lines"))
    });
    assert_none("files too long to be one thing", found.collect());
}

#[test]
fn nothing_is_left_for_later() {
    let found = rust_files().flat_map(|(name, text)| {
        let source = RustSource::parse(&text);
        let marks = ["TODO", "FIXME", "XXX", "HACK"];
        let marked = (1..=text.lines().count()).filter(|line| {
            let comment = source.comment(*line);
            comment.split(|c: char| !c.is_alphanumeric()).any(|word| marks.contains(&word))
        });
        let macros = ["todo", "unimplemented"].map(|name| {
            let calls = source.words(name).filter(|found| found.rest.starts_with('!'));
            calls.map(|found| found.line).collect::<Vec<_>>()
        });
        let lines = marked.chain(macros.into_iter().flatten());
        lines.map(|line| format!("{name}:{line}")).collect::<Vec<_>>()
    });
    assert_none("left for later", found.collect());
}

/// Words that speak of the machine a change was made on and not of the project. Each is written here in two
/// halves, so that this file passes its own test.
const FOREIGN: &[(&str, &str)] = &[
    ("/wor", "k/main"),
    ("/wor", "k/wt"),
    ("/wor", "k/shared"),
    ("/wor", "k/steering"),
    ("/wor", "k/."),
    ("/far", "m/"),
    ("this ses", "sion"),
    ("deb.de", "bian.org"),
    ("index.cra", "tes.io"),
    ("static.cra", "tes.io"),
    ("files.python", "hosted.org"),
    ("registry.np", "mjs.org"),
];

fn foreign_words(name: &str, text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = FOREIGN.iter().map(|(first, second)| format!("{first}{second}"));
    words.filter(|word| lower.contains(word.as_str())).map(|word| format!("{name}: {word}")).collect()
}

#[test]
fn the_text_speaks_of_the_project_alone() {
    assert_none("foreign words", texts().iter().flat_map(|(name, text)| foreign_words(name, text)).collect());
}

#[test]
fn a_foreign_word_is_seen() {
    assert_eq!(foreign_words("x", concat!("see /Wor", "k/main")).len(), 1);
}
