//! etcd over its JSON gateway (API v3, etcd 3.4 and later): keys are read, watched and written.
//!
//! [`Members::follow`] reads keys, and watches them for changes after the revision of that read. When the watch ends,
//! `follow` reads and watches them again: at the same member, or at the next one if this one has failed.
//! [`Members::read`] asks one member after another until one answers.

mod plan;
mod messages;
mod gateway;
mod members;

use std::error::Error;

pub use gateway::{Gateway, LeaseId};
pub use members::{FollowEnd, FollowedKeys, KeyFollower, Members};
pub use messages::{EtcdKeyValue, KeyChange, KeyRange};
pub use plan::{EtcdLogin, EtcdPlan};

/// Why a request failed, or why the keys that were read cannot be used.
pub type EtcdError = Box<dyn Error + Send + Sync>;
