//! The known facts about a client.

use std::sync::LazyLock;

use crate::addr::ClientAddr;
use crate::name::Sni;
use crate::sniff::hello::{Hello, ProtocolList};
use crate::sniff::postgres::StartupMessage;

/// The known facts about a client when its route is chosen. A client that does not speak TLS has no name and offers no
/// protocol, so that it matches only routes without `sni` and `alpn`.
#[derive(Clone, Copy, Debug)]
pub struct RouteInput<'a> {
    /// The server name it asked for. A name that is not valid matches only `*` and `*.suffix`.
    pub name: Option<&'a Sni>,
    /// The protocols it offered (RFC 7301).
    pub alpn: &'a ProtocolList,
    /// The client's address. `None` in a question about no particular client: then no `from` condition holds.
    pub client: Option<ClientAddr>,
    /// The database in a StartupMessage of PostgreSQL that came in the clear, or within TLS that is terminated here.
    pub database: Option<&'a [u8]>,
    /// The user in that StartupMessage.
    pub user: Option<&'a [u8]>,
}

impl<'a> RouteInput<'a> {
    /// The facts in a client's address and first bytes.
    #[must_use]
    pub fn of(client: ClientAddr, hello: Option<&'a Hello>, startup: Option<&'a StartupMessage>) -> Self {
        static NO_PROTOCOLS: LazyLock<ProtocolList> = LazyLock::new(ProtocolList::default);
        Self {
            name: hello.and_then(|hello| hello.name.as_ref()),
            alpn: hello.map_or_else(|| &*NO_PROTOCOLS, |hello| &hello.alpn),
            client: Some(client),
            database: startup.map(|startup| &*startup.database),
            user: startup.map(|startup| &*startup.user),
        }
    }
}
