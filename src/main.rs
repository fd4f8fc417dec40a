//! Arguments -> command -> exit code; nothing else.

use std::process::ExitCode;

use acequia::cli::Arguments;
use clap::Parser;

fn main() -> ExitCode {
    Arguments::parse().run()
}
