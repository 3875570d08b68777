//! Counts which lines of the driver both worlds have: user space and the module.
//!
//! Owns the walk from a crate's root file along its `mod` declarations, under the conditions of each
//! world, and the count. Lines that are blank or comments do not count, nor do tests and the
//! simulated world, which only tests use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Findings;

/// What must be common, in percent of the module's lines.
const LEAST: u64 = 75;

/// A world: the conditions that hold in it.
type World = &'static [&'static str];

/// `cargo build` of the user-space host.
const USER: World = &["feature=\"std\""];
/// Kbuild, for a kernel that has what the module can use.
const MODULE: World = &["MODULE", "CONFIG_HMM_MIRROR", "CONFIG_DEVICE_PRIVATE"];

/// Counts, and fails when too little is common.
pub(crate) fn task(root: &Path) -> Result<String, Findings> {
    let driver = root.join("reference-driver");
    let walk = |files: &[&str], world| -> Result<BTreeSet<PathBuf>, Findings> {
        let mut seen = BTreeSet::new();
        for file in files {
            follow(&driver.join(file), world, &mut seen)?;
        }
        Ok(seen)
    };
    let both = ["uapi/src/fencepost_uapi.rs", "core/src/fencepost_core.rs"];
    let mut user = walk(&both, USER)?;
    user.extend(walk(&["host/src/live/mod.rs"], USER)?);
    let mut module = walk(&both, MODULE)?;
    module.extend(shims(&driver.join("linux"))?);
    let count = |files: &mut dyn Iterator<Item = &PathBuf>| -> Result<(u64, usize), Findings> {
        let mut sum = (0, 0);
        for file in files {
            sum = (sum.0 + lines(&read(file)?), sum.1 + 1);
        }
        Ok(sum)
    };
    let common = count(&mut user.intersection(&module))?;
    let only_user = count(&mut user.difference(&module))?;
    let only_module = count(&mut module.difference(&user))?;
    let percent = |own: u64| 100 * common.0 / (common.0 + own).max(1);
    let share = percent(only_module.0);
    let row =
        |name: &str, (lines, files): (u64, usize)| format!("{name:<16}{files:>6}{lines:>8}\n");
    let mut text = format!("{:<16}{:>6}{:>8}\n", "", "files", "lines");
    text += &row("both worlds", common);
    text += &row("module only", only_module);
    text += &row("user space only", only_user);
    text += &format!("{share} % of the module and {} % of user space", percent(only_user.0));
    match share >= LEAST {
        true => Ok(text),
        false => Err(vec![text, format!("share: at least {LEAST} % of the module must be common")]),
    }
}

/// The C side of the module.
fn shims(folder: &Path) -> Result<Vec<PathBuf>, Findings> {
    let failed = |error| vec![format!("{}: {error}", folder.display())];
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with("shim") && (name.ends_with(".c") || name.ends_with(".h")) {
            all.push(folder.join(name));
        }
    }
    Ok(all)
}

fn read(file: &Path) -> Result<String, Findings> {
    fs::read_to_string(file).map_err(|error| vec![format!("{}: {error}", file.display())])
}

/// Lines of code, up to the tests that stand at the end of a file.
fn lines(text: &str) -> u64 {
    let is_test = |line: &&str| *line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test");
    let code = text.lines().map(str::trim).take_while(|line| !is_test(line));
    let counts = |line: &&str| {
        !line.is_empty() && !["//", "/*", "* ", "*/"].iter().any(|start| line.starts_with(start))
    };
    code.filter(counts).count() as u64
}

/// Adds a file and the files of its modules that exist in the world.
fn follow(file: &Path, world: World, seen: &mut BTreeSet<PathBuf>) -> Result<(), Findings> {
    let file = file.canonicalize().map_err(|error| vec![format!("{}: {error}", file.display())])?;
    let text = read(&file)?;
    if !seen.insert(file.clone()) {
        return Ok(());
    }
    let (mut there, mut path) = (true, None);
    for line in text.lines().map(str::trim) {
        if let Some(condition) = line.strip_prefix("#[cfg(").and_then(|l| l.strip_suffix(")]")) {
            there &= holds(condition, world);
        } else if let Some(named) = line.strip_prefix("#[path = \"") {
            path = named.strip_suffix("\"]").map(str::to_owned);
        } else if let Some(name) = declared(line) {
            if there {
                follow(&module_file(&file, name, path.as_deref())?, world, seen)?;
            }
            (there, path) = (true, None);
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            (there, path) = (true, None);
        }
    }
    Ok(())
}

/// The name of a module that has a file of its own.
fn declared(line: &str) -> Option<&str> {
    let line = line.strip_suffix(';')?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["mod", name] => Some(name),
        [visibility, "mod", name] if visibility.starts_with("pub") => Some(name),
        _ => None,
    }
}

/// Where a module's file is.
fn module_file(parent: &Path, name: &str, path: Option<&str>) -> Result<PathBuf, Findings> {
    let folder = parent.parent().expect("a file is in a folder");
    if let Some(path) = path {
        return Ok(folder.join(path));
    }
    // `mod.rs`, a crate's root and a file named by a path have their modules beside them.
    let below = folder.join(parent.file_stem().expect("a file has a name"));
    [folder, &below]
        .iter()
        .flat_map(|at| [at.join(name).with_extension("rs"), at.join(name).join("mod.rs")])
        .find(|candidate| candidate.exists())
        .ok_or_else(|| vec![format!("{}: no file for module {name}", parent.display())])
}

/// Whether a condition holds in a world.
fn holds(condition: &str, world: World) -> bool {
    let condition: String = condition.chars().filter(|c| !c.is_whitespace()).collect();
    let inside = |name: &str| condition.strip_prefix(name)?.strip_suffix(')').map(parts);
    if let Some(all) = inside("all(") {
        return all.iter().all(|part| holds(part, world));
    }
    if let Some(any) = inside("any(") {
        return any.iter().any(|part| holds(part, world));
    }
    match inside("not(") {
        Some(not) => !not.iter().any(|part| holds(part, world)),
        None => world.contains(&condition.as_str()),
    }
}

/// What stands between the commas that are not inside of parentheses.
fn parts(list: &str) -> Vec<String> {
    let (mut all, mut depth) = (vec![String::new()], 0);
    for c in list.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        all.last_mut().expect("there is one from the start").push(c);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_weighed_in_both_worlds() {
        let table = [
            ("MODULE", false, true),
            ("not(MODULE)", true, false),
            ("feature = \"std\"", true, false),
            ("not(any(feature = \"std\", MODULE))", false, false),
            ("not(any(MODULE, all(feature = \"std\", debug_assertions)))", true, false),
            ("all(test, not(feature = \"shuttle\"))", false, false),
        ];
        for (condition, user, module) in table {
            assert_eq!(
                (holds(condition, USER), holds(condition, MODULE)),
                (user, module),
                "{condition}"
            );
        }
    }

    #[test]
    fn comments_blank_lines_and_tests_do_not_count() {
        let text = "//! what\n\nfn a() {\n    // why\n    b()\n}\n/*\n * C\n */\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(lines(text), 3);
    }

    #[test]
    fn the_walk_finds_what_each_world_compiles() {
        let root = crate::root().join("reference-driver/core/src/fencepost_core.rs");
        let files = |world| {
            let mut seen = BTreeSet::new();
            follow(&root, world, &mut seen).unwrap();
            seen
        };
        let (user, module) = (files(USER), files(MODULE));
        let has = |files: &BTreeSet<PathBuf>, end: &str| files.iter().any(|f| f.ends_with(end));
        assert!(has(&user, "core/src/drm/syncobj.rs") && !has(&module, "core/src/drm/syncobj.rs"));
        assert!(has(&module, "linux/syncobj.rs") && !has(&user, "linux/syncobj.rs"));
        assert!(has(&user, "gpuva/tree/mod.rs") && has(&module, "gpuva/tree/mod.rs"));
        assert!(!user.iter().any(|f| f.to_string_lossy().contains("tests")));
    }
}
