//! Why a command could not be done, in words for the person who typed it.

use std::io;

use fencepost_results::ExitCode;
use thiserror::Error;

/// A command could not be done.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The command line asks for something that does not exist or contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// Scenarios have mistakes; the text is the rendered diagnostics.
    #[error("{0}")]
    BadScenario(String),
    /// The system refused something that a run needs.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done, to what.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// The record of the run could not be kept.
    #[error("the run cannot be recorded: {0}")]
    Journal(io::Error),
}

impl Error {
    /// The exit code that it leads to.
    #[must_use]
    pub(crate) const fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::BadScenario(_) | Self::System { .. } => ExitCode::Usage,
            Self::Journal(_) => ExitCode::Incomplete,
        }
    }

    /// An [`Error::System`], for `map_err`.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }
}
