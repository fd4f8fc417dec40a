//! The keepers: child processes (`acequia keeper`). Each, except that of containers (see below), starts one clone, and
//! kills it when we end.
//!
//! A keeper talks with us over a socket that is its standard input; a message is a line of JSON. When its clone has
//! ended, or when the socket closes, whatever the reason, it kills all that the clone has started: even if we are
//! killed by SIGKILL, nothing is left behind. It is the subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) of what its clone
//! starts, so that it also finds processes that have left their process group, such as daemons. If a keeper is killed,
//! we kill what it has held: all processes that have the mark of its clone in their environment.
//!
//! Clones that are containers have no keepers of their own, because they are processes of the engine. One keeper for
//! all of them asks the engines to remove the containers with our label when we have ended.

mod message;
mod output;
mod child;
mod containers;
mod process;
mod marked;
mod client;

pub use client::{ContainerKeeper, KeptProcess};
pub use message::{HeldContainers, ProcessEvent, StartClone};
pub use process::run;
