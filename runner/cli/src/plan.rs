//! What a run will execute: tests chosen by filters, tiers and partition, with the reason for each
//! that cannot run here.
//!
//! Owns the choice. Where tests come from is [`crate::catalog`]'s matter, what a filter means is
//! [`crate::filter`]'s.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use fencepost_engine::lang::ast::Tier;
use fencepost_results::Source;

use crate::args::{Selection, tier_name};
use crate::catalog::{self, Entry};
use crate::device;
use crate::error::Error;
use crate::filter::{Filter, nearest};

/// A test of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// Its name.
    pub(crate) name: String,
    /// Its tier.
    pub(crate) tier: Tier,
    /// Capabilities that it needs.
    pub(crate) needs: Vec<String>,
    /// Its own longest time.
    pub(crate) timeout: Option<Duration>,
    /// Where its text comes from.
    pub(crate) source: Source,
    /// Where the text is read, if not there: a replay takes what an earlier run kept.
    pub(crate) kept: Option<PathBuf>,
    /// Why it cannot run here.
    pub(crate) skip: Option<String>,
}

impl Planned {
    /// The entry, to be run or to be skipped for a reason.
    pub(crate) fn of(entry: Entry, skip: Option<String>) -> Self {
        let Entry { test, source } = entry;
        let (name, tier, needs, timeout) = (test.name, test.tier, test.needs, test.timeout);
        Self { name, tier, needs, timeout, source, kept: None, skip }
    }
}

/// One of several equal parts of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    index: u32,
    count: u32,
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, count)| {
            Some(Self { index: index.parse().ok()?, count: count.parse().ok()? })
        });
        match parsed {
            Some(p) if (1..=p.count).contains(&p.index) => Ok(p),
            _ => Err("a partition is I/N with I from 1 to N, e.g. 2/4".into()),
        }
    }
}

impl Partition {
    /// The test number `at` of the selection belongs to this part. Neighbours, which are variants
    /// of one scenario and take equally long, go to different parts.
    fn has(self, at: usize) -> bool {
        at as u64 % u64::from(self.count) == u64::from(self.index - 1)
    }
}

/// Makes the plan of a selection.
pub(crate) fn plan(selection: &Selection) -> Result<Vec<Planned>, Error> {
    let (files, filters) = split(&selection.filters)?;
    let capabilities = device::capabilities(&selection.device)?;
    let mut entries = Vec::new();
    if files.is_empty() || !filters.is_empty() {
        let all = catalog::bundled()?;
        entries = choose(all, &filters, &tiers(selection))?;
    }
    for file in files {
        entries.extend(catalog::file(&file)?);
    }
    refuse_duplicates(&entries)?;
    if let Some(partition) = selection.partition {
        let mut at = 0..;
        entries.retain(|_| partition.has(at.next().unwrap_or(0)));
    }
    Ok(with_skips(entries, &selection.device, &capabilities))
}

fn tiers(selection: &Selection) -> BTreeSet<Tier> {
    selection.tier.iter().map(|tier| Tier::from(*tier)).collect()
}

/// Tells scenario files from filters: a file ends in `.yaml` or `.yml`, or exists.
fn split(arguments: &[String]) -> Result<(Vec<PathBuf>, Vec<Filter>), Error> {
    let (mut files, mut filters) = (Vec::new(), Vec::new());
    for argument in arguments {
        let path = Path::new(argument);
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") || path.is_file() {
            files.push(path.to_owned());
        } else {
            filters.push(Filter::new(argument).map_err(Error::Usage)?);
        }
    }
    Ok((files, filters))
}

/// The entries that a filter means, in their order; all without filters. Each filter must mean one.
fn choose(
    all: Vec<Entry>,
    filters: &[Filter],
    tiers: &BTreeSet<Tier>,
) -> Result<Vec<Entry>, Error> {
    for filter in filters {
        let meant: Vec<&Entry> = all.iter().filter(|e| filter.matches(&e.test.name)).collect();
        if meant.is_empty() {
            return Err(Error::Usage(no_match(filter, &all)));
        }
        if !meant.iter().any(|e| tiers.contains(&e.test.tier)) {
            let tier = tier_name(meant[0].test.tier);
            return Err(Error::Usage(format!(
                "filter {filter} matches only tests of other tiers; add --tier {tier}"
            )));
        }
    }
    let chosen = |entry: &Entry| {
        tiers.contains(&entry.test.tier)
            && (filters.is_empty() || filters.iter().any(|f| f.matches(&entry.test.name)))
    };
    Ok(all.into_iter().filter(chosen).collect())
}

fn no_match(filter: &Filter, all: &[Entry]) -> String {
    let names: Vec<&str> = all.iter().map(|e| e.test.name.as_str()).collect();
    let near = nearest(&filter.to_string(), &names);
    let mut text = format!("filter {filter} matches no test");
    if near.is_empty() {
        text.push_str("; `fencepost list` shows them all");
    } else {
        text.push_str("; near are:");
        near.iter().for_each(|name| text.push_str(&format!("\n  {name}")));
    }
    text
}

fn refuse_duplicates(entries: &[Entry]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match entries.iter().find(|entry| !seen.insert(&entry.test.name)) {
        Some(twice) => Err(Error::Usage(format!("there are two tests {}", twice.test.name))),
        None => Ok(()),
    }
}

/// Marks what needs more than the device can do.
fn with_skips(entries: Vec<Entry>, device: &str, can: &BTreeSet<String>) -> Vec<Planned> {
    let planned = entries.into_iter().map(|entry| {
        let needs = entry.test.needs.iter().map(String::as_str);
        let missing: Vec<&str> = needs.filter(|need| !can.contains(*need)).collect();
        let skip =
            (!missing.is_empty()).then(|| format!("device {device} lacks {}", missing.join(", ")));
        Planned::of(entry, skip)
    });
    planned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_parse() {
        assert_eq!("2/4".parse(), Ok(Partition { index: 2, count: 4 }));
        for bad in ["", "1", "0/4", "5/4", "1/0", "a/b", "-1/2"] {
            assert!(bad.parse::<Partition>().is_err(), "{bad}");
        }
    }

    #[test]
    fn partitions_together_are_the_whole_without_overlap() {
        for count in 1..=5 {
            for at in 0..40 {
                let parts = (1..=count).filter(|i| Partition { index: *i, count }.has(at));
                assert_eq!(parts.count(), 1, "test {at} of {count} parts");
            }
        }
    }

    #[test]
    fn files_are_told_from_filters() {
        let (files, filters) =
            split(&["a/b.yaml".into(), "vm-bind".into(), "/x/".into(), "c.yml".into()])
                .expect("splits");
        assert_eq!(files, [PathBuf::from("a/b.yaml"), PathBuf::from("c.yml")]);
        assert_eq!(filters.len(), 2);
    }
}
