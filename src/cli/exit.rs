//! Exit codes. Invalid arguments exit with 2, from clap.

/// The configuration is invalid, or the process has rejected a request.
pub const EXIT_CONFIG: u8 = 1;

/// The answer could not be written.
pub(super) const EXIT_OUTPUT: u8 = 1;

/// An argument does not fit the configuration.
pub(super) const EXIT_USAGE: u8 = 2;

/// The process could not start or go on, or no process answers.
pub const EXIT_RUN: u8 = 3;
