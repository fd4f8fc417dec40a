//! Health checks, database roles, host names, and sessions of servers that go down.

mod checks;
mod roles;
mod names;
mod severing;
