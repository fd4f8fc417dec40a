//! Reloading the configuration without losing sessions, clients or server state.

mod changes;
mod files;
mod lost_sockets;
mod pipes;
mod removed_addresses;
mod snapshots;
mod watch;
