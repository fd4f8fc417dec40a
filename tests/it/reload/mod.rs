//! Reloading the configuration without losing sessions, clients or server state.

mod files;
mod snapshots;
mod watch;
