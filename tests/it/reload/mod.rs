//! Another configuration without losing anything.

mod changes;
mod files;
mod snapshots;
mod watch;
