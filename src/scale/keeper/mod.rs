//! The process that spawns and holds clones: `acequia keeper`, a child of ours.
//!
//! It talks with us over a socket that is its standard input, a line of JSON a message. When that closes, whatever the
//! reason, it kills all that it has started: a kill -9 of ours leaves no clone behind. It is the subreaper (prctl(2),
//! PR_SET_CHILD_SUBREAPER) of what its clones start, so that it also finds what has left their process groups. Containers are
//! the engine's: it removes those with our label.

mod message;
mod output;
mod user;
mod child;
mod containers;
mod process;
mod client;

pub use client::{Keeper, KeptProcess, ProcessEvent};
pub use message::{HeldContainers, StartClone};
pub use process::run;
