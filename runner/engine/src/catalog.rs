//! Which tests there are: every variant of every scenario of some texts, with what the runner has to
//! know before it starts one.
//!
//! Parameters whose values only a device adapter knows get the reference adapter's, since that list
//! is part of the program and needs no device.

use crate::lang::ast::Tier;
use crate::lang::{Diagnostics, Source, Variant, load, parse};
use fencepost_fixtures::device::{Caps, abi, kernel};
use std::time::Duration;

/// A test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// `suite@scenario@variant`, or `suite@scenario` when there is one variant only.
    pub name: String,
    /// What the scenario shows, one sentence.
    pub about: String,
    /// When it runs.
    pub tier: Tier,
    /// Capabilities without which it is skipped.
    pub needs: Vec<String>,
    /// Longest time that it asks for.
    pub timeout: Option<Duration>,
}

impl Test {
    /// Why a device with these capabilities cannot run it; none if it can.
    #[must_use]
    pub fn skip_reason(&self, caps: &Caps) -> Option<String> {
        let missing = caps.missing(self.needs.iter().map(String::as_str));
        (!missing.is_empty()).then(|| format!("the device has no {}", missing.join(", ")))
    }
}

/// The tests of a scenario file, in its order. `file` is its path, whose folder names the suite of
/// scenarios that name none.
///
/// # Errors
/// Every mistake in the file.
pub fn tests(file: &str, text: &str) -> Result<Vec<Test>, Diagnostics> {
    Ok(list(load(file, text)?))
}

/// As [`tests`] for a file that was checked before: only its YAML is looked at.
///
/// # Errors
/// Mistakes in the YAML.
pub fn tests_unchecked(file: &str, text: &str) -> Result<Vec<Test>, Diagnostics> {
    Ok(list(parse(file, text)?))
}

fn list(scenarios: Vec<crate::lang::Scenario>) -> Vec<Test> {
    let variants = scenarios.iter().flat_map(|scenario| scenario.variants_with(&device_values));
    variants
        .map(|Variant { name, test, .. }| Test {
            name,
            about: test.about,
            tier: test.tier,
            needs: test.needs,
            timeout: test.timeout,
        })
        .collect()
}

/// The variant of that full name in a file that was checked before; none if there is no such.
///
/// # Errors
/// Mistakes in the YAML.
pub fn find(file: &str, text: &str, test: &str) -> Result<Option<Variant>, Diagnostics> {
    let scenarios = parse(file, text)?;
    Ok(scenarios.iter().find_map(|scenario| scenario.find(test, &device_values)))
}

/// Values of device parameters.
fn device_values(source: Source) -> Option<Vec<String>> {
    let names = |prefix| kernel::cases(prefix).into_iter().map(|(name, _)| name).collect();
    match source {
        Source::KernelNodes => Some(names("nodes/")),
        Source::KernelUnload => Some(names("unload/")),
        Source::AbiCases => Some(abi::cases().into_iter().map(|case| case.name).collect()),
    }
}
