//! Questions about a possible connection: where would it go?

use std::net::IpAddr;

use super::{ListenerPlan, PoolId};
use crate::addr::ClientAddr;
use crate::name::Sni;
use crate::route::{Explanation, RouteInput};
use crate::sniff::hello::ProtocolList;

/// The known facts about a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteQuestion<'a> {
    /// The server name that the client asks for. As with real clients, an empty name and an IP literal count as none.
    pub sni: Option<&'a str>,
    /// The protocols that the client offers in ALPN.
    pub alpn: &'a [String],
    /// The address of the client. `None`: no `from` condition holds.
    pub client: Option<IpAddr>,
    /// The database that a PostgreSQL client names; ignored if its StartupMessage is not read. `None`: the client names
    /// none. As in PostgreSQL, the name of the user is then used.
    pub database: Option<&'a str>,
    /// The user that a PostgreSQL client names; ignored if its StartupMessage is not read.
    pub user: Option<&'a str>,
}

impl RouteQuestion<'_> {
    /// Whether these facts prove that the client uses TLS: `sni` is given (even if it counts as none), or `alpn` is.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.sni.is_some() || !self.alpn.is_empty()
    }

    /// Where a listener sends the connection, and why.
    #[must_use]
    pub fn explain<'a>(&self, listener: &'a ListenerPlan) -> Explanation<'a, PoolId> {
        let name = self.sni.and_then(|sni| Sni::from_config(sni).ok());
        let alpn = ProtocolList::new(self.alpn);
        let without_startup = RouteInput {
            name: name.as_ref(),
            alpn: &alpn,
            client: self.client.map(|ip| ClientAddr::new((ip, 0).into())),
            database: None,
            user: None,
        };
        let hello = self.is_tls().then_some(&without_startup);
        let reads_startup = listener.protocol.is_postgres() && listener.routes.reads_startup(hello);
        let user = self.user.filter(|_| reads_startup);
        let database = self.database.filter(|_| reads_startup).or(user);
        listener.routes.explain(&RouteInput {
            database: database.map(str::as_bytes),
            user: user.map(str::as_bytes),
            ..without_startup
        })
    }
}
