//! Checks, roles, host names, and cutting sessions of servers that went down.

mod checks;
mod roles;
mod names;
mod severing;
