//! The process that spawns and holds clones: `acequia keeper`, a child of ours.
//!
//! It talks with us over a socket that is its standard input; a message is a line of JSON. When the socket closes, whatever the
//! reason, it kills all that it has started: even if we are killed by SIGKILL, no clone is left behind. It is the subreaper
//! (prctl(2), PR_SET_CHILD_SUBREAPER) of what its clones start, so that it also finds processes that have left their process
//! groups. Containers belong to the engine: the keeper has it remove those with our label.

mod message;
mod output;
mod child;
mod containers;
mod process;
mod client;

pub use client::{Keeper, KeptProcess, ProcessEvent};
pub use message::{HeldContainers, StartClone};
pub use process::run;
