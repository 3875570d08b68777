//! What is generated from the program itself: the schema of scenarios, completions, the manual.

use std::io::{Write as _, stdout};
use std::process::ExitCode as Status;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::error::Error;

/// `fencepost completions`
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<Status, Error> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "fencepost", &mut text);
    print(&text)
}

/// `fencepost man`: one page, the commands as sections of it.
pub(crate) fn man() -> Result<Status, Error> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    command.build();
    let write = |text: &mut Vec<u8>| -> std::io::Result<()> {
        clap_mangen::Man::new(command.clone()).render(text)?;
        for sub in command.get_subcommands() {
            let name = sub.get_name().to_uppercase();
            writeln!(text, ".SH \"FENCEPOST {name}\"")?;
            let page = clap_mangen::Man::new(sub.clone());
            page.render_synopsis_section(text)?;
            page.render_description_section(text)?;
            page.render_options_section(text)?;
        }
        Ok(())
    };
    write(&mut text).map_err(Error::system("generate the manual page"))?;
    print(&text)
}

/// `fencepost schema`
pub(crate) fn schema() -> Result<Status, Error> {
    let text = fencepost_engine::lang::schema::schema_text();
    print(text.as_bytes())
}

fn print(text: &[u8]) -> Result<Status, Error> {
    match stdout().write_all(text) {
        // A reader that has enough is no mistake.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::system("write to standard output")(error))
        }
        _ => Ok(Status::SUCCESS),
    }
}
