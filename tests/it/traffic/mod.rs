//! Relayed traffic: the delay of first answers, half-close, resets, timeouts, the cost of idle sessions, the PROXY
//! header, real databases, the distribution of sessions among workers, Unix sockets.

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
