//! The tests that there are: bundled scenarios and users' files.

use std::fs;
use std::path::Path;

use fencepost_engine::catalog::{Test, tests, tests_unchecked};
use fencepost_engine::lang::Diagnostics;
use fencepost_results::Source;

use crate::error::Error;
use crate::output::Style;

/// A test and where its text comes from.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) test: Test,
    pub(crate) source: Source,
}

/// Every bundled test, in the order of the files' paths and of the variants in a file. The files
/// were checked when the program was built and tested.
pub(crate) fn bundled() -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for file in fencepost_suites::FILES {
        entries.extend(bundled_file(file.path)?);
    }
    Ok(entries)
}

/// The tests of one bundled file.
pub(crate) fn bundled_file(path: &str) -> Result<Vec<Entry>, Error> {
    match fencepost_suites::find(path) {
        Some(file) => {
            let source = Source::Bundled(path.into());
            entries(tests_unchecked(file.path, file.text), &source)
        }
        None => Err(Error::Usage(format!("this program bundles no scenario {path}"))),
    }
}

/// The tests of a user's file.
pub(crate) fn file(path: &Path) -> Result<Vec<Entry>, Error> {
    file_as(path, path)
}

/// The tests of a file that is a copy of the user's file `name`.
pub(crate) fn file_as(path: &Path, name: &Path) -> Result<Vec<Entry>, Error> {
    let text =
        fs::read_to_string(path).map_err(Error::system(format!("read {}", path.display())))?;
    let name = name.to_string_lossy();
    let source = Source::File(name.clone().into_owned());
    entries(tests(&name, &text), &source)
}

fn entries(tests: Result<Vec<Test>, Diagnostics>, source: &Source) -> Result<Vec<Entry>, Error> {
    let tests = tests.map_err(|mistakes| {
        let style = Style::of(&std::io::stderr());
        Error::BadScenario(mistakes.render(style.colour()))
    })?;
    Ok(tests.into_iter().map(|test| Entry { test, source: source.clone() }).collect())
}
