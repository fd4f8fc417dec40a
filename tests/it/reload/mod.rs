//! Another configuration without losing anything.

mod files;
mod snapshots;
mod watch;
