//! The habits of the house, checked like anything else: what clippy cannot see.
//!
//! Reads the files that git knows or would add, and never writes. Each check collects all its complaints, so
//! that one run tells everything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const FUNCTION_LINES_MEDIAN: usize = 10;
/// How far above an unsafe block its reason may stand.
const SAFETY_WITHIN: usize = 8;

const PARTS: [&str; 6] = ["dns", "balancer", "web", "app", "database", "control"];
const GROUND: [&str; 3] = ["plan", "link", "relay"];
const DRAWERS: [&str; 5] = ["util", "utils", "common", "helpers", "prelude"];
/// Written in halves, since this file is checked as well.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

#[test]
fn files_are_short() {
    let long =
        rust().into_iter().filter(|file| !file.is_test()).map(|file| (file.without_tests().len(), file));
    let long = long.filter(|(lines, _)| *lines > FILE_LINES);
    no_complaints(long.map(|(lines, file)| format!("{}: {lines} lines; at most {FILE_LINES}", file.path)));
}

#[test]
fn functions_are_short() {
    let files = rust();
    let all = files.iter().filter(|file| !file.is_test()).flat_map(|file| functions(&file.without_tests()));
    let mut lengths: Vec<usize> = all.map(|(_, length)| length).collect();
    lengths.sort_unstable();
    let (count, median) = (lengths.len(), lengths[lengths.len() / 2]);
    println!(
        "{count} functions, median {median} lines, longest {}, of {} files with a median of {} lines",
        lengths[count - 1],
        files.len(),
        median_file(&files)
    );
    assert!(median <= FUNCTION_LINES_MEDIAN, "the median of {count} functions is {median} lines");
}

#[test]
fn no_function_is_long() {
    let files = rust();
    let all = files.iter().flat_map(|file| {
        functions(&file.lines()).into_iter().map(move |(name, length)| (&file.path, name, length))
    });
    let long = all.filter(|(_, _, length)| *length > FUNCTION_LINES);
    no_complaints(long.map(|(path, name, length)| {
        format!("{path}: {name} has {length} code lines; at most {FUNCTION_LINES}")
    }));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = rust().into_iter().filter(|file| {
        !file.text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 10)
    });
    no_complaints(silent.map(|file| format!("{}: begin with //! and what it is, why so", file.path)));
}

#[test]
fn no_drawers_and_no_mod_rs() {
    let odd = rust().into_iter().filter(|file| {
        let path = Path::new(&file.path);
        let in_drawer = path.with_extension("");
        let in_drawer = in_drawer.iter().any(|part| DRAWERS.iter().any(|drawer| part == *drawer));
        in_drawer || path.ends_with("mod.rs")
    });
    no_complaints(odd.map(|file| format!("{}: name it by what it does, as foo.rs beside foo/", file.path)));
}

#[test]
fn nothing_is_left_for_later() {
    let mut complaints = Vec::new();
    for file in tracked() {
        for (number, line) in file.text.lines().enumerate() {
            complaints.extend(UNFINISHED.iter().filter(|word| has_word(line, word)).map(|word| {
                format!(
                    "{}:{}: {word}: do it, or say in the changelog that it is not done",
                    file.path,
                    number + 1
                )
            }));
        }
    }
    no_complaints(complaints);
}

#[test]
fn no_test_is_switched_off() {
    let off =
        rust().into_iter().filter(|file| file.text.lines().any(|line| line.trim().starts_with("#[ignore")));
    no_complaints(off.map(|file| format!("{}: a test that is ignored tests nothing", file.path)));
}

#[test]
fn unsafe_code_has_its_reason() {
    let mut complaints = Vec::new();
    for file in rust() {
        let lines = file.lines();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| is_unsafe(line)) {
            let above = &lines[number.saturating_sub(SAFETY_WITHIN)..=number];
            if !above.iter().any(|line| line.contains("SAFETY") || line.contains("# Safety")) {
                complaints.push(format!("{}:{}: {}: no SAFETY comment", file.path, number + 1, line.trim()));
            }
        }
    }
    no_complaints(complaints);
}

/// Leases, elections and all waits are counted on clocks that nobody sets, so that a jump of the wall clock changes
/// nothing; in the simulation it jumps between any two looks. One place reads it, for the people who read the history.
#[test]
fn nothing_that_decides_reads_the_wall_clock() {
    let decide = ["crates/control/src", "crates/database/src", "crates/link/src/control"];
    let reads = ["SystemTime::now", "ClockId::Realtime", "CLOCK_REALTIME", "Timestamp::now", "Utc::now"];
    let wrong = rust().into_iter().filter(|file| {
        let decides = decide.iter().any(|folder| file.path.starts_with(folder));
        let tells = file.path == "crates/database/src/look.rs";
        decides && !tells && reads.iter().any(|read| file.text.contains(read))
    });
    no_complaints(wrong.map(|file| format!("{}: count on link::control::since_boot", file.path)));
    let look = read("crates/database/src/look.rs");
    assert_eq!(look.matches("SystemTime::now").count(), 1, "once, for the history");
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = read("Cargo.toml");
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("the workspace has dependencies");
    let section: Vec<&str> = section.lines().take_while(|line| !line.starts_with('[')).collect();
    let bare = section.windows(2).filter(|pair| pair[1].contains(" = ") && !pair[1].starts_with('#'));
    let bare = bare.filter(|pair| !pair[1].contains("path = ") && !pair[0].starts_with('#'));
    no_complaints(bare.map(|pair| format!("Cargo.toml: no reason above: {}", pair[1])));
}

#[test]
fn versions_stand_in_the_workspace_only() {
    let mut complaints = Vec::new();
    // The fuzz targets are a workspace of their own.
    let manifests = tracked().into_iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    for file in manifests.filter(|file| file.path != "fuzz/Cargo.toml") {
        let own = dependencies(&file.text).into_iter().filter(|(_, line)| !line.contains("workspace = true"));
        let own = own.filter(|(_, line)| !line.contains(".workspace"));
        complaints.extend(own.map(|(_, line)| format!("{}: {line}: declare it in the workspace", file.path)));
    }
    no_complaints(complaints);
}

#[test]
fn parts_do_not_know_each_other() {
    let ours: BTreeSet<&str> = PARTS.iter().chain(&GROUND).copied().chain(["dolmen", "testkit"]).collect();
    let mut complaints = Vec::new();
    for part in PARTS {
        let manifest = read(&format!("crates/{part}/Cargo.toml"));
        for (name, _) in dependencies(before_tests(&manifest)) {
            if ours.contains(name.as_str()) && !GROUND.contains(&name.as_str()) {
                complaints
                    .push(format!("{part} depends on {name}; a part stands on {} only", GROUND.join(", ")));
            }
        }
    }
    no_complaints(complaints);
}

#[test]
fn the_architecture_names_what_exists() {
    let mut complaints = Vec::new();
    for page in ["ARCHITECTURE.md", "README.md", "CHANGELOG.md", "docs/how-it-works.md"] {
        for path in paths_named(&read(page)) {
            if !root().join(&path).exists() {
                complaints.push(format!("{page} names {path}, which does not exist"));
            }
        }
    }
    no_complaints(complaints);
}

#[test]
fn the_house_is_complete() {
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", ".ci/run"] {
        assert!(!read(page).is_empty(), "{page} is empty");
    }
    assert!(read("CHANGELOG.md").contains("\n## "), "the changelog has no version");
    assert!(read(".ci/run").contains("make test"), "the gate runs something else than the README says");
}

/// One file of the tree.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs") || self.path.contains("testkit/")
    }

    fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }

    /// Without modules that begin with `#[cfg(test)]`; rustfmt guarantees where they end.
    fn without_tests(&self) -> Vec<&str> {
        let mut lines = Vec::new();
        let mut rest = self.text.lines().peekable();
        while let Some(line) = rest.next() {
            let begins = line == "#[cfg(test)]" && rest.peek().is_some_and(|next| next.ends_with('{'));
            if begins {
                rest.by_ref().find(|line| *line == "}");
            } else {
                lines.push(line);
            }
        }
        lines
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What git tracks, and what it would if asked to add everything.
fn tracked() -> Vec<File> {
    let mut git = Command::new("git");
    // A checkout that belongs to another account is no reason not to read it.
    git.args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"]);
    let output = git.current_dir(root()).output().expect("git runs");
    assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let paths = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let file = |path: &str| fs::read_to_string(root().join(path)).ok().map(|text| (path.to_owned(), text));
    paths.lines().filter_map(file).map(|(path, text)| File { path, text }).collect()
}

fn rust() -> Vec<File> {
    tracked().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn no_complaints(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Names and lengths in code lines, without blank lines and comments. A function ends at the brace that stands
/// as far in as its first line, which rustfmt guarantees.
fn functions(lines: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let body = &lines[number..];
        if line.ends_with('}') {
            found.push((name, 1));
        } else if let Some(length) = body.iter().position(|line| *line == end) {
            found.push((name, body[1..length].iter().filter(|line| is_code(line)).count()));
        }
    }
    found
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

/// The name, if a function with a body may begin on this line.
fn function_name(line: &str) -> Option<String> {
    let words = line.trim_start();
    let (before, after) = words.split_once("fn ")?;
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    let is_function = before.split_whitespace().all(|word| qualifiers.contains(&word));
    let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (is_function && !name.is_empty() && !words.ends_with(';')).then_some(name)
}

fn median_file(files: &[File]) -> usize {
    let mut lengths: Vec<usize> =
        files.iter().filter(|file| !file.is_test()).map(|file| file.without_tests().len()).collect();
    lengths.sort_unstable();
    lengths[lengths.len() / 2]
}

fn is_unsafe(line: &str) -> bool {
    let line = line.trim_start();
    let quoted = line.starts_with("//") || line.contains("\"unsafe");
    !quoted
        && ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"].iter().any(|form| line.contains(form))
}

/// Whether the word stands there by itself, so that a template of mktemp is none.
fn has_word(line: &str, word: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    line.match_indices(word).any(|(place, _)| {
        let before = line[..place].chars().next_back();
        let after = line[place + word.len()..].chars().next();
        !letter(before) && !letter(after)
    })
}

/// The dependencies of a manifest, each with its line.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && line.contains('=') && !line.starts_with('#') {
            let name: String = line.chars().take_while(|c| !matches!(c, '.' | ' ' | '=')).collect();
            found.push((name, line.to_owned()));
        }
    }
    found
}

/// A manifest up to what only tests depend on.
fn before_tests(manifest: &str) -> &str {
    manifest.split("[dev-dependencies]").next().unwrap_or(manifest)
}

/// What stands in back quotes or as a link and begins with a folder or ends like a file of this tree.
fn paths_named(page: &str) -> BTreeSet<String> {
    let quoted = page.split('`').skip(1).step_by(2);
    let linked = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let named = quoted.chain(linked).filter(|text| !text.contains([' ', '*', '<', '…', '{', '\n', ':', '#']));
    let top = ["crates/", "examples/", "docs/", "bench/", "scripts/", "xtask/", ".ci/"];
    named.filter(|text| top.iter().any(|top| text.starts_with(top))).map(str::to_owned).collect()
}
