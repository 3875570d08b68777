//! `fencepost list`: what a run would execute, and what it would skip and why.

use std::io::{Write, stdout};
use std::process::ExitCode as Status;

use serde::Serialize;

use crate::args::{ListArgs, tier_name};
use crate::error::Error;
use crate::output::Style;
use crate::plan::{Planned, plan};

/// A test as `list --json` prints it.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    tier: &'static str,
    needs: &'a [String],
    skip: Option<&'a str>,
}

/// `fencepost list`
pub(crate) fn command(args: &ListArgs) -> Result<Status, Error> {
    let tests = plan(&args.selection)?;
    let written = if args.json { json(&tests) } else { lines(&tests) };
    match written {
        // `list | head` is no mistake.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::system("write the list")(error))
        }
        _ => Ok(Status::SUCCESS),
    }
}

fn json(tests: &[Planned]) -> std::io::Result<()> {
    let listed: Vec<Listed<'_>> = tests
        .iter()
        .map(|test| Listed {
            name: &test.name,
            tier: tier_name(test.tier),
            needs: &test.needs,
            skip: test.skip.as_deref(),
        })
        .collect();
    let text = serde_json::to_string_pretty(&listed).map_err(std::io::Error::other)?;
    writeln!(stdout(), "{text}")
}

fn lines(tests: &[Planned]) -> std::io::Result<()> {
    let out = stdout();
    let style = Style::of(&out);
    let mut out = std::io::BufWriter::new(out.lock());
    for test in tests {
        let tier = match tier_name(test.tier) {
            "full" => String::new(),
            other => format!(" [{other}]"),
        };
        let skip = test.skip.as_ref().map_or_else(String::new, |s| format!(" (skipped: {s})"));
        writeln!(out, "{}{}{}", test.name, style.faint(tier), style.odd(skip))?;
    }
    out.flush()
}
