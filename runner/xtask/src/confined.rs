//! `cargo xtask confined PROFILE COMMAND...`: runs a command under a filter shaped like the default
//! profile of a container runtime. Owns nothing but that; the profiles are the host's.

use std::process::Command;

use fencepost_host::live::{container_profile, refuse_calls};

use super::Findings;

/// What to run, and under what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// docker: no userfaultfd, io_uring, pidfd_getfd; podman: no process_vm_* and ptrace either
    profile: String,
    /// The command
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

/// The task.
pub(crate) fn task(options: &Options) -> Result<String, Findings> {
    let finding = |what: &dyn std::fmt::Display| vec![format!("confined: {what}")];
    let refused = container_profile(&options.profile)
        .ok_or_else(|| finding(&"no such profile: docker, podman"))?;
    refuse_calls(&refused).map_err(|error| finding(&error))?;
    let (program, arguments) = options.command.split_first().ok_or_else(Vec::new)?;
    let status = Command::new(program).args(arguments).status().map_err(|error| finding(&error))?;
    if status.success() { Ok(String::new()) } else { Err(finding(&status)) }
}
