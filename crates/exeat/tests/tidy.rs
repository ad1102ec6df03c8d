//! Rules of the repository that no compiler holds: which crate may use which, what must never be linked, how large
//! a file may be, and that the documents name what is there. A rule not checked here does not exist.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails the test by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Which of our crates may use which, as ARCHITECTURE.md says. Arrows only point down.
const ARROWS: [(&str, &[&str]); 8] = [
    ("exeat-wire", &[]),
    ("exeat-sql", &[]),
    ("exeat-policy", &[]),
    ("exeat-enforce", &["exeat-wire", "exeat-sql", "exeat-policy"]),
    ("exeat-store", &["exeat-policy"]),
    ("exeat-proxy", &["exeat-wire", "exeat-sql", "exeat-policy", "exeat-enforce", "exeat-store"]),
    ("exeat-console", &["exeat-sql", "exeat-policy", "exeat-enforce", "exeat-store"]),
    (
        "exeat",
        &["exeat-wire", "exeat-sql", "exeat-policy", "exeat-enforce", "exeat-store", "exeat-proxy", "exeat-console"],
    ),
];

/// Same input, same output, forever: nothing that waits, connects or keeps time may be reachable from these.
const PURE: [&str; 4] = ["exeat-wire", "exeat-sql", "exeat-policy", "exeat-enforce"];
const IMPURE: [&str; 16] = [
    "tokio",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "rustls",
    "tokio-rustls",
    "sqlx",
    "postgres-protocol",
    "hyper",
    "reqwest",
    "axum",
    "getrandom",
    "tracing",
    "jiff",
    "ring",
];

/// Never linked, with the reason.
const BANNED: [(&str, &str); 12] = [
    ("openssl-sys", "TLS is rustls's; a C library beside it doubles what must be patched"),
    ("native-tls", "TLS is rustls's"),
    ("aws-lc-rs", "cryptography is ring's; this one needs cmake and a second C tree"),
    ("aws-lc-sys", "as aws-lc-rs"),
    ("rsa", "a timing side channel without a fix (RUSTSEC-2023-0071)"),
    ("serde_yaml", "unmaintained"),
    ("serde_yml", "unsound and archived (RUSTSEC-2025-0068)"),
    ("paste", "unmaintained (RUSTSEC-2024-0436)"),
    ("bincode", "unmaintained (RUSTSEC-2025-0141)"),
    ("rustls-pemfile", "unmaintained (RUSTSEC-2025-0134)"),
    ("proc-macro-error", "unmaintained (RUSTSEC-2024-0370)"),
    ("cmake", "a build tool the build must not need"),
];

/// More than one version in the graph, and who brings the other.
const DUPLICATES: [(&str, &str); 17] = [
    ("base64", "postgres-protocol still uses 0.22"),
    ("block-buffer", "as digest"),
    ("cpufeatures", "as digest"),
    ("crypto-common", "as digest"),
    ("digest", "sqlx still uses 0.10, postgres-protocol a later one"),
    ("getrandom", "ring uses 0.2, tempfile and uuid a later one"),
    ("hashbrown", "sqlx and indexmap disagree"),
    ("itertools", "bindgen, prost-build and object storage disagree"),
    ("linux-raw-sys", "as rustix"),
    ("rustix", "the grammar's build script uses 0.38; build time only"),
    ("sha2", "as digest"),
    ("shlex", "bindgen and cc disagree; build time only"),
    ("spin", "SQLite's driver still uses 0.9, the checksums of object storage a later one"),
    ("syn", "derive macros on their way from 2 to 3; build time only"),
    ("synstructure", "as syn"),
    ("thiserror", "the grammar's crate uses 1"),
    ("thiserror-impl", "as thiserror"),
];

/// Each `OR` of a licence expression must offer one of these; each `AND` must be one.
const LICENCES: [&str; 9] =
    ["MIT", "Apache-2.0", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Unicode-3.0", "Zlib", "Unlicense", "PostgreSQL"];

/// Lines of a source file before its tests.
const FILE_LINES_MAX: usize = 600;

/// Channels of the attacker's page: everything a sealed value could leave by.
const CHANNELS: [&str; 17] = [
    "rows",
    "column names",
    "command tags",
    "COPY data",
    "errors",
    "notices",
    "notifications",
    "parameter status",
    "cursors",
    "EXPLAIN",
    "statistics",
    "later statements",
    "replication",
    "function-call messages",
    "HTTP bodies",
    "HTTP headers",
    "HTTP trailers",
];

const STATUSES: [&str; 4] = ["closed", "refused", "open", "not built"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}

/// The graph as cargo resolved it for this machine, without asking the network.
fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let version = Command::new("rustc").arg("-vV").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap()
}

fn packages() -> BTreeMap<&'static str, &'static Value> {
    let nodes: BTreeSet<&str> = nodes().keys().copied().collect();
    let all = metadata()["packages"].as_array().unwrap();
    all.iter().map(|package| (text(package, "id"), package)).filter(|(id, _)| nodes.contains(id)).collect()
}

fn nodes() -> BTreeMap<&'static str, &'static Value> {
    metadata()["resolve"]["nodes"].as_array().unwrap().iter().map(|node| (text(node, "id"), node)).collect()
}

fn name_of(id: &str) -> &'static str {
    text(packages()[id], "name")
}

fn id_of(name: &str) -> &'static str {
    packages().into_iter().find(|(_, package)| text(package, "name") == name).unwrap().0
}

/// Names of what a package uses directly in this kind (`None`: when it runs).
fn uses(id: &str, kind: Option<&str>) -> Vec<&'static str> {
    let dependencies = nodes()[id]["deps"].as_array().unwrap();
    let of_kind = |dependency: &&Value| {
        dependency["dep_kinds"].as_array().unwrap().iter().any(|found| found["kind"].as_str() == kind)
    };
    dependencies.iter().filter(of_kind).map(|dependency| text(dependency, "pkg")).collect()
}

/// Every source file of our crates, relative to the root, in order.
fn sources(parts: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    for (name, _) in ARROWS {
        for part in parts {
            walk(&root.join("crates").join(name).join(part), &mut found);
        }
    }
    let mut relative: Vec<PathBuf> = found.iter().map(|path| path.strip_prefix(&root).unwrap().to_owned()).collect();
    relative.sort();
    relative
}

fn before_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap()
}

/// A file of tests only, which a module includes under `#[cfg(test)]`.
fn is_test_file(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests") || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn arrows_between_our_crates_only_point_down() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for id in metadata()["workspace_members"].as_array().unwrap() {
        let name = name_of(id.as_str().unwrap());
        seen.insert(name);
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name} is a new crate: it needs a paragraph in ARCHITECTURE.md and a row here"));
            continue;
        };
        for kind in [None, Some("dev"), Some("build")] {
            for used in uses(id.as_str().unwrap(), kind).into_iter().map(name_of) {
                if used.starts_with("exeat") && !allowed.contains(&used) {
                    wrong.push(format!("{name} may not use {used}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(seen.len(), ARROWS.len(), "a crate of the table is gone");
}

#[test]
fn pure_crates_reach_nothing_that_waits_or_connects() {
    let mut wrong = Vec::new();
    for name in PURE {
        let mut reached = BTreeMap::from([(id_of(name), name.to_owned())]);
        let mut open = vec![id_of(name)];
        while let Some(id) = open.pop() {
            let road = reached[id].clone();
            for used in uses(id, None) {
                if !reached.contains_key(used) {
                    reached.insert(used, format!("{road} -> {}", name_of(used)));
                    open.push(used);
                }
            }
        }
        wrong.extend(reached.iter().filter(|(id, _)| IMPURE.contains(&name_of(id))).map(|(_, road)| road.clone()));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn banned_crates_are_not_in_the_graph() {
    let names: BTreeSet<&str> = packages().values().map(|package| text(package, "name")).collect();
    let found: Vec<_> = BANNED.iter().filter(|(name, _)| names.contains(name)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn deny_toml_bans_the_same_crates() {
    let text = read(&root().join("deny.toml"));
    let there: BTreeSet<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next()).collect();
    assert_eq!(there, BANNED.iter().map(|(name, _)| *name).collect());
}

#[test]
fn one_version_of_each_crate_but_for_the_list() {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages().values() {
        versions.entry(text(package, "name")).or_default().insert(text(package, "version"));
    }
    let twice: BTreeMap<_, _> = versions.into_iter().filter(|(_, versions)| versions.len() > 1).collect();
    let new: Vec<_> = twice.iter().filter(|(name, _)| !DUPLICATES.iter().any(|(known, _)| known == *name)).collect();
    assert!(new.is_empty(), "more than one version of: {new:#?}");
    let gone: Vec<_> = DUPLICATES.iter().filter(|(name, _)| !twice.contains_key(name)).collect();
    assert!(gone.is_empty(), "no longer there twice, take them off the list: {gone:#?}");
}

#[test]
fn every_licence_is_on_the_list() {
    let allowed = |term: &str| {
        let plain = term.trim().trim_matches(['(', ')']).split(" WITH ").next().unwrap();
        LICENCES.contains(&plain.trim())
    };
    let acceptable = |expression: &str| {
        let expression = expression.replace('/', " OR ");
        expression.split(" AND ").all(|part| part.split(" OR ").any(allowed))
    };
    let wrong: Vec<_> = packages()
        .values()
        .filter(|package| !package["license"].as_str().is_some_and(acceptable))
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for (name, _) in ARROWS {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} does not take the workspace's lints");
    }
    let workspace = read(&root().join("Cargo.toml"));
    for lint in ["unsafe_code = \"forbid\"", "too_many_lines = \"deny\"", "unwrap_used = \"deny\""] {
        assert!(workspace.contains(lint), "the workspace no longer sets {lint}");
    }
    let clippy = read(&root().join("clippy.toml"));
    for limit in ["too-many-lines-threshold = 70", "too-many-arguments-threshold = 5"] {
        assert!(clippy.contains(limit), "clippy.toml no longer sets {limit}");
    }
}

#[test]
fn every_dependency_stands_in_the_root_manifest_with_its_reason() {
    let workspace = read(&root().join("Cargo.toml"));
    let section = workspace.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    // Names that say it themselves.
    let obvious =
        ["rustls", "serde", "serde_json", "thiserror", "tokio", "tokio-rustls", "tracing", "tracing-subscriber"];
    let silent: Vec<&str> = section
        .lines()
        .filter(|line| line.contains('=') && !line.starts_with("exeat") && !line.starts_with('#'))
        .filter(|line| !line.contains(" # "))
        .filter(|line| !obvious.iter().any(|name| line.split(['=', ' ']).next() == Some(name)))
        .collect();
    assert!(silent.is_empty(), "no reason given: {silent:#?}");
    for (name, _) in ARROWS {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        let own: Vec<&str> = manifest.lines().filter(|line| line.contains("version = \"")).collect();
        assert!(own.is_empty(), "{name} gives versions of its own: {own:#?}");
    }
}

#[test]
fn no_file_is_too_long_before_its_tests() {
    let wrong: Vec<String> = sources(&["src"])
        .iter()
        .filter(|path| !is_test_file(path))
        .map(|path| (path, before_tests(&read(&root().join(path))).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines exceed the limit of {FILE_LINES_MAX}", path.display()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_module_says_first_what_it_is() {
    let silent: Vec<_> = sources(&["src"])
        .into_iter()
        .filter(|path| !is_test_file(path) && !read(&root().join(path)).starts_with("//! "))
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn nothing_is_left_for_later_in_a_comment() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), "(being written)"];
    let mut wrong = Vec::new();
    for path in sources(&["src", "tests"]) {
        if path.ends_with("tests/tidy.rs") {
            continue;
        }
        for (number, line) in read(&root().join(&path)).lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_demo_can_sign_a_token() {
    let wrong: Vec<_> = sources(&["src"])
        .into_iter()
        .filter(|path| !path.starts_with("crates/exeat/src/demo") && !is_test_file(path))
        .filter(|path| {
            let source = read(&root().join(path));
            ["EcdsaKeyPair", "RsaKeyPair", "EncodingKey"].iter().any(|name| before_tests(&source).contains(name))
        })
        .collect();
    assert!(wrong.is_empty(), "signing keys outside the demo: {wrong:#?}");
}

/// What a module's own documentation says first, as a line of the list.
fn module_line(path: &Path) -> String {
    let source = read(&root().join(path));
    let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let first = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    format!("- `{}`: {}", path.display(), first.split(". ").next().unwrap().trim_end_matches('.'))
}

/// With TIDY_REWRITE set the list is brought up to date from the modules' own first sentences: read the diff.
#[test]
fn architecture_lists_the_modules_that_are_there() {
    let path = root().join("ARCHITECTURE.md");
    let document = read(&path);
    let (before, rest) = document.split_once("\n## Modules\n").expect("ARCHITECTURE.md has no section `## Modules`");
    let (section, after) = rest.split_at(rest.find("\n## ").unwrap_or(rest.len()));
    let mut listed: BTreeMap<PathBuf, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("- `")) {
        let (name, sentence) = line.trim_start_matches("- `").split_once("`: ").unwrap_or((line, ""));
        if sentence.len() <= 10 {
            wrong.push(format!("no sentence: {line}"));
        } else if listed.insert(PathBuf::from(name), line).is_some() {
            wrong.push(format!("listed twice: {line}"));
        }
    }
    let there: BTreeSet<PathBuf> = sources(&["src"]).into_iter().filter(|path| !is_test_file(path)).collect();
    wrong.extend(there.iter().filter(|path| !listed.contains_key(*path)).map(|path| module_line(path)));
    wrong.extend(listed.keys().filter(|path| !there.contains(*path)).map(|path| format!("gone: {}", path.display())));
    if std::env::var_os("TIDY_REWRITE").is_some() {
        let line = |path: &PathBuf| listed.get(path).map_or_else(|| module_line(path), |line| (*line).to_owned());
        let lines: Vec<String> = there.iter().map(line).collect();
        fs::write(&path, format!("{before}\n## Modules\n\n{}\n{after}", lines.join("\n"))).unwrap();
        return;
    }
    assert!(wrong.is_empty(), "the list of modules in ARCHITECTURE.md: {wrong:#?}");
}

/// Rows of the table of channels: channel, status, tests.
fn threat_rows() -> Vec<(String, String, Vec<String>)> {
    let document = read(&root().join("THREATS.md"));
    let section = document.split("\n## Channels\n").nth(1).expect("THREATS.md has no section `## Channels`");
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| channel"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 4, "a row has channel, status, why, tests: {line}");
            let tests = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (cells[0].to_owned(), cells[1].to_owned(), tests)
        })
        .collect()
}

#[test]
fn threats_has_a_row_for_each_channel_with_a_test_that_exists() {
    let rows = threat_rows();
    for channel in CHANNELS {
        assert!(rows.iter().any(|(name, _, _)| name == channel), "THREATS.md has no row for {channel:?}");
    }
    let mut known = String::new();
    for path in sources(&["src", "tests"]) {
        known.push_str(&read(&root().join(path)));
    }
    for entry in fs::read_dir(root().join("e2e/tests")).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            known.push_str(&read(&path));
        }
    }
    for (channel, status, tests) in rows {
        assert!(STATUSES.contains(&status.as_str()), "{channel}: unknown status {status:?}");
        let unproven = status == "open" || status == "not built";
        assert!(unproven || !tests.is_empty(), "{channel} is {status} and names no test");
        for test in tests {
            let written = [format!("fn {test}("), format!("def {test}(")];
            assert!(written.iter().any(|text| known.contains(text)), "{channel}: there is no test {test:?}");
        }
    }
}
