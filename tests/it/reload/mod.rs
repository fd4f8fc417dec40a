//! Reloading the configuration without losing sessions, clients or server state.

mod changes;
mod files;
mod snapshots;
mod watch;
