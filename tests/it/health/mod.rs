//! Checks, roles, host names, and cutting sessions of servers that went down.

mod checks;
mod same_way;
mod roles;
mod names;
mod severing;
