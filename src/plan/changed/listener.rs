//! The keys of a listener whose values differ between two plans.

use super::{Setting, differing, setting, socket_settings};
use crate::guard::GuardId;
use crate::plan::{AnnouncePlan, ListenerPlan, Plan, PoolId, Protocol, UnplacedCancel};
use crate::relay::RelayLimits;
use crate::route::{Route, Target};
use crate::sniff::SniffLimits;
use crate::tls::ListenerTlsPlan;

impl ListenerPlan {
    /// The keys whose values differ in `next`, the plan of the same listener after a reload. `self` is part of `plan`,
    /// and `next` of `next_plan`. Pools and guards are compared by name.
    #[must_use]
    pub fn changed(&self, plan: &Plan, next: &Self, next_plan: &Plan) -> Vec<&'static str> {
        let mut keys = differing(self.settings(), &next.settings());
        let is_same_pool = |old: &PoolId, new: &PoolId| plan.pools[*old].name == next_plan.pools[*new].name;
        let are_same_guards = |old: &[GuardId], new: &[GuardId]| plan.guard_names(old).eq(next_plan.guard_names(new));
        let has_same_default = match (self.routes.default(), next.routes.default()) {
            (Some(old), Some(new)) => is_same_pool(old, new),
            (None, None) => true,
            _ => false,
        };
        if !has_same_default {
            keys.push("pool");
        }
        if !are_same_guards(&self.guards, &next.guards) {
            keys.push("guards");
        }
        let (old, new) = (self.routes.routes(), next.routes.routes());
        let is_same = |(old, new): (&Route<PoolId>, &Route<PoolId>)| {
            is_same_route(old, new, is_same_pool) && are_same_guards(&old.guards, &new.guards)
        };
        if old.len() != new.len() || !old.iter().zip(new).all(is_same) {
            keys.push("routes");
        }
        keys
    }

    fn settings(&self) -> Vec<Setting> {
        let Self {
            name: _,
            bind,
            unix_mode,
            backlog,
            max_connections,
            accept_proxy,
            guards: _, // compared by the caller, like the routes
            protocol,
            redirect,
            sniff: SniffLimits {
                hello_timeout,
                hello_bytes_max,
            },
            routes: _, // compared by the caller: there may be very many
            announce,
            tls,
            relay:
                RelayLimits {
                    idle_timeout,
                    half_close_timeout,
                    ends_with_server: _, // follows from the protocol
                },
            socket,
        } = self;
        let (protocol, tls_required, cancel_unplaced) = match protocol {
            Protocol::Postgres {
                tls_required,
                cancel_unplaced,
            } => ("postgres", *tls_required, *cancel_unplaced),
            Protocol::Tcp => ("tcp", false, UnplacedCancel::Drop),
            Protocol::Mysql => ("mysql", false, UnplacedCancel::Drop),
            Protocol::Redis => ("redis", false, UnplacedCancel::Drop),
        };
        let mut settings = vec![
            setting("bind", bind),
            setting("unix_mode", unix_mode),
            setting("backlog", backlog),
            setting("accept_proxy", accept_proxy),
            setting("max_connections", max_connections),
            setting("protocol", &protocol),
            setting("tls_required", &tls_required),
            setting("cancel_unplaced", &cancel_unplaced),
            setting("redirect", redirect),
            setting("hello_timeout", hello_timeout),
            setting("hello_max", hello_bytes_max),
            setting("idle_timeout", idle_timeout),
            setting("half_close_timeout", half_close_timeout),
        ];
        settings.extend(announce_settings(announce.as_ref()));
        settings.extend(socket_settings(socket));
        settings.extend(tls_settings(tls.as_ref()));
        settings
    }
}

fn announce_settings(announce: Option<&AnnouncePlan>) -> [Setting; 1] {
    let announce = announce.map(|announce| {
        let AnnouncePlan {
            socket,
            names,
            tls: _,  // follows from `tls` of the listener
            pool: _, // follows from `[defaults]`; a change there is reported for the other pools
        } = announce;
        (socket, names)
    });
    [setting("announce", &announce)]
}

fn tls_settings(tls: Option<&ListenerTlsPlan>) -> [Setting; 5] {
    let (certificates, alpn, min_version, client_auth, tickets) = match tls {
        None => Default::default(),
        Some(ListenerTlsPlan {
            certificates,
            alpn,
            min_version,
            client_auth,
            tickets,
            route_alpn: _, // follows from the routes
        }) => (
            Some(certificates),
            Some(alpn),
            Some(min_version),
            Some(client_auth),
            Some(tickets),
        ),
    };
    [
        setting("tls.certificates", &certificates),
        setting("tls.alpn", &alpn),
        setting("tls.min_version", &min_version),
        setting("tls.client_auth", &client_auth),
        setting("tls.tickets", &tickets),
    ]
}

fn is_same_route(old: &Route<PoolId>, new: &Route<PoolId>, is_same_pool: impl Fn(&PoolId, &PoolId) -> bool) -> bool {
    let Route {
        name,
        sni,
        alpn,
        from,
        tls,
        database,
        user,
        guards: _, // compared by the caller: the identifiers differ between two plans
        to,
    } = old;
    let has_same_target = match (to, &new.to) {
        (Target::Pool(old), Target::Pool(new)) => is_same_pool(old, new),
        (Target::Refuse, Target::Refuse) => true,
        _ => false,
    };
    has_same_target
        && (name, sni, alpn, from, tls) == (&new.name, &new.sni, &new.alpn, &new.from, &new.tls)
        && (database, user) == (&new.database, &new.user)
}
