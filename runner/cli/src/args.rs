//! The command line: every command and flag with its help, and nothing of what they do.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::plan::Partition;
use fencepost_engine::lang::ast::Tier;

const EXIT_CODES: &str = "\
Exit codes: 0 all as expected; 1 failures; 2 usage error or bad scenario; 3 only unexpected \
passes; 4 nothing ran; 5 performance regression only; 6 aborted; 7 incomplete; 130 interrupted.";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

/// Conformance and stress suite for GPU kernel drivers' memory management.
#[derive(Debug, Parser)]
#[command(name = "fencepost", version, styles = STYLES, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the matching tests and record what happened
    Run(RunArgs),
    /// List the tests that a run would execute, and which would be skipped and why
    List(ListArgs),
    /// Diagnose scenario files without running them
    Check(CheckArgs),
    /// Run recorded tests again, each with its seed and its scenario as they were
    Replay(ReplayArgs),
    /// Compare the tests and verdicts of two runs
    Compare(CompareArgs),
    /// Run any program against the reference driver
    Exec(ExecArgs),
    /// Say what this machine offers, what is missing, and how to get it
    Doctor(DoctorArgs),
    /// Print the JSON Schema of scenario files, for editors
    Schema,
    /// Boot a kernel with fencepost.ko, run a fencepost command inside, bring the results out
    Vm(Box<crate::vm::VmArgs>),
    /// Random calls on a node of the module, kills at random points, load and unload under traffic
    Fuzz(crate::fuzz::FuzzArgs),
    /// Talk to fencepost_gpuva.ko; started by `cargo xtask gpuva-check` in a guest
    #[command(hide = true)]
    GpuvaCheck(crate::gpuva::GpuvaArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page in roff
    Man,
}

/// Which tests.
#[derive(Debug, Args)]
pub struct Selection {
    /// Tests by name, `suite@scenario@variant`: a leading part (`vm-bind`, `vm-bind@split`), a glob
    /// (`*@evict*`), a regular expression between slashes (`/map.*64K/`), or scenario files
    /// (`mine.yaml`). Without any: all bundled ones
    #[arg(value_name = "FILTER", value_hint = ValueHint::FilePath)]
    pub filters: Vec<String>,

    /// Device under test: `ref` is the bundled driver in user space
    #[arg(long, value_name = "NAME", default_value = "ref")]
    pub device: String,

    /// Tiers to take, separated by commas; named scenario files are taken whatever their tier
    #[arg(long, value_enum, value_delimiter = ',', default_value = "smoke,full")]
    pub tier: Vec<TierArg>,

    /// Take the I-th of N parts of the tests (1/4 ... 4/4), to spread a run over machines
    #[arg(long, value_name = "I/N")]
    pub partition: Option<Partition>,
}

/// `fencepost run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which tests.
    #[command(flatten)]
    pub selection: Selection,

    /// Seed of everything random, decimal or 0x hexadecimal; default: a new one, which is printed
    #[arg(long, value_parser = parse_seed)]
    pub seed: Option<u64>,

    /// File of tests that are known to fail: lines `FILTER VERDICT REASON`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub expect: Option<PathBuf>,

    /// How to run.
    #[command(flatten)]
    pub conduct: Conduct,
}

/// How a run is carried out and where it is recorded.
#[derive(Debug, Args)]
pub struct Conduct {
    /// Number of tests at a time; default: the number of CPUs
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,

    /// Folder for this run's results; default: a new one below results/runs/
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub results: Option<PathBuf>,

    /// Longest time for one test, e.g. 500ms, 30s, 2m; default: the scenario's own, else 60s, times
    /// what --slow says
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub per_test_timeout: Option<Duration>,

    /// Let tests take so many times as long, on a slow machine
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub slow: u32,

    /// Longest time for the whole run; tests that are left then are not run
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub overall_timeout: Option<Duration>,

    /// Print one JSON object on standard output at the end; text goes to standard error
    #[arg(long)]
    pub json: bool,

    /// Print a line for every test, not only for those that did not pass
    #[arg(long, short)]
    pub verbose: bool,
}

/// `fencepost list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Which tests.
    #[command(flatten)]
    pub selection: Selection,

    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// `fencepost check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Scenario files, or folders of them
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,

    /// Print a JSON array of the mistakes
    #[arg(long)]
    pub json: bool,
}

/// `fencepost replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// What to replay: `DIR@TEST` for one test of a run, `DIR` for all that did not pass
    #[arg(value_name = "RESULT", value_hint = ValueHint::DirPath)]
    pub result: String,

    /// How to run.
    #[command(flatten)]
    pub conduct: Conduct,
}

/// `fencepost compare`
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folder of the run to compare with
    #[arg(value_name = "BASE", value_hint = ValueHint::DirPath)]
    pub base: PathBuf,

    /// Folder of the other run
    #[arg(value_name = "NEW", value_hint = ValueHint::DirPath)]
    pub new: PathBuf,

    /// Tests to look at, as `run` takes them; default: all
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,

    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `fencepost exec`
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Print the device's counters that moved, on standard error, when the program has ended
    #[arg(long)]
    pub counters: bool,

    /// Run it on the machine's own devices instead; in a guest of `fencepost vm` those are the
    /// module's
    #[arg(long, conflicts_with = "counters")]
    pub native: bool,

    /// The program and its arguments; it finds the device as /dev/dri/card0 and
    /// /dev/dri/renderD128
    #[arg(required = true, last = true, value_name = "PROGRAM", value_hint = ValueHint::CommandWithArguments)]
    pub program: Vec<std::ffi::OsString>,
}

/// `fencepost doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// The tiers as flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierArg {
    /// Seconds for all of them together
    Smoke,
    /// The ordinary case
    Full,
    /// Minutes each
    Soak,
}

impl From<TierArg> for Tier {
    fn from(tier: TierArg) -> Self {
        match tier {
            TierArg::Smoke => Self::Smoke,
            TierArg::Full => Self::Full,
            TierArg::Soak => Self::Soak,
        }
    }
}

/// The name of a tier in lists.
pub(crate) const fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Smoke => "smoke",
        Tier::Full => "full",
        Tier::Soak => "soak",
    }
}

/// A seed: decimal, or hexadecimal after `0x`.
pub(crate) fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| format!("{e}; a seed is a number of 64 bits, e.g. 7 or 0x1f"))
}

/// A time with its unit: `500ms`, `30s`, `2m`, `1h`. Not 0.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a time is a whole number with its unit: 500ms, 30s, 2m or 1h".into()),
    };
    match number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale_ms)) {
        Some(0) => Err("a time must be longer than 0".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err("a time is a whole number with its unit: 500ms, 30s, 2m or 1h".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!(parse_seed("7"), Ok(7));
        assert_eq!(parse_seed("0xff"), Ok(255));
        assert_eq!(parse_seed("18446744073709551615"), Ok(u64::MAX));
        for bad in ["", "-1", "0x", "1.5", "18446744073709551616"] {
            assert!(parse_seed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        let table = [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)];
        for (text, ms) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
        for bad in ["", "30", "s", "0s", "-1s", "1.5s", "1 s", "99999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
