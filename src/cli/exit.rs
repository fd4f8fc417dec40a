//! Exit codes. For invalid arguments, clap exits with 2.

use std::process::ExitCode;

use crate::config::report::Report;

/// The configuration, a file that it names or a request is invalid, the running acequia has rejected the request or
/// runs another configuration file than the command names or finds, `check --live` has found an error, or `init` has
/// failed.
pub const EXIT_CONFIG: u8 = 1;

/// The output could not be written.
pub(super) const EXIT_OUTPUT: u8 = 1;

/// An argument is invalid, or does not fit the configuration or the command; or `top` has no terminal.
pub(super) const EXIT_USAGE: u8 = 2;

/// The load balancer could not start or go on, no running acequia answers, a file cannot be read, or the terminal of
/// `top` has failed.
pub const EXIT_RUN: u8 = 3;

/// The exit code for a configuration with these errors.
pub(super) fn for_report(report: &Report) -> ExitCode {
    ExitCode::from(if report.is_unreadable() { EXIT_RUN } else { EXIT_CONFIG })
}
