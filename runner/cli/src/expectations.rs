//! Tests that are known to fail: the file of `--expect`.
//!
//! Owns its syntax, a line each: a filter, the verdict that is expected, and the reason, which must
//! be there; `#` begins a comment line. The first line that means a test counts. A test that gets
//! the verdict is `xfail`, one that passes nevertheless `xpass`; any other verdict stays.

use std::path::Path;

use fencepost_results::Verdict;
use fencepost_results::verdict::Weight;

use crate::error::Error;
use crate::filter::Filter;

/// The expectations of a run.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    lines: Vec<(Filter, Verdict, String)>,
}

impl Expectations {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(Error::system(format!("read {}", path.display())))?;
        Self::parse(&text).map_err(|(line, mistake)| {
            Error::Usage(format!("{}:{line}: {mistake}", path.display()))
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            lines.push(expectation(line).map_err(|mistake| (number + 1, mistake))?);
        }
        Ok(Self { lines })
    }

    /// Judges a verdict by what was expected.
    pub(crate) fn apply(&self, test: &str, verdict: &mut Verdict, reason: &mut Option<String>) {
        let expected = self.lines.iter().find(|(filter, ..)| filter.matches(test));
        let Some((_, expected, why)) = expected else { return };
        if *verdict == *expected {
            let seen = reason.take().map_or_else(String::new, |r| format!(": {r}"));
            *reason = Some(format!("expected {expected} ({why}){seen}"));
            *verdict = Verdict::Xfail;
        } else if *verdict == Verdict::Pass {
            *reason = Some(format!("expected {expected} ({why})"));
            *verdict = Verdict::Xpass;
        }
    }
}

fn expectation(line: &str) -> Result<(Filter, Verdict, String), String> {
    let mut words = line.split_whitespace();
    let (filter, verdict) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let reason: Vec<&str> = words.collect();
    let filter = Filter::new(filter)?;
    let verdict = match Verdict::from_name(verdict) {
        Some(v) if v.weight() == Weight::Bad => v,
        _ => {
            return Err(format!(
                "`{verdict}` cannot be expected; take fail, inconclusive, crash or timeout"
            ));
        }
    };
    if reason.is_empty() {
        return Err("the reason is missing after the verdict".into());
    }
    Ok((filter, verdict, reason.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_failures_are_xfail_and_surprises_xpass() {
        let text = "# known\n\nvm-bind@split fail  bug 12\n*@split* crash  later line\n";
        let expectations = Expectations::parse(text).expect("parses");
        let table = [
            ("vm-bind@split@a", Verdict::Fail, Verdict::Xfail),
            ("vm-bind@split@a", Verdict::Pass, Verdict::Xpass),
            ("vm-bind@split@a", Verdict::Crash, Verdict::Crash),
            ("vm-bind@split@a", Verdict::Skip, Verdict::Skip),
            ("sync@split", Verdict::Crash, Verdict::Xfail),
            ("sync@other", Verdict::Fail, Verdict::Fail),
        ];
        for (test, seen, judged) in table {
            let (mut verdict, mut reason) = (seen, Some("seen".to_owned()));
            expectations.apply(test, &mut verdict, &mut reason);
            assert_eq!(verdict, judged, "{test} {seen}");
        }
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, line) in
            [("a pass x", 1), ("\na fail", 2), ("a fail x\n/(/ fail x", 2), ("a", 1)]
        {
            assert_eq!(Expectations::parse(text).expect_err("refused").0, line, "{text}");
        }
    }
}
