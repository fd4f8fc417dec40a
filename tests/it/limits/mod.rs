//! Connection limits, and the bounds of every configuration key.

mod max_connections;
mod backlog;
mod bounds;
