//! The tests that there are: bundled scenarios and users' files, expanded into variants.

use std::fs;
use std::path::Path;

use fencepost_engine::lang::{self, Scenario, Test};
use fencepost_results::Source;

use crate::device::Offers;
use crate::error::Error;
use crate::output::Style;

/// A test and where its text comes from.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) test: Test,
    pub(crate) source: Source,
}

/// The tests that a device's offers make of the scenarios: some parameters take their values from
/// the device.
pub(crate) struct Catalog<'a> {
    pub(crate) offers: &'a Offers,
}

impl Catalog<'_> {
    /// Every bundled test, in the order of the files' paths and of the variants in a file.
    pub(crate) fn bundled(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for file in fencepost_suites::FILES {
            let source = Source::Bundled(file.path.into());
            entries.extend(self.parse(file.path, file.text, &source)?);
        }
        Ok(entries)
    }

    /// The tests of one bundled file.
    pub(crate) fn bundled_file(&self, path: &str) -> Result<Vec<Entry>, Error> {
        match fencepost_suites::find(path) {
            Some(file) => self.parse(file.path, file.text, &Source::Bundled(path.into())),
            None => Err(Error::Usage(format!("this program bundles no scenario {path}"))),
        }
    }

    /// The tests of a user's file.
    pub(crate) fn file(&self, path: &Path) -> Result<Vec<Entry>, Error> {
        self.file_as(path, path)
    }

    /// The tests of a file that is a copy of the user's file `name`.
    pub(crate) fn file_as(&self, path: &Path, name: &Path) -> Result<Vec<Entry>, Error> {
        let text =
            fs::read_to_string(path).map_err(Error::system(format!("read {}", path.display())))?;
        let name = name.to_string_lossy();
        self.parse(&name, &text, &Source::File(name.clone().into_owned()))
    }

    fn parse(&self, name: &str, text: &str, source: &Source) -> Result<Vec<Entry>, Error> {
        let scenarios = lang::load(name, text).map_err(|mistakes| {
            let style = Style::of(&std::io::stderr());
            Error::BadScenario(mistakes.render(style.colour()))
        })?;
        let variants =
            |scenario: &Scenario| scenario.variants_with(&|from| self.offers.values(from));
        Ok(scenarios
            .iter()
            .flat_map(variants)
            .map(|variant| Entry { test: variant.test, source: source.clone() })
            .collect())
    }
}
