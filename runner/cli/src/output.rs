//! How text looks: colour only on a terminal and without `NO_COLOR`, arguments quoted for a shell,
//! tables aligned.

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// A line to stdout. Whoever read it may have gone (`| head`): that ends the output, never the run.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;

/// A line to stderr; see [`say`].
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
pub(crate) use complain;

/// Whether and how to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    /// The style for a stream: colour if it is a terminal that wants it.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self { colour: stream.is_terminal() && !unwanted }
    }

    /// Whether it colours.
    pub(crate) const fn colour(self) -> bool {
        self.colour
    }

    pub(crate) fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    pub(crate) fn bad(self, text: impl Display) -> String {
        self.paint("1;31", text)
    }

    pub(crate) fn odd(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    pub(crate) fn faint(self, text: impl Display) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// The argument as a POSIX shell reads it back.
pub(crate) fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@=+,:%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

/// In a guest of `fencepost vm`: the command outside that boots it again.
pub(crate) const OUTSIDE_COMMAND: &str = "FENCEPOST_OUTSIDE_COMMAND";
/// In a guest of `fencepost vm`: the folder outside that is its results folder.
pub(crate) const OUTSIDE_RESULTS: &str = "FENCEPOST_OUTSIDE_RESULTS";

/// A path as the user finds it, who is outside of the guest if this is one.
pub(crate) fn shown(path: &Path) -> PathBuf {
    let inside = path.strip_prefix(crate::vm::guest::RESULTS);
    match (std::env::var_os(OUTSIDE_RESULTS), inside) {
        (Some(outside), Ok(rest)) => Path::new(&outside).join(rest),
        _ => path.to_owned(),
    }
}

/// How the user called this program, for commands to paste.
pub(crate) fn program() -> String {
    if let Ok(command) = std::env::var(OUTSIDE_COMMAND) {
        return command;
    }
    std::env::args().next().map_or_else(|| "fencepost".into(), |name| quote(&name))
}

/// One word for a number of things: `1 test`, `2 tests`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_when_a_shell_would_touch_them() {
        for (argument, quoted) in [
            (
                "results/runs/a@vm-bind@x@pages=1,kind=vram",
                "results/runs/a@vm-bind@x@pages=1,kind=vram",
            ),
            ("a b", "'a b'"),
            ("", "''"),
            ("it's", "'it'\\''s'"),
            ("a*", "'a*'"),
        ] {
            assert_eq!(quote(argument), quoted);
        }
    }

    #[test]
    fn numbers_and_things_agree() {
        assert_eq!(count(1, "test"), "1 test");
        assert_eq!(count(0, "test"), "0 tests");
    }
}
