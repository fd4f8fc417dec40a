//! Finds the servers of pools that are not given as fixed addresses: resolves host names, and follows sources that list
//! servers.
//!
//! [`Resolver`] bounds the lookups of all pools together; [`PoolNames`] decides when each name of a pool is looked up,
//! and hands the addresses it finds to [`crate::live::Live::set_addresses`]. [`crate::health`] polls `PoolNames`, so
//! that a new server is checked at once.
//!
//! [`run`] follows the sources that pools name with the key `discover`. A source reports whole lists, never changes of
//! a list, and [`crate::live::Live::set_servers`] compares each with the one in force. A source that fails, or lists
//! nothing without `allow_empty`, changes nothing.
//!
//! [`run`] also follows the addresses of this machine, as far as they decide whether a server is one of our own
//! listeners.
//!
//! [`follow_announcements`] follows the routes that containers announce, each with a pool of its own.
//!
//! **A new source** is a file here that implements `ServerSource`, an arm in each of the two matches in `sources.rs`,
//! and a variant of [`crate::plan::DiscoverSource`]. Its keys are added in `config/keys/pool.rs` and
//! `config/parse/discover.rs`; `plan/files.rs` lists the files that it reads. It is described in `docs/servers.md` and
//! in `conf/full.toml`, from which the schema takes the description; `tests/it/config/schema.rs` says what kind of
//! value each of its keys has.
//!
//! What the sources of several pools share, such as a login, is in a section `[providers.NAME]`
//! (`config/parse/providers.rs`). A *provider* is a service that sources ask. etcd is the provider of a source of
//! servers here, and the *store* of the configuration in [`crate::remote`].

mod resolver;
mod names;
mod source;
mod file;
mod http;
mod etcd;
mod docker;
mod kubernetes;
mod dns_records;
mod dns_lookup;
mod dns;
mod sources;
mod own_addresses;
mod followers;
mod announced;

pub use announced::{AnnouncedAnswer, follow_announcements};
pub use followers::run;
pub use names::{PoolNames, resolve_new_names};
pub use resolver::Resolver;
pub use source::{ListAnswer, ServerList};
pub use sources::{listed_now, with_listed_servers};
