//! Whether the TLS of a client is terminated here, which depends on where the client goes.

use super::{RouteChoice, RouteInput, RouteTable};

/// What happens to the TLS of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// It is passed on, never decrypted. Bytes that are not TLS are passed on, too.
    #[default]
    Pass,
    /// It is terminated here: the server gets the plaintext, within TLS of ours if its pool has `tls`.
    Terminate,
}

impl TlsMode {
    /// The word for it in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Terminate => "terminate",
        }
    }
}

impl<T> RouteTable<T> {
    /// What happens to the TLS of a client for which this choice was made; `None`: the client is refused.
    #[must_use]
    pub fn tls_mode(&self, choice: &RouteChoice<'_, T>) -> Option<TlsMode> {
        match choice {
            RouteChoice::Route { route, .. } => Some(route.tls),
            RouteChoice::Default(_) => Some(self.default_tls),
            RouteChoice::Refused { .. } | RouteChoice::NoRoute => None,
        }
    }

    /// For a PostgreSQL client whose database and user are not known yet: what happens to its TLS, and the entries of
    /// `alpn` of its route (empty: it has none, or no route takes the client yet). `None`: the client is refused,
    /// whatever its database and user are.
    ///
    /// On a listener that has certificates, all routes for a database or a user terminate TLS: where TLS is passed on,
    /// neither is ever known. Once they are known, such routes match in addition, and no route ceases to match. So a
    /// route that passes TLS on can win later only if it wins now.
    #[must_use]
    pub fn tls_before_startup(&self, hello: &RouteInput<'_>) -> Option<(TlsMode, &[Box<[u8]>])> {
        match self.find(hello) {
            RouteChoice::Route { route, .. } => Some((route.tls, &route.alpn)),
            RouteChoice::Default(_) => Some((self.default_tls, &[])),
            RouteChoice::Refused { .. } | RouteChoice::NoRoute => {
                // Exactly the listeners that have certificates terminate TLS by default.
                let has_certificates = self.default_tls == TlsMode::Terminate;
                let may_match_later = self.needs_startup && has_certificates;
                may_match_later.then_some((TlsMode::Terminate, &[]))
            }
        }
    }

    /// Whether a PostgreSQL client's database and user are read before its route is chosen. They are, unless the
    /// client's TLS is passed on or the client is refused. `hello`: the routing input from the ClientHello; `None`: the
    /// client uses no TLS.
    #[must_use]
    pub fn reads_startup(&self, hello: Option<&RouteInput<'_>>) -> bool {
        hello.is_none_or(|hello| matches!(self.tls_before_startup(hello), Some((TlsMode::Terminate, _))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Sni;
    use crate::route::tests::{postgres_route, route};
    use crate::route::{Route, Target};
    use crate::sniff::hello::ProtocolList;

    #[test]
    fn the_tls_mode_is_decided_before_database_and_user_are_known() {
        let with = |tls, to, route| Route { tls, to, ..route };
        let passed = with(TlsMode::Pass, Target::Pool("p"), route("", "passed.example", "", ""));
        let refused = with(TlsMode::Terminate, Target::Refuse, route("", "refused.example", "", ""));
        let orders = with(TlsMode::Terminate, Target::Pool("p"), postgres_route("", "orders", ""));
        let mode = |routes: &[Route<&'static str>], name: &str| {
            let table = RouteTable::new(routes.to_vec(), None).terminating_by_default();
            let (name, no_protocols) = (Sni::from_config(name).unwrap(), ProtocolList::default());
            let hello = RouteInput {
                name: Some(&name),
                alpn: &no_protocols,
                client: None,
                database: None,
                user: None,
            };
            table.tls_before_startup(&hello).map(|(mode, _)| mode)
        };
        let by_name = [passed, refused];
        assert_eq!(mode(&by_name, "passed.example"), Some(TlsMode::Pass));
        assert_eq!(mode(&by_name, "refused.example"), None);
        assert_eq!(mode(&by_name, "other.example"), None);
        let by_database = [&by_name[..], &[orders]].concat();
        assert_eq!(mode(&by_database, "passed.example"), Some(TlsMode::Pass));
        assert_eq!(
            mode(&by_database, "refused.example"),
            Some(TlsMode::Terminate),
            "the refusal is sent within TLS"
        );
        assert_eq!(mode(&by_database, "other.example"), Some(TlsMode::Terminate));
    }
}
