//! EndpointSlices (discovery.k8s.io/v1): the fields that are read, and the servers that follow from the slices of one
//! Service.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Deserialize;

use crate::discover::source::{Findings, ListAnswer, ServerList};
use crate::plan::{LISTED_MAX, ListedServer, ServicePort};
use crate::pool::MemberConfig;
use crate::text::{Reason, is_name};

/// The most endpoints that are kept: twice the most servers of a list, because a dual-stack Service lists each pod
/// twice.
const ENDPOINTS_MAX: usize = 2 * LISTED_MAX;

/// The longest name of an object: a DNS subdomain (RFC 1123).
const NAME_BYTES_MAX: usize = 253;

/// An EndpointSlice. An empty list may be null or missing. A value that the API does not require may be missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    pub(super) metadata: SliceMetadata,
    #[serde(default)]
    address_type: String,
    endpoints: Option<Vec<SliceEndpoint>>,
    ports: Option<Vec<SlicePort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SliceMetadata {
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    pub(super) resource_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceEndpoint {
    addresses: Option<Vec<String>>,
    #[serde(default)]
    conditions: EndpointConditions,
    target_ref: Option<TargetRef>,
    hints: Option<EndpointHints>,
}

#[derive(Default, Deserialize)]
struct EndpointConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct TargetRef {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointHints {
    for_zones: Option<Vec<ForZone>>,
}

#[derive(Deserialize)]
struct ForZone {
    name: String,
}

#[derive(Deserialize)]
struct SlicePort {
    #[serde(default)]
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

/// The EndpointSlices of a Service, as far as its servers depend on them.
pub(super) struct Slices {
    by_name: BTreeMap<Box<str>, UsableSlice>,
    port: ServicePort,
    zone: Option<Box<str>>,
    defaults: MemberConfig,
}

struct UsableSlice {
    endpoints: Vec<UsableEndpoint>,
    /// How many endpoints are left out because of their conditions.
    unready: usize,
    /// Why other endpoints of the slice are left out: the reason for the last of them.
    problem: Option<Reason>,
}

struct UsableEndpoint {
    address: SocketAddr,
    /// The name of its pod; `None`: its target is not a pod, or a server cannot have that name.
    pod: Option<Arc<str>>,
    state: EndpointState,
    zone: ZoneHint,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EndpointState {
    Ready,
    /// Terminating, but still serving.
    Terminating,
}

/// Which zones should use an endpoint, by its hints.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ZoneHint {
    Ours,
    Others,
    /// It has no hints, or our zone is not known.
    Missing,
}

impl Slices {
    pub(super) fn new(port: ServicePort, zone: Option<Box<str>>, defaults: MemberConfig) -> Self {
        Self {
            by_name: BTreeMap::new(),
            port,
            zone,
            defaults,
        }
    }

    /// A value with the same settings and no slices, to be filled from a new list.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.port.clone(), self.zone.clone(), self.defaults)
    }

    /// Takes a slice that is new or has changed. Returns its version.
    ///
    /// # Errors
    /// There are too many slices or endpoints, or the name of this slice is too long.
    pub(super) fn put(&mut self, slice: EndpointSlice) -> Result<String, String> {
        let name = slice.metadata.name.clone();
        if name.len() > NAME_BYTES_MAX {
            return Err(format!(
                "an EndpointSlice has a name of more than {NAME_BYTES_MAX} bytes"
            ));
        }
        let version = slice.metadata.resource_version.clone();
        let usable = self.usable(slice);
        self.by_name.insert(name, usable);
        let endpoints: usize = self.by_name.values().map(|slice| slice.endpoints.len()).sum();
        match () {
            () if endpoints > ENDPOINTS_MAX => Err(too_many(ENDPOINTS_MAX, "endpoints")),
            () if self.by_name.len() > LISTED_MAX => Err(too_many(LISTED_MAX, "EndpointSlices")),
            () => Ok(version),
        }
    }

    /// Forgets a slice that is gone. Returns the version of its removal.
    pub(super) fn remove(&mut self, slice: EndpointSlice) -> String {
        self.by_name.remove(&slice.metadata.name);
        slice.metadata.resource_version
    }

    /// The problem of the first slice that has one.
    fn problem(&self) -> Option<Reason> {
        let mut problems = self.by_name.iter().filter_map(|(name, slice)| {
            let problem = slice.problem.as_ref()?;
            Some((name, problem))
        });
        let (name, problem) = problems.next()?;
        Some(Reason::from(match problems.count() {
            0 => format!("EndpointSlice `{name}`: {problem}"),
            more => format!("EndpointSlice `{name}`: {problem}; {more} more have problems"),
        }))
    }

    /// Why there are no servers, although no slice has a problem.
    fn why_empty(&self) -> Reason {
        let unready: usize = self.by_name.values().map(|slice| slice.unready).sum();
        match unready {
            0 if self.by_name.is_empty() => {
                Reason::new("it has no EndpointSlice: is there such a Service, with a selector?")
            }
            0 => Reason::new("it has no endpoint: do pods match the selector of the Service?"),
            _ => Reason::from(format!("none of its {unready} endpoints is ready")),
        }
    }

    fn usable(&self, slice: EndpointSlice) -> UsableSlice {
        let mut usable = UsableSlice {
            endpoints: Vec::new(),
            unready: 0,
            problem: None,
        };
        if !matches!(&*slice.address_type, "IPv4" | "IPv6") {
            let problem = format!("its addresses are `{}`, neither IPv4 nor IPv6", slice.address_type);
            usable.problem = Some(Reason::from(problem));
            return usable;
        }
        let port = port_of(&self.port, &slice.ports.unwrap_or_default());
        for endpoint in slice.endpoints.unwrap_or_default() {
            let Some(state) = endpoint.conditions.state() else {
                usable.unready += 1;
                continue;
            };
            match self.address_of(&endpoint, &port) {
                Ok(address) => usable.endpoints.push(UsableEndpoint {
                    address,
                    pod: endpoint.target_ref.and_then(TargetRef::into_pod),
                    state,
                    zone: self.zone_hint(endpoint.hints),
                }),
                Err(problem) => usable.problem = Some(problem),
            }
        }
        usable
    }

    /// The first address of an endpoint. If it has several, they are equivalent (API reference of Endpoint).
    fn address_of(&self, endpoint: &SliceEndpoint, port: &Result<NonZeroU16, Reason>) -> Result<SocketAddr, Reason> {
        let text = endpoint.addresses.iter().flatten().next().map_or("", |address| address);
        let ip: IpAddr = text
            .parse()
            .map_err(|_| Reason::from(format!("`{text}` is not an IP address")))?;
        let address = SocketAddr::new(ip, port.clone()?.get());
        ListedServer::at(address.to_string()).into_entry(self.defaults)?; // refuses addresses that no server can have
        Ok(address)
    }

    fn zone_hint(&self, hints: Option<EndpointHints>) -> ZoneHint {
        let zones = hints.and_then(|hints| hints.for_zones).unwrap_or_default();
        match &self.zone {
            Some(ours) if zones.iter().any(|zone| zone.name == **ours) => ZoneHint::Ours,
            Some(_) if !zones.is_empty() => ZoneHint::Others,
            _ => ZoneHint::Missing,
        }
    }
}

impl Findings for Slices {
    /// The servers: the endpoints that are ready, and, as draining servers, those that are terminating and still serve.
    /// If no endpoint is ready, the terminating ones get the new sessions, as with kube-proxy.
    fn list(&self) -> ListAnswer {
        let mut endpoints: Vec<_> = self.by_name.values().flat_map(|slice| &slice.endpoints).collect();
        // A pod has an endpoint for each family. An endpoint that moves to another slice is in both slices for a while.
        // Of the endpoints with the same address or the same pod, only the first is kept. The order is: IPv4 before
        // IPv6; within a family, ready before terminating; among these, with a pod before without.
        endpoints.sort_by_key(|endpoint| (endpoint.address.is_ipv6(), endpoint.state, endpoint.pod.is_none()));
        let (mut addresses, mut pods) = (HashSet::new(), HashSet::new());
        endpoints.retain(|UsableEndpoint { address, pod, .. }| {
            addresses.insert(address) && pod.as_ref().is_none_or(|pod| pods.insert(pod))
        });
        if endpoints.len() > LISTED_MAX {
            return Err(Reason::from(too_many(LISTED_MAX, "endpoints")));
        }
        endpoints.sort_by_key(|endpoint| (&endpoint.pod, endpoint.address));
        let has_ready = endpoints.iter().any(|endpoint| endpoint.state == EndpointState::Ready);
        let zones_matter = zones_matter(&endpoints);
        let servers = endpoints.iter().map(|endpoint| {
            let is_far = zones_matter && endpoint.zone != ZoneHint::Ours;
            let listed = ListedServer {
                name: endpoint.pod.as_deref().map(str::to_owned),
                priority: is_far.then(|| self.defaults.priority.saturating_add(1)),
                draining: has_ready && endpoint.state == EndpointState::Terminating,
                ..ListedServer::at(endpoint.address.to_string())
            };
            listed.into_entry(self.defaults)
        });
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let warning = self.problem().or_else(|| servers.is_empty().then(|| self.why_empty()));
        Ok(ServerList { servers, warning })
    }
}

fn too_many(max: usize, what: &str) -> String {
    format!("the Service has more than {max} {what}")
}

/// Whether zones matter: every ready endpoint has hints, and at least one has a hint for our zone. An endpoint without
/// hints may be new, and the hints of the others out of date. Then kube-proxy ignores all hints, too.
fn zones_matter(endpoints: &[&UsableEndpoint]) -> bool {
    let mut ready = endpoints
        .iter()
        .filter(|endpoint| endpoint.state == EndpointState::Ready);
    let all_have_hints = ready.clone().all(|endpoint| endpoint.zone != ZoneHint::Missing);
    all_have_hints && ready.any(|endpoint| endpoint.zone == ZoneHint::Ours)
}

impl EndpointConditions {
    /// The state of the endpoint; `None`: it is left out. A missing `ready` counts as true, a missing `serving` as
    /// `ready`, and a missing `terminating` as false (API reference of EndpointConditions). A terminating endpoint is
    /// not ready, even if its Service calls every endpoint ready (`publishNotReadyAddresses`).
    fn state(&self) -> Option<EndpointState> {
        let is_ready = self.ready.unwrap_or(true);
        if self.terminating.unwrap_or(false) {
            self.serving.unwrap_or(is_ready).then_some(EndpointState::Terminating)
        } else {
            is_ready.then_some(EndpointState::Ready)
        }
    }
}

impl TargetRef {
    /// The name of the pod, if the target is a pod and a server can have that name.
    fn into_pod(self) -> Option<Arc<str>> {
        let can_be_named = self.kind == "Pod" && is_name(&self.name) && !self.name.contains(['/', '@']);
        can_be_named.then(|| self.name.into())
    }
}

/// The number of the wanted port among the TCP ports of a slice. If there are no TCP ports, or if one has no number,
/// any [`ServicePort::Number`] is accepted.
fn port_of(wanted: &ServicePort, ports: &[SlicePort]) -> Result<NonZeroU16, Reason> {
    let is_tcp = |port: &&SlicePort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
    let ports: Vec<_> = ports.iter().filter(is_tcp).collect();
    let number_of = |port: &SlicePort| NonZeroU16::new(port.port?);
    let found = match wanted {
        ServicePort::Only if ports.len() == 1 => number_of(ports[0]),
        ServicePort::Only => None,
        ServicePort::Name(name) => {
            let named = ports.iter().find(|port| port.name.as_deref() == Some(name));
            named.and_then(|port| number_of(port))
        }
        ServicePort::Number(number) => {
            let allows = |port: &&SlicePort| port.port.is_none_or(|allowed| allowed == number.get());
            (ports.is_empty() || ports.iter().any(allows)).then_some(*number)
        }
    };
    found.ok_or_else(|| {
        let known = ports.iter().map(|port| match (port.name.as_deref(), port.port) {
            (Some(name), Some(number)) if !name.is_empty() => format!("`{name}` ({number})"),
            (Some(name), None) if !name.is_empty() => format!("`{name}` (any number)"),
            (_, Some(number)) => number.to_string(),
            (_, None) => "any number".to_owned(),
        });
        let known = known.collect::<Vec<_>>().join(", ");
        Reason::from(match wanted {
            _ if known.is_empty() => "it has no TCP port: set `port` to a number".to_owned(),
            ServicePort::Only => format!("set `port` to one of its ports: {known}"),
            ServicePort::Name(name) => format!("it has no TCP port `{name}`, but {known}"),
            ServicePort::Number(number) => format!("it has no TCP port {number}, but {known}"),
        })
    })
}

#[cfg(test)]
mod tests;
