//! `acequia completions` and `acequia man`: files for shells and for man(1), from the definition of the command line.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Arguments;
use super::exit::EXIT_OUTPUT;
use super::terminal::{print, print_message};

/// The name of the program in the generated files.
const PROGRAM: &str = "acequia";

/// Prints the completions for a shell.
#[must_use]
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), PROGRAM, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes a man page for the program, and one for each command that is not hidden, into a directory.
#[must_use]
pub(super) fn man(directory: &Path) -> ExitCode {
    match write_man(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_message("error", &format!("cannot write to {}: {error}", directory.display()));
            ExitCode::from(EXIT_OUTPUT)
        }
    }
}

fn write_man(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    // Without the command `help`: it has each command as a subcommand, and each of these would get a second page.
    clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), directory)
}
