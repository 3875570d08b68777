//! Every bundled scenario loads, and its variants have stable, distinct names.

use fencepost_engine::lang;
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../suites");
    let mut out = Vec::new();
    for folder in std::fs::read_dir(root).expect("suites").flatten() {
        let Ok(entries) = std::fs::read_dir(folder.path()) else { continue };
        let paths = entries.flatten().map(|e| e.path());
        out.extend(paths.filter(|p| p.extension().is_some_and(|e| e == "yaml")));
    }
    out.sort();
    out
}

#[test]
fn bundled_scenarios_have_no_mistake() {
    let mut report = String::new();
    let mut names = std::collections::BTreeSet::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("readable");
        let path = file.to_str().expect("ASCII");
        let name = &path[path.find("suites/").unwrap_or(0)..];
        match lang::load(name, &text) {
            Ok(scenarios) => {
                for variant in scenarios.iter().flat_map(lang::Scenario::variants) {
                    assert!(names.insert(variant.name.clone()), "{} twice", variant.name);
                    assert_eq!(variant.name, variant.test.name);
                }
            }
            Err(diagnostics) => report.push_str(&diagnostics.render(false)),
        }
    }
    assert!(report.is_empty(), "\n{report}");
    assert!(!names.is_empty(), "there are bundled scenarios");
}
