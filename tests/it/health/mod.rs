//! Health checks, and what follows when servers go down or come back. Also: roles of databases, and servers given by
//! host name.

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
