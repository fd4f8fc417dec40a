//! Starting, the command line, draining, and exit codes.

mod drain;
mod restart;
mod commands;
mod demo;
