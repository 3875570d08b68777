//! Goal: the tree keeps its rules, and each rule finds what breaks it. Method: the real tree is
//! checked; then, for each rule, small trees that break it and their mended twins.

use super::tree::File;
use super::*;
use crate::root;

#[test]
fn the_tree_keeps_its_rules() {
    if let Err(findings) = task(&root()) {
        panic!("{}", findings.join("\n"));
    }
}

fn tree(path: &str, text: &str) -> Tree {
    Tree { files: vec![File { path: path.into(), text: text.into() }] }
}

/// Rule, path, text that breaks it, text that keeps it.
const BROKEN: &[(&str, &str, &str, &str)] = &[
    (
        "engine-independent",
        "runner/engine/Cargo.toml",
        "[dependencies]\nfencepost-core = { workspace = true }\n",
        "[dependencies]\nfencepost-fixtures = { workspace = true }\n",
    ),
    (
        "engine-independent",
        "runner/engine/Cargo.toml",
        "[dev-dependencies]\nx = { package = \"fencepost-host\" }\n",
        "[dev-dependencies]\ninsta = { workspace = true }\n",
    ),
    (
        "dependency-reasons",
        "Cargo.toml",
        "[workspace.dependencies]\nlibc = \"0.2\"\n",
        "[workspace.dependencies]\nours = { path = \"x\" }\nlibc = \"0.2\" # why\n[profile.dev]\na = 1\n",
    ),
    (
        "workspace-manifests",
        "a/Cargo.toml",
        "license.workspace = true\n[dependencies]\nlibc = \"0.2\"\n[lints]\nworkspace = true\n",
        "license.workspace = true\n[dependencies]\nlibc = { workspace = true }\n[lints]\nworkspace = true\n",
    ),
    (
        "workspace-manifests",
        "a/Cargo.toml",
        "license.workspace = true\n",
        "license.workspace = true\n[lints]\nworkspace = true\n",
    ),
    (
        "workspace-manifests",
        "a/Cargo.toml",
        "license = \"MIT\"\n[lints]\nworkspace = true\n",
        "license.workspace = true\n[lints]\nworkspace = true\n",
    ),
    (
        "core-world",
        "reference-driver/core/src/vm.rs",
        "//! x\nuse std::sync::Mutex;\n",
        "//! x\nuse crate::facade::Mutex; // not std::sync\n#[cfg(test)]\nmod tests { use std::vec; }\n",
    ),
    ("core-world", "reference-driver/core/src/a.rs", "use alloc::vec;\n", "use core::fmt;\n"),
    ("core-world", "reference-driver/core/src/a.rs", "extern crate alloc;\n", "mod std_like;\n"),
    (
        "unsafe-fence",
        "runner/cli/src/a.rs",
        "fn f() { unsafe { g() } }\n",
        "fn f() { g() } // unsafe\n",
    ),
    (
        "unsafe-fence",
        "fixtures/src/sys/a.rs",
        "//! x\nfn f() { unsafe { g() } }\n",
        "//! x\n#![expect(\n    unsafe_code,\n    reason = \"calls\"\n)]\nfn f() { unsafe { g() } }\n",
    ),
    (
        "safety-comments",
        "fixtures/src/sys/a.rs",
        "    let a = 1;\n    let x = unsafe { g() };\n",
        "    // SAFETY: g needs nothing,\n    // nothing at all.\n    let x =\n        unsafe { g() };\n",
    ),
    (
        "safety-comments",
        "a.rs",
        "unsafe impl Send for A {}\n",
        "// SAFETY: x.\nunsafe impl Send for A {}\n",
    ),
    ("first-line", "a.rs", "use x;\n", "//! Owns x.\nuse x;\n"),
    ("lint-reasons", "a.rs", "#[allow(dead_code)]\n", "#[expect(dead_code, reason = \"x\")]\n"),
    (
        "lint-reasons",
        "a.rs",
        "#![expect(dead_code)]\nfn f() {}\n",
        "#![expect(\n    dead_code,\n    reason = \"x\"\n)]\n",
    ),
    ("leftovers", "a.rs", concat!("// TO", "DO: later\n"), "// Later.\n"),
    ("leftovers", "a.md", concat!("FIX", "ME\n"), "fixed\n"),
    ("leftovers", "a.rs", concat!("#[ign", "ore]\n"), "#[test]\n"),
    ("leftovers", "a.rs", concat!("unimple", "mented!()\n"), "f()\n"),
    ("ascii", "a.rs", "// caf\u{e9}\n", "// cafe\n"),
    ("whitespace", "a.rs", "fn f() {} \n", "fn f() {}\n"),
    ("whitespace", "a.md", "text", "text\n"),
    ("foreign-paths", "a.md", concat!("see /ho", "me/me/x\n"), "see docs/x\n"),
    ("one-title", "a.md", "text\n", "# Title\n\n```\n# comment\n```\n"),
    ("one-title", "a.md", "# One\n\n# Two\n", "# One\n\n## Two\n"),
];

#[test]
fn each_rule_finds_what_breaks_it_and_only_that() {
    for (rule, path, broken, mended) in BROKEN {
        let (_, check) = RULES.iter().find(|(name, _)| name == rule).expect("a rule of that name");
        assert_eq!(check(&tree(path, broken)).len(), 1, "{rule} on {broken:?}");
        assert_eq!(check(&tree(path, mended)), [], "{rule} on {mended:?}");
    }
}

#[test]
fn the_reason_for_unsafe_code_may_stand_in_the_module_above() {
    let of = |reason: &str| Tree {
        files: [
            ("reference-driver/host/src/live/mod.rs", reason),
            ("reference-driver/host/src/live/sys/fd.rs", "//! x\nfn f() { unsafe { g() } }\n"),
        ]
        .map(|(path, text)| File { path: path.into(), text: text.into() })
        .into(),
    };
    let check = |reason| rust::unsafe_fence(&of(reason)).len();
    assert_eq!(check("//! x\n#![expect(unsafe_code, reason = \"calls\")]\n"), 0);
    assert_eq!(check("//! x\n"), 1);
}

#[test]
fn modules_of_core_that_only_tests_compile_may_use_std() {
    let of = |root: &str| Tree {
        files: [
            ("reference-driver/core/src/fencepost_core.rs", root),
            ("reference-driver/core/src/seed.rs", "use std::env;\n"),
        ]
        .map(|(path, text)| File { path: path.into(), text: text.into() })
        .into(),
    };
    let check = |root| rust::core_world(&of(root)).len();
    assert_eq!(check("#[cfg(all(test, not(x)))]\nmod seed;\n"), 0);
    assert_eq!(check("mod seed;\n"), 1);
    let after = "#[cfg(test)]\nmod seed;\nuse std::vec;\n";
    assert_eq!(check(after), 1, "what follows the declaration is no test");
}

#[test]
fn long_files_and_missing_ones_are_found() {
    let check = |rule: &str, tree: &Tree| {
        let (_, check) = RULES.iter().find(|(name, _)| *name == rule).expect("a rule");
        check(tree).len()
    };
    assert_eq!(check("file-length", &tree("a.rs", &"\n".repeat(801))), 1);
    assert_eq!(check("file-length", &tree("a.rs", &"\n".repeat(800))), 0);
    assert_eq!(check("licences", &tree("a.rs", "")), 2);
    assert_eq!(check("suite-readme", &tree("suites/x/a.yaml", "")), 1);
    let both = Tree {
        files: ["suites/x/README.md", "suites/x/a.yaml"]
            .map(|path| File { path: path.into(), text: String::new() })
            .into(),
    };
    assert_eq!(check("suite-readme", &both), 0);
}

#[test]
fn every_rule_is_broken_by_a_test() {
    let elsewhere = ["file-length", "licences", "suite-readme"];
    for (rule, _) in RULES {
        let tried = BROKEN.iter().any(|(name, ..)| name == rule) || elsewhere.contains(rule);
        assert!(tried, "{rule}");
    }
}

#[test]
fn a_stale_header_is_found() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let copy = |path: &str| {
        let to = scratch.path().join(path);
        std::fs::create_dir_all(to.parent().expect("below")).expect("made");
        std::fs::copy(root().join(path), to).expect("copied");
    };
    copy("reference-driver/uapi/src/fencepost.rs");
    copy("reference-driver/uapi/src/command.rs");
    copy(crate::header::HEADER);
    copy(crate::header::DOCUMENT);
    assert_eq!(generated::stale(scratch.path()), Vec::<String>::new());
    let header = scratch.path().join(crate::header::HEADER);
    let text = std::fs::read_to_string(&header).expect("readable").replace("0x06", "0x07");
    std::fs::write(&header, text).expect("written");
    assert_eq!(generated::stale(scratch.path()).len(), 1);
}
