//! Start, command line, drain, exit.

mod drain;
mod trimmed;
mod restart;
mod commands;
mod demo;
