//! Routes that servers announce, and the reasons why some announcements have no effect.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ListedServer, ServerEntry};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// A server that announces a route to itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The name of the server: that of its container.
    pub from: Arc<str>,
    /// When the container was created, in seconds since 1970.
    pub created: i64,
    /// The listener that gets the route.
    pub listener: Box<str>,
    /// The server name of the route.
    pub sni: Box<str>,
    /// The group of the server: its label `acequia.pool`. Servers that announce the same name form a pool only if their
    /// groups are equal, too.
    pub group: Option<Box<str>>,
    /// The server, or why it cannot be used.
    pub server: Result<ServerEntry, Reason>,
}

/// An [`Announcement`] as it is kept over a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptAnnouncement {
    from: Box<str>,
    created: i64,
    listener: Box<str>,
    sni: Box<str>,
    group: Option<Box<str>>,
    server: ListedServer,
}

/// An announcement that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAnnouncement {
    /// The name of its server.
    pub from: Arc<str>,
    /// The listener that it names; escaped and truncated, because the container may name anything.
    pub listener: Reason,
    /// The server name that it wants; escaped and truncated, too.
    pub sni: Reason,
    /// Why it has no effect, as a word for metrics.
    pub refusal: AnnouncementRefusal,
    /// Why it has no effect, as a text for people.
    pub reason: Reason,
}

/// Why an announcement has no effect, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncementRefusal {
    /// There is no such listener.
    NoListener,
    /// The server name is not valid, or too long.
    InvalidName,
    /// The listener does not accept announcements, or not of this name.
    NotAllowed,
    /// The configuration uses the name, or an older server of another group has announced it.
    Taken,
    /// The server or the listener has too many names.
    TooMany,
    /// The container that makes the announcement is not a usable server.
    NoServer,
}

impl AnnouncementRefusal {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NoListener,
        Self::InvalidName,
        Self::NotAllowed,
        Self::Taken,
        Self::TooMany,
        Self::NoServer,
    ];

    /// The word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoListener => "no_listener",
            Self::InvalidName => "invalid_name",
            Self::NotAllowed => "not_allowed",
            Self::Taken => "taken",
            Self::TooMany => "too_many",
            Self::NoServer => "no_server",
        }
    }
}

impl KeptAnnouncement {
    /// The part of an announcement that is kept; `None`: it has no usable server.
    #[must_use]
    pub fn new(announcement: &Announcement) -> Option<Self> {
        let Announcement {
            from,
            created,
            listener,
            sni,
            group,
            server,
        } = announcement;
        Some(Self {
            from: (**from).into(),
            created: *created,
            listener: listener.clone(),
            sni: sni.clone(),
            group: group.clone(),
            server: server.as_ref().ok()?.into(),
        })
    }
}

impl From<KeptAnnouncement> for Announcement {
    fn from(kept: KeptAnnouncement) -> Self {
        let KeptAnnouncement {
            from,
            created,
            listener,
            sni,
            group,
            server,
        } = kept;
        Self {
            from: from.into(),
            created,
            listener,
            sni,
            group,
            server: server.into_entry(MemberConfig::default()),
        }
    }
}
