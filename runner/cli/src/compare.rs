//! `fencepost compare`: whether two runs had the same tests with the same verdicts.
//!
//! Owns the comparison and how it is told. Exit status 0: the same; 1: different.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode as Status;

use fencepost_results::journal::Journal;
use fencepost_results::summary::Summary;
use fencepost_results::{ExitCode, Verdict};
use serde::Serialize;

use crate::args::CompareArgs;
use crate::error::Error;
use crate::filter::Filter;
use crate::output::{Style, count, say};

/// The tests of a run with their verdicts.
type Verdicts = BTreeMap<String, Verdict>;

/// A test with another verdict.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Changed {
    name: String,
    base: Verdict,
    new: Verdict,
}

/// What differs between two runs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Comparison {
    version: u32,
    /// Number of tests with the same verdict in both.
    same: u64,
    only_base: Vec<String>,
    only_new: Vec<String>,
    changed: Vec<Changed>,
}

/// `fencepost compare`
pub(crate) fn command(args: &CompareArgs) -> Result<Status, Error> {
    let (mut base, mut new) = (read(&args.base)?, read(&args.new)?);
    let filters = args.filters.iter().map(|text| Filter::new(text).map_err(Error::Usage));
    let filters: Vec<Filter> = filters.collect::<Result<_, _>>()?;
    for filter in &filters {
        if !base.keys().chain(new.keys()).any(|name| filter.matches(name)) {
            return Err(Error::Usage(format!("filter {filter} matches no test of the two runs")));
        }
    }
    for run in [&mut base, &mut new] {
        run.retain(|name, _| filters.is_empty() || filters.iter().any(|f| f.matches(name)));
    }
    let comparison = compare(&base, &new);
    if args.json {
        say!("{}", serde_json::to_string_pretty(&comparison).expect("all keys are strings"));
    } else {
        say!("{}", text(&comparison, Style::of(&std::io::stdout())));
    }
    let code = if comparison.is_same() { ExitCode::Success } else { ExitCode::Failures };
    Ok(Status::from(code.code()))
}

fn read(folder: &Path) -> Result<Verdicts, Error> {
    let journal = Journal::read(folder)
        .map_err(|error| Error::Usage(format!("{}: {error}", folder.display())))?;
    let tests = Summary::of(&journal).tests;
    if tests.is_empty() {
        return Err(Error::Usage(format!("{} is the record of no test", folder.display())));
    }
    Ok(tests.into_iter().map(|test| (test.name, test.verdict)).collect())
}

fn compare(base: &Verdicts, new: &Verdicts) -> Comparison {
    let names: BTreeSet<&String> = base.keys().chain(new.keys()).collect();
    let mut out = Comparison {
        version: 1,
        same: 0,
        only_base: Vec::new(),
        only_new: Vec::new(),
        changed: Vec::new(),
    };
    for name in names {
        match (base.get(name), new.get(name)) {
            (Some(base), Some(new)) if base == new => out.same += 1,
            (Some(base), Some(new)) => {
                out.changed.push(Changed { name: name.clone(), base: *base, new: *new });
            }
            (Some(_), None) => out.only_base.push(name.clone()),
            (None, _) => out.only_new.push(name.clone()),
        }
    }
    out
}

impl Comparison {
    fn is_same(&self) -> bool {
        self.only_base.is_empty() && self.only_new.is_empty() && self.changed.is_empty()
    }
}

fn text(comparison: &Comparison, style: Style) -> String {
    let mut text = String::new();
    let mut line = |what: String| writeln!(text, "{what}").expect("a string takes any text");
    for (which, names) in [("base", &comparison.only_base), ("new", &comparison.only_new)] {
        for name in names {
            line(format!("{}  {name}", style.odd(format!("only in {which:4}"))));
        }
    }
    for Changed { name, base, new } in &comparison.changed {
        line(format!("{}  {name}: {base} -> {new}", style.bad("different   ")));
    }
    let same = count(comparison.same, "test");
    let Comparison { only_base, only_new, changed, .. } = comparison;
    let end = match comparison.is_same() {
        true => style.good(format!("{same}, the same verdicts")),
        false => style.bad(format!(
            "{same} the same, {} different, {} only in base, {} only in new",
            changed.len(),
            only_base.len(),
            only_new.len()
        )),
    };
    text + &end
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::*;

    fn verdicts(tests: &[(&str, Verdict)]) -> Verdicts {
        tests.iter().map(|(name, verdict)| ((*name).to_owned(), *verdict)).collect()
    }

    #[test]
    fn names_and_verdicts_are_compared() {
        let base = verdicts(&[("a@x", Pass), ("b@x", Pass), ("c@x", Skip), ("d@x", Fail)]);
        let new = verdicts(&[("a@x", Pass), ("b@x", Fail), ("d@x", Fail), ("e@x", Pass)]);
        let found = compare(&base, &new);
        assert!(!found.is_same());
        let json = serde_json::to_string(&found).expect("serialises");
        insta::assert_snapshot!(json, @r#"{"version":1,"same":2,"only_base":["c@x"],"only_new":["e@x"],"changed":[{"name":"b@x","base":"pass","new":"fail"}]}"#);
        let plain = Style::of(&std::fs::File::open("/dev/null").expect("opens"));
        insta::assert_snapshot!(text(&found, plain), @r"
        only in base  c@x
        only in new   e@x
        different     b@x: pass -> fail
        2 tests the same, 1 different, 1 only in base, 1 only in new
        ");
        let same = compare(&base, &base);
        assert!(same.is_same());
        insta::assert_snapshot!(text(&same, plain), @"4 tests, the same verdicts");
    }
}
