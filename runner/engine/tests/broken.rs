//! Diagnostics of every file in `fixtures/data/broken`, compared with the `.snap` beside it. To
//! accept new ones: `INSTA_UPDATE=always cargo test -p fencepost-engine --test broken`.

use fencepost_engine::lang::{self, Diagnostics};
use std::collections::BTreeSet;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/broken")
}

fn diagnostics(name: &str) -> Diagnostics {
    let text = std::fs::read_to_string(folder().join(name)).expect("readable");
    lang::load(name, &text).map(drop).expect_err("a broken file is refused")
}

#[test]
fn broken_files_are_diagnosed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut names: Vec<_> = std::fs::read_dir(folder())
        .expect("fixtures/data/broken")
        .flatten()
        .map(|e| e.file_name().into_string().expect("ASCII"))
        .filter(|n| n.ends_with(".yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= 15, "the fixtures are there");
    for name in names {
        let report = diagnostics(&name).render(false);
        let stem = name.trim_end_matches(".yaml").to_owned();
        settings.bind(|| insta::assert_snapshot!(stem, report));
    }
}

#[test]
fn eight_mistakes_give_eight_diagnostics_with_help() {
    let found = diagnostics("eight.yaml");
    assert_eq!(found.list.len(), 8, "{found}");
    let lines: BTreeSet<usize> =
        found.list.iter().map(|d| found.line_column(d.span.start).0).collect();
    assert_eq!(lines.len(), 8, "each on a line of its own: {lines:?}");
    for diagnostic in &found.list {
        assert!(!diagnostic.help.is_empty(), "{} suggests nothing", diagnostic.message);
    }
    let codes: BTreeSet<_> = found.list.iter().map(|d| d.code).collect();
    assert!(codes.len() >= 6, "different kinds of mistake: {codes:?}");
}
