//! acequia divides TCP connections: it lets a client in, reads no more of it than it needs to route it, picks a
//! server, and moves bytes both ways until both sides are done.
//!
//! The modules stand below in the order in which a connection meets them, and a module uses only what stands above
//! it: the crate can be read from top to bottom. `tests/tidy.rs` holds the order.
//!
//! ```text
//!  worker: one a core; lets clients in and starts their sessions
//!    │
//!    │         ┌───────── session: the story of one connection ─────────┐
//!    ▼         │                                                        │
//!  listen ───► sniff ───► route ───► pool ───► dial ───► relay ───► account ───► a line in the log,
//!  client                  ▲          ▲        ◄──── server ────►                series in /metrics
//!                          │          ├─ health: is it up? ◄─ check: one file a kind
//!                          │          └─ discover: where is it?
//!                          └─ live ◄─ plan ◄─ config
//! ```
//!
//! **From accept to the log line.** Each [`worker`] is a thread with a runtime and a listening socket of its own; a
//! session never leaves it. [`listen`] gives it a client together with a permit, the client's place among those there
//! may be. [`session::serve`] gets it with its listener's part of the [`plan`] in force, opens the client's entry in the
//! [`account::Ledger`], and puts the stages in a row. Where a route asks for a name, [`sniff`] reads until the bytes prove what
//! the client wants, within a time and a size, and hands on all it has read; other listeners read nothing, for a
//! server may be the one to speak first. [`route`] turns what is known of the client into a pool, or into a refusal,
//! which a TLS client is told. [`pool`] picks a server among those that are up and gives a lease, the session's place
//! on it; [`dial`] connects within a time, and asks for another pick when that fails. The plan is let go, the bytes
//! that were read go to the server first, and [`relay`] moves the rest: each direction copies, and splices while it
//! is bulk, until both sides have finished, one has broken, or it was quiet for too long. Then the sockets close and
//! the lease drops, and with one [`account::Ending`] the entry, which counts the session and writes its line; the
//! permit comes last. A session that is cancelled or panics drops the same values, so that no count is ever off.
//!
//! **Beside it.** [`discover`] resolves the names of servers; [`health`] decides when which server is checked, by one
//! of the kinds in [`check`], and writes the results into the servers, where the next pick sees them. [`config`] turns
//! a file into a plan, or says all that is wrong with it; nothing at run time looks back at it. [`sever`] cuts
//! sessions of servers that ought to have none, by the cord in their [`account::Record`]; [`drain`] lets all sessions
//! end and cuts what is left. [`admin`] shows what there is, and lets it be steered. [`app`] binds and starts all
//! this, listens to signals, and alone may know everything; [`cli`] is what stands on the command line.
//!
//! **Another configuration.** Whoever wants a [`reload`] asks [`app`] for it, which first does all that may fail
//! or wait: reads, checks, asks where new names are, opens, binds. Then it changes what is in force, without waiting for
//! anything: [`live`] finds the servers that stay and swaps the plan, the gates of the workers learn their listeners'
//! new plans, those that nobody wants any more let in who waits and close, and [`health`] goes on with the pools of the
//! new plan. A session keeps what it took from the plan of its time.
//!
//! Parsers, matchers, policies and health rules are plain functions of plain values; what awaits is a thin rim around
//! them. What is counted is a value that drops. A plan cannot be wrong, so that nothing checks it again.

pub mod units;
pub mod text;
pub mod addr;
pub mod name;
pub mod optional;
pub mod socket;
pub mod tcp_info;
pub mod capacity;
pub mod proxy_protocol;
pub mod listen;
pub mod sniff;
pub mod route;
pub mod refuse;
pub mod pool;
pub mod dial;
pub mod ends;
pub mod relay;
pub mod account;
pub mod check;
pub mod plan;
pub mod live;
pub mod sever;
pub mod session;
pub mod discover;
pub mod health;
pub mod config;
pub mod descriptors;
pub mod reload;
pub mod drain;
pub mod worker;
pub mod admin;
pub mod app;
pub mod cli;
