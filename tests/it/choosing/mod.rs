//! Which server a session gets, and what happens when servers die.

mod balance;
mod source_hash;
mod server_dies;
mod hanging_servers;
mod unserved;
