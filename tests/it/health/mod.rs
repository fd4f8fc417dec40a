//! Health checks, database roles, host names, and sessions of servers that go down.

mod checks;
mod same_way;
mod shared;
pub(crate) mod roles;
mod names;
mod severing;
mod failback;
mod fallback;
mod outage;
mod http;
mod send_expect;
mod exec;
mod agent;
