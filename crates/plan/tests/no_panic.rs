//! Whatever is written, reading ends with a plan or with drawable mistakes, and never with a password shown.

use std::net::SocketAddr;
use std::path::Path;

use plan::{
    Ground, NoFiles, Place, Plan, Site, SocketKind, command, describe, difference, render, same_meaning,
};
use proptest::prelude::*;

fn seeds() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sites");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut seeds: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    seeds.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    seeds.sort();
    seeds.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

/// Everything that is ever done with a text.
fn exercise(text: &str) {
    let site = Site::from_text(text);
    for place in [Place::Up { block: 7 }, Place::Machines] {
        let ground = Ground { place, generation: 1, folder: "shop", files: &NoFiles };
        match site.plan(&ground) {
            Ok(plan) => check_plan(&plan),
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                assert!(!render(&mistakes, text, "dolmen.toml", false).is_empty());
                assert!(!render(&mistakes, text, "dolmen.toml", true).is_empty());
                assert!(!render(&mistakes, "", "dolmen.toml", false).is_empty());
            }
        }
    }
}

/// What holds for every plan that is given out.
fn check_plan(plan: &Plan) {
    let mut taken: Vec<(SocketKind, SocketAddr)> = Vec::new();
    for server in &plan.servers {
        assert!(plan.machine(&server.machine).is_some(), "{} has no machine", server.name);
        for listen in &server.listen {
            assert!(!taken.contains(&(listen.kind, listen.address)), "{} is taken twice", listen.address);
            taken.push((listen.kind, listen.address));
        }
    }
    assert!(!plan.servers.is_empty());
    assert!(!describe(plan).is_empty());
    let text = serde_json::to_string(plan).expect("a plan can be written");
    let again: Plan = serde_json::from_str(&text).expect("a plan can be read");
    assert_eq!(*plan, again);
    assert!(same_meaning(plan, &again) && difference(Some(plan), &again).is_empty());
}

/// A site with some of its lines removed, doubled, exchanged or cut, and bytes put in.
fn mutated() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..6_u8, "\\PC{0,6}");
    (prop::sample::select(seeds()), prop::collection::vec(change, 1..8)).prop_map(|(seed, changes)| {
        let mut lines: Vec<String> = seed.lines().map(str::to_owned).collect();
        for (one, other, what, text) in changes {
            if lines.is_empty() {
                break;
            }
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            match what {
                0 => drop(lines.remove(one)),
                1 => lines.insert(one, lines[other].clone()),
                2 => lines.swap(one, other),
                3 => lines[one] = lines[one].chars().skip(1).collect(),
                4 => lines[one].push_str(&text),
                _ => lines[one] = lines[one].replacen('"', &text, 1),
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_sites(text in mutated()) {
        exercise(&text);
    }

    /// A change of meaning is never passed over in silence.
    #[test]
    fn changes_have_sentences((one, other) in (mutated(), mutated())) {
        let plan = |text: &str| {
            let ground = Ground { place: Place::Machines, generation: 1, folder: "shop", files: &NoFiles };
            Site::from_text(text).plan(&ground).ok()
        };
        if let (Some(one), Some(other)) = (plan(&one), plan(&other)) {
            prop_assert_eq!(same_meaning(&one, &other), difference(Some(&one), &other).is_empty());
        }
    }

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        exercise(&text);
    }

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn arbitrary_values(key in "[a-z]{2,8}", value in "[-\\[\\]{}\"0-9a-z.:=, /@*]{0,30}") {
        exercise(&format!("[app]\ncommand = \"x\"\n[dns]\nzone = \"a.b\"\n{key} = {value}\n"));
    }

    #[test]
    fn command_lines(text in any::<String>()) {
        if let Ok(words) = command::words(&text) {
            prop_assert!(!words[0].is_empty());
        }
    }

    #[test]
    fn quoted_words_come_back(words in prop::collection::vec("[^'\\x00]{1,8}", 1..5)) {
        let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        prop_assert_eq!(command::words(&line.join(" ")), Ok(words));
    }
}

#[test]
fn a_password_in_the_file_is_never_drawn() {
    let bad = "domain = \"x y\"\n[database]\nurl = \"postgres://me:hunter2@db/app\"\nuurl = \"postgres://me:hunter2@db\"\n";
    let site = Site::from_text(bad);
    let ground = Ground { place: Place::Machines, generation: 1, folder: "shop", files: &NoFiles };
    let mistakes = site.plan(&ground).expect_err("it has mistakes");
    assert!(!render(&mistakes, site.text(), "dolmen.toml", false).contains("hunter2"));
    assert!(!mistakes.to_string().contains("hunter2"));
}

#[test]
fn deep_nesting_and_long_lines_are_only_mistakes() {
    exercise(&format!("a = {}", "[".repeat(100_000)));
    exercise(&format!("a = {}1{}", "[".repeat(5_000), "]".repeat(5_000)));
    exercise(&format!("{}b = 1", "a.".repeat(50_000)));
    exercise(&format!("domain = \"{}\"", "x".repeat(1_000_000)));
    let many: Vec<String> = (0..5_000).map(|number| format!("key{number} = 1")).collect();
    exercise(&many.join("\n"));
}
