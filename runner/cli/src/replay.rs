//! `fencepost replay`: runs recorded tests again, each from its seed and its scenario as they were,
//! and says whether the same came of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode as Status;

use fencepost_results::journal::{FILE_NAME, Journal};
use fencepost_results::summary::{Summary, Test};
use fencepost_results::{Report, Source, TestStarted};

use crate::args::ReplayArgs;
use crate::catalog;
use crate::error::Error;
use crate::expectations::Expectations;
use crate::output::{complain, say};
use crate::plan::Planned;
use crate::run::{Folder, Order, execute, needs_attention};
use crate::stop::block_signals;

/// `fencepost replay`
pub(crate) fn command(args: ReplayArgs) -> Result<Status, Error> {
    // Before the first thread is started.
    let signals = block_signals().map_err(Error::system("block signals"))?;
    let (folder, wanted) = split(&args.result)?;
    let journal = Journal::read(&folder).map_err(|e| Error::Usage(e.to_string()))?;
    let recorded = Summary::of(&journal);
    let Some(run) = &recorded.run else {
        return Err(Error::Usage(format!("the run in {} did not begin", folder.display())));
    };
    let tests = choose(&recorded, wanted.as_deref(), &folder)?;
    let started: Vec<&TestStarted> = tests.iter().filter_map(|t| t.started.as_ref()).collect();
    let seed = started.first().map_or(run.seed, |started| started.seed);
    let mut planned = Vec::new();
    for started in started {
        planned.push(find(started, &folder)?);
    }
    let json = args.conduct.json;
    let outcome = execute(Order {
        tests: planned,
        device: run.device.clone(),
        seed,
        expectations: Expectations::default(),
        conduct: args.conduct,
        signals,
    })?;
    for before in tests {
        let now = outcome.summary.find(&before.name);
        let said = compare(before, now);
        if json { complain!("{said}") } else { say!("{said}") }
    }
    Ok(Status::from(outcome.code.code()))
}

/// Splits `DIR@TEST` where the left side is the folder of a run.
pub(crate) fn split(result: &str) -> Result<(PathBuf, Option<String>), Error> {
    let is_run = |path: &str| Path::new(path).join(FILE_NAME).is_file();
    if is_run(result) {
        return Ok((PathBuf::from(result), None));
    }
    // The folder's own path may have an `@` as well.
    let at = result.match_indices('@').map(|(at, _)| at).find(|at| is_run(&result[..*at]));
    match at {
        Some(at) => Ok((PathBuf::from(&result[..at]), Some(result[at + 1..].to_owned()))),
        None => Err(Error::Usage(format!(
            "{result} is neither the folder of a run nor DIR@TEST of one"
        ))),
    }
}

fn choose<'a>(
    recorded: &'a Summary,
    wanted: Option<&str>,
    folder: &Path,
) -> Result<Vec<&'a Test>, Error> {
    let folder = folder.display();
    let Some(name) = wanted else {
        let bad: Vec<&Test> = recorded
            .tests
            .iter()
            .filter(|test| needs_attention(test.verdict) && test.started.is_some())
            .collect();
        return if bad.is_empty() {
            Err(Error::Usage(format!("every test in {folder} passed; name one: {folder}@TEST")))
        } else {
            Ok(bad)
        };
    };
    let name = name.strip_prefix("igt@").unwrap_or(name);
    match recorded.find(name) {
        Some(test) if test.started.is_some() => Ok(vec![test]),
        Some(test) => Err(Error::Usage(format!(
            "{name} did not run in {folder}: {}",
            test.reason.as_deref().unwrap_or(test.verdict.name())
        ))),
        None => Err(Error::Usage(format!("there is no test {name} in {folder}"))),
    }
}

/// The test in the scenario as it was: a user's file from its copy in the run's folder, a bundled
/// one from this program.
fn find(started: &TestStarted, folder: &Path) -> Result<Planned, Error> {
    let (entries, kept) = match &started.source {
        Source::Bundled(path) => (catalog::bundled_file(path)?, None),
        Source::File(path) => {
            let copy = Folder::from(folder.to_owned()).scenario_copy(path);
            (catalog::file_as(&copy, Path::new(path))?, Some(copy))
        }
    };
    let entry = entries.into_iter().find(|entry| entry.test.name == started.test);
    match entry {
        Some(entry) => Ok(Planned { kept, ..Planned::of(entry, None) }),
        None => Err(Error::Usage(format!(
            "this program has no test {}; it was recorded by another version",
            started.test
        ))),
    }
}

/// Whether the same came of it.
fn compare(before: &Test, now: Option<&Test>) -> String {
    let name = &before.name;
    let Some(now) = now else { return format!("{name} was not run") };
    if before.verdict != now.verdict {
        return format!("{name}: {} now, {} as recorded", now.verdict, before.verdict);
    }
    if failures(before) == failures(now) {
        format!("{name}: {} as recorded", now.verdict)
    } else {
        format!("{name}: {} as recorded, but in another way", now.verdict)
    }
}

/// What tells one way to fail from another: the steps and what was checked there.
fn failures(test: &Test) -> Vec<(Option<(&str, u32)>, &str)> {
    let mut found = Vec::new();
    for report in &test.reports {
        if let Report::Failure(failure) = report {
            let step = failure.step.as_ref().map(|step| (step.actor.as_str(), step.line));
            found.push((step, failure.what.as_str()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_a_folder_and_perhaps_a_test() {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let folder = scratch.path().join("a@b");
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(folder.join(FILE_NAME), "").expect("written");
        let name = folder.display().to_string();
        assert_eq!(split(&name).expect("splits"), (folder.clone(), None));
        let test = split(&format!("{name}@vm-bind@x@y")).expect("splits");
        assert_eq!(test, (folder, Some("vm-bind@x@y".into())));
        for bad in ["", "@", "nowhere@vm-bind"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
