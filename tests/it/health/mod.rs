//! Health checks, database roles, host names, and sessions of servers that go down.

mod checks;
mod same_way;
pub(crate) mod roles;
mod names;
mod severing;
mod failback;
mod fallback;
