//! Relayed traffic: half-close, resets, timeouts, idle cost, the PROXY header, Unix sockets, real databases.

mod first_answer;
mod half_close;
mod resets;
mod reset_phases;
mod timeouts;
mod idle_cost;
mod proxy_protocol;
mod databases;
mod shares;
mod unix_sockets;
