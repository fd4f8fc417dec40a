//! acequia balances TCP connections: it accepts a client, reads only the bytes on which the route depends, picks a
//! server, and relays bytes both ways until both sides are done.
//!
//! A module uses only those listed above it (`tests/tidy` enforces that), so that the crate can be read from top to
//! bottom. As far as that allows, the modules that a connection meets are in the order in which it meets them.
//!
//! ```text
//!  worker: one per core by default; accepts clients and runs their sessions
//!    │
//!    │         ┌────────────────────────── session: the steps of one connection ────────────┐
//!    ▼         │                                                                            │
//!  listen ─► PROXY ─► guard ─► sniff ─► route ───► pool ───► dial ───► relay ───► account ───► access log,
//!  client    header                       │ ▲        ▲        └► server ◄┘                     metrics
//!                                refuse ◄─┘ │        ├─ health: is it up? ◄─ check: one file per kind
//!                                           │        └─ discover: where is it?
//!                                           └─ live ◄─ plan ◄─ config
//! ```
//!
//! **From accept to the access log.** Each [`worker`] is a thread with a runtime and listening sockets of its own; a
//! session never leaves it. [`listen`] accepts a client, over TCP or on a [`unix_socket`], at a socket of the worker or
//! of the service manager, with a permit of the listener's limits ([`capacity`]). [`session::serve`] gets the client
//! and the listener's state, opens the session's entry in the [`account::Ledger`], and runs the steps. If a peer in
//! front passes clients on (`accept_proxy`), the first step reads its PROXY header ([`proxy_protocol`]), which names
//! the client. Then the [`guard`]s of the listener are asked. Those of a route are asked once the route is chosen.
//! Their counts are returned at the end. Guards that limit bandwidth also decide when [`relay`] may read. On listeners
//! for PostgreSQL, and where a route depends on the ClientHello, [`sniff`] reads until the bytes prove what the client
//! wants, within a time and a size; on other listeners it reads nothing, because a server may be the one to speak
//! first. A validation of an [`acme`] server is answered here and not routed, and a request to cancel a query of
//! PostgreSQL goes to the server that [`cancel`] finds. A listener that redirects reads an HTTP request instead, and
//! answers it ([`redirect`]). [`route`] finds a pool, or [`refuse`] ends the connection, in TLS with an alert. Where
//! the client's TLS is terminated, [`tls`] has the certificates and completes the handshake. [`pool`] picks a server
//! among those that may get sessions and gives a lease; [`dial`] connects within a time, and asks for another pick when
//! that fails. If a server of PostgreSQL then says that it takes no sessions, the session dials again. The listener's
//! state is dropped, a PROXY header ([`proxy_protocol`]) and the bytes that were read go to the server first, and
//! [`relay`] moves the rest between the two [`ends`]; its decisions are in a core without IO, its system calls in an
//! engine (`relay::engine` says where one on io_uring would go). Each direction copies, and splices while it carries
//! bulk data (unless TLS ends or begins here), until both sides have finished, one has failed, or both were silent for
//! too long. If the relay still runs at the next tick of the worker (once a second), [`late_keepalive`] sets keepalive
//! on the connection to the server. After the relay the sockets close, the lease is returned, and the entry is closed
//! with one [`account::Ending`]: this counts the session and writes its access log record. The permit is returned last.
//! A session that is cancelled or panics drops the same values, so that the counts stay right.
//!
//! **Not on the path of a connection.** [`scale`] decides when a pool grows or shrinks, and holds the processes of its
//! clones; [`clones`] starts and stops these, and makes them servers. [`discover`] resolves the names of servers, and
//! follows the sources that list servers: files, HTTP, DNS, etcd, Docker, Kubernetes. It also follows the
//! [`local_addresses`]: with a new one, a server may turn out to be one of our own listeners. [`health`] decides which
//! server is checked and when. Each check is of one of the kinds in [`check`], and its result is written into the
//! server, where the next pick sees it. [`config`] turns a file into a plan, or reports all errors of the file; no
//! session calls it. [`import`] converts a configuration of HAProxy or nginx into such a file. [`outage`] logs when a
//! pool has no usable server or uses its fallback, and when that is over. [`sever`] cuts sessions of servers that
//! should have none, by the [`account::Record`] of each session, and [`retire`] ends sessions that are too old or in
//! excess; [`drain`] lets all sessions end and cuts what is left. [`state_dir`] keeps over restarts which servers were
//! primaries, and which were listed or added by hand. [`acme`] orders certificates and renews them; its requests, and
//! those of the command line, go through [`http_client`]. [`history`] samples the counters every second. [`remote`]
//! follows the configuration that a fleet shares in a store, requests reloads, and writes back what came of them; it
//! and [`discover`] read [`etcd`], with a [`back_off`] after failures. `docker` asks engines of Docker, which run
//! servers and clones. `command` runs the commands of an operator: those of checks, and those that start and stop
//! clones. [`admin`] shows the state, also as a page, and changes it on request. [`app`] binds and starts all this, and
//! handles signals; it may use all modules but [`cli`], the command line. If root runs `acequia check`, it also checks
//! what the [`user`] of the service may read.
//!
//! **Reload.** A [`plan`] consists of plain values. [`live`] is the only holder of what is in force: the plan, and its
//! pools with their servers and resolved names. A [`reload`] is requested from [`app`], which first does everything
//! that may fail or wait: reads, checks, resolves new names, opens, binds. [`live::Live::prepare`] builds the next
//! pools, and keeps the servers that stay. Then [`live::Live::apply`] puts the plan in force; this step neither fails
//! nor waits. The workers' sockets get the new state of their listeners. Sockets of removed listeners accept, for a few
//! seconds, the connections that are queued, and then close. [`health`] subscribes to `live` and goes on with the pools
//! of the new plan. A session keeps what it has taken from the old plan. Routes that are announced
//! ([`discover::follow_announcements`]) are added to the plan of the file, and the result is applied the same way.
//! Resolved names, listed servers and those that an operator adds change a pool through the same holder
//! ([`live::Live::set_addresses`], [`live::Live::set_servers`], [`live::Live::add_server`]).
//!
//! **Where a new thing goes.** The first comments of these modules list what it takes: [`check`] (a kind of check),
//! [`tls`] (a setting), [`guard`] (a limit), [`pool`] (a policy), [`discover`] (a source of servers), [`session`] (a
//! step), [`account`] (a metric) and `relay::engine` (an engine). `tests/tidy` bounds the length of files and
//! functions.
//!
//! **Words** that comments use without an explanation:
//!
//! - *session*: one accepted client, until its access log record. *At rest*: nothing is unsent, the last byte came
//!   from the server, and no byte has moved for `idle_for`. *Ending*: why a session ended. *Path* of a session: its
//!   listener, pool and server. *Turn*: what one direction of a relay moves before other sessions have their turn.
//! - *permit*: a connection that a limit of a listener or of the process allows. *Lease*: a session's claim on a
//!   server. *Place*: one of the `max_sessions` of a server.
//! - *tier*: the servers of a pool that have one `priority`; the best tier with a usable server is used. *Panic*: too
//!   few servers of a tier are healthy, so the unhealthy ones are used, too.
//! - *ejected*: out of use after sessions failed on the server. *Trial*: the one session that such a server gets when
//!   its back-off is over. *Unserved*: a session that the server ended before it sent anything.
//! - *refused check*: the server answered, but did not let the check in. *Prevented check*: this host lacks what it
//!   needs. *Unfit*: the role is wrong. *Suspended*: up, but without new sessions because of its latest check.
//! - *known primary*: the server that acequia takes for the primary, and remembers; others may *claim* to be it, too.
//!   It is *in force* while its own claim holds. *Timeline*: the number of a database's history; a promotion begins the
//!   next one. *Stand-in*: the primary of a pool of replicas, if it serves because of `fallback = "primary"`.
//! - *clone*: a server with which a pool grows. *Hook*: the operator's two commands that start and stop a clone.
//!   *Keeper*: a child process that starts a clone, and ends it even if acequia is killed.
//! - *override*: what an operator, or failback, has changed about a server while the process runs. *Edit*: the same
//!   about a guard. *Store*: where a fleet keeps its shared configuration, in *texts*.
//!
//! Parsers, matchers, policies and health rules are plain functions of plain values; code that awaits is a thin layer
//! around them. Everything that is counted is a value, whose drop returns the count. A plan is valid by construction,
//! so nothing checks it again.

pub mod units;
pub mod text;
pub mod error;
pub mod blocking;
pub mod addr;
pub mod name;
pub(crate) mod addr_text;
pub mod glob;
pub mod toml_nesting;
pub mod optional;
pub mod back_off;
pub mod regular_file;
pub mod user;
pub mod file_watch;
pub mod socket;
pub mod local_addresses;
pub mod readiness;
pub mod unix_socket;
pub mod tcp_info;
pub mod capacity;
pub mod tls;
pub mod http_client;
pub mod etcd;
pub(crate) mod docker;
pub mod acme;
pub mod proxy_protocol;
pub mod listen;
pub mod guard;
pub mod sniff;
pub mod redirect;
pub mod route;
pub mod refuse;
pub mod pool;
pub mod dial;
pub mod cancel;
pub mod ends;
pub mod late_keepalive;
pub mod relay;
pub mod account;
pub(crate) mod command;
pub mod check;
pub mod scale;
pub mod plan;
pub mod live;
pub mod state_dir;
pub mod sever;
pub mod retire;
pub mod history;
pub mod outage;
pub mod session;
pub mod discover;
pub mod health;
pub mod clones;
pub mod config;
pub mod import;
pub mod descriptors;
pub mod reload;
pub mod remote;
pub mod drain;
pub mod worker;
pub mod admin;
pub mod app;
pub mod cli;
