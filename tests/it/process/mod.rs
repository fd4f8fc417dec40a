//! Start, command line, drain, exit.

mod drain;
mod restart;
mod commands;
mod demo;
