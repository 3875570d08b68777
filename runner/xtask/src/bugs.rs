//! `cargo xtask bugs`: plants bugs of one line in SVM, migration and exclusive access, one at a time in
//! a copy of the tree, and checks that tests catch each.
//!
//! Owns the table of bugs and their killers. What the kernel reports of a broken module is another
//! matter: [`crate::kernel`]'s plants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Findings;

/// How many seconds tests may take until they count as hung, which catches a bug as well.
const LIMIT: u32 = 300;

/// Which bugs.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Bugs by name; default: all
    #[arg(value_name = "BUG")]
    bugs: Vec<String>,
}

/// What catches a bug.
#[derive(Clone, Copy, Debug)]
enum Killer {
    /// The driver's own tests over the simulated world.
    Core,
    /// Tests of the world in user space, on the way that works everywhere.
    Live,
}

impl Killer {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Killer::Core => &["--package", "fencepost-core", "--test", "driver"],
            Killer::Live => &["--package", "fencepost-host", "--test", "live"],
        }
    }

    fn filter(self) -> &'static str {
        match self {
            Killer::Core => "svm",
            Killer::Live => "live::protect::",
        }
    }
}

/// A bug: its name, the file under `reference-driver`, what stands there once, what is put there.
type Bug = (&'static str, Killer, &'static str, &'static str, &'static str);

const BUGS: &[Bug] = &[
    (
        "missing-retry",
        Killer::Core,
        "core/src/svm/pages.rs",
        "if self.dev().host.read_retry(window.notifier(), seq) {",
        "if self.dev().host.read_retry(window.notifier(), seq) && seq == u64::MAX {",
    ),
    (
        "invalidation-one-page-short",
        Killer::Core,
        "core/src/svm/range.rs",
        "range.clear(vm, range.span.clip(span), zap);",
        "let s = range.span.clip(span); range.clear(vm, if s.len() > PAGE_SIZE \
         { Span::new(s.start, s.end - PAGE_SIZE) } else { s }, zap);",
    ),
    (
        "permissions-widened-on-migrate",
        Killer::Core,
        "core/src/svm/pages.rs",
        "let write = if page.has(Pfn::WRITE) {",
        "let write = if page.has(Pfn::WRITE) || page.has(Pfn::DEVICE) {",
    ),
    (
        "partial-unmap-leaves-the-rest-mapped",
        Killer::Core,
        "core/src/svm/range.rs",
        "range.clear(vm, range.span, zap);",
        "range.clear(vm, range.span.clip(span), zap);",
    ),
    (
        "exclusive-without-retry",
        Killer::Core,
        "core/src/svm/exclusive.rs",
        "if dev.host.read_retry(window.notifier(), seq) {",
        "if dev.host.read_retry(window.notifier(), seq) && seq == u64::MAX {",
    ),
    (
        "timeslice-ignored",
        Killer::Core,
        "core/src/svm/migrate.rs",
        "if dev.host.now_ns() < chunk.until_ns {",
        "if dev.host.now_ns() < chunk.until_ns && chunk.frames == 0 {",
    ),
    (
        "undone-move-takes-a-peers-pages",
        Killer::Core,
        "core/src/svm/migrate.rs",
        "if whose == Whose::Ours && device != host.device() {",
        "if whose == Whose::Ours && device > 64 {",
    ),
    (
        "pages-leave-a-peer-unasked",
        Killer::Core,
        "core/src/svm/migrate.rs",
        "Source::Device { order, .. } if leaving.has(at) =>",
        "Source::Device { order, .. } if leaving.has(at) || order == 0 =>",
    ),
    (
        "batch-asks-for-reads-only",
        Killer::Core,
        "core/src/svm/fault.rs",
        "fill.ask(at, fault.access.writes());",
        "fill.ask(at, false);",
    ),
    (
        "frames-freed-twice",
        Killer::Core,
        "core/src/svm/migrate.rs",
        "if !handed.has(block.first + page) {",
        "if !handed.has(block.first + page) || block.first + page == 0 {",
    ),
    (
        "atomics-without-exclusive-access",
        Killer::Core,
        "core/src/svm/pages.rs",
        "(SVM_ATOMIC_DEVICE, _) | (_, true) => Page::ATOMIC,",
        "(SVM_ATOMIC_DEVICE, _) | (_, _) => Page::ATOMIC,",
    ),
    (
        "dma-mapping-cut",
        Killer::Core,
        "core/src/svm/range.rs",
        "while end < self.pages.len() && self.pages[end].is_tail() {",
        "while end < self.pages.len() && self.pages[end].is_tail() && first > end {",
    ),
    (
        "exclusive-not-revoked-on-read",
        Killer::Live,
        "host/src/live/mm/cpu_fault.rs",
        "let _begun = space.notifiers.begin(span, Event::Clear, 0);",
        "",
    ),
    (
        "old-address-mapped-after-mremap",
        Killer::Live,
        "host/src/live/mm/trap.rs",
        "effects.push(unmap(source, Away::Back));",
        "effects.push(Effect { event: None, ..unmap(source, Away::Back) });",
    ),
    (
        "page-lost-on-partial-unmap",
        Killer::Live,
        "host/src/live/mm/space.rs",
        "self.table().forget(span);\n        for run in &runs {",
        "self.table().forget(Span::new(span.start, span.end + PAGE));\n        for run in &runs {",
    ),
    (
        "moved-page-keeps-its-translation",
        Killer::Live,
        "host/src/live/migrate/migration.rs",
        "drop(space.notifiers.begin(span, Event::Migrate, owner));\n        // What no",
        "// What no",
    ),
];

/// Plants them; a finding for each that no test catches.
pub(crate) fn task(root: &Path, options: &Options) -> Result<String, Findings> {
    let known = |name: &String| BUGS.iter().any(|bug| bug.0 == name);
    if let Some(unknown) = options.bugs.iter().find(|name| !known(name)) {
        return Err(vec![format!("bugs: there is no {unknown}")]);
    }
    let tree = copy(root)?;
    let wanted = |bug: &&Bug| options.bugs.is_empty() || options.bugs.iter().any(|n| n == bug.0);
    let (mut findings, mut caught) = (Findings::new(), Vec::new());
    for bug in BUGS.iter().filter(wanted) {
        match plant(&tree, bug) {
            Ok(how) => {
                let line = format!("{}: {how}", bug.0);
                eprintln!("bugs: {line}");
                caught.push(line);
            }
            Err(why) => findings.push(format!("bugs: {}: {why}", bug.0)),
        }
    }
    if findings.is_empty() { Ok(format!("bugs: {} caught", caught.len())) } else { Err(findings) }
}

/// A copy of what git knows of the tree, files that are the same left alone.
fn copy(root: &Path) -> Result<PathBuf, Findings> {
    let fail = |what: &str, error: &dyn std::fmt::Display| vec![format!("bugs: {what}: {error}")];
    let tree = root.join("target/bugs/tree");
    let listed = Command::new("git").current_dir(root).args(["ls-files", "-z"]).output();
    let listed = listed.map_err(|error| fail("git ls-files", &error))?;
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let (from, to) = (root.join(&name), tree.join(&name));
        let Ok(content) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        let folder = to.parent().unwrap_or(&tree);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&to, content))
            .map_err(|error| fail(&name, &error))?;
    }
    Ok(tree)
}

/// Plants a bug, has its killer run, takes it out. Gives how it was caught.
fn plant(tree: &Path, (_, killer, file, from, to): &Bug) -> Result<String, String> {
    let path = tree.join("reference-driver").join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
    if text.matches(from).count() != 1 {
        return Err(format!("{file} does not have this line once: {from}"));
    }
    let write = |text: &str| fs::write(&path, text).map_err(|error| format!("{file}: {error}"));
    write(&text.replace(from, to))?;
    let seen = run(tree, *killer);
    write(&text)?;
    seen
}

/// Runs cargo's tests with further arguments: whether they pass; `None`: they do not end.
fn tests(tree: &Path, killer: Killer, limit: u32, more: &[&str]) -> Result<Option<bool>, String> {
    /// What `timeout(1)` says; it ends the tests' processes as well.
    const HUNG: i32 = 124;
    let mut cargo = Command::new("timeout");
    cargo.args(["--kill-after", "5", &limit.to_string()]);
    cargo.arg(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", tree.with_file_name("target"));
    // Denied warnings are not what should catch a bug.
    cargo.env_remove("RUSTFLAGS").args(["test", "--quiet"]).args(killer.arguments()).args(more);
    cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = cargo.status().map_err(|error| error.to_string())?;
    Ok((status.code() != Some(HUNG)).then(|| status.success()))
}

fn run(tree: &Path, killer: Killer) -> Result<String, String> {
    if tests(tree, killer, 4 * LIMIT, &["--no-run"])? != Some(true) {
        return Err("it does not build".to_owned());
    }
    match tests(tree, killer, LIMIT, &["--", killer.filter()])? {
        Some(false) => Ok(format!("tests of {killer:?} fail")),
        None => Ok(format!("tests of {killer:?} hang")),
        Some(true) => Err(format!("tests of {killer:?} pass")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_its_line() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../reference-driver");
        for (name, _, file, from, to) in BUGS {
            let text = fs::read_to_string(root.join(file)).expect(file);
            assert_eq!(text.matches(from).count(), 1, "{name}: {file} has not this once: {from}");
            assert_ne!(from, to, "{name}");
        }
    }
}
