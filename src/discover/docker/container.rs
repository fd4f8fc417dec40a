//! A container as the engine lists it, and the server that its labels and networks describe.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::docker::{HOST_NETWORK, NetworkEndpoint};
use crate::plan::{ListedServer, ServerEntry};
use crate::pool::MemberConfig;
use crate::text::{Reason, parse_digits};

/// The label with the port of the server in a container.
const PORT_LABEL: &str = "acequia.port";

/// The label with the network in which the server's address is.
const NETWORK_LABEL: &str = "acequia.network";

/// The label with the server's weight.
const WEIGHT_LABEL: &str = "acequia.weight";

/// A container of `GET /containers/json`. Podman writes null for empty values.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::discover) struct Container {
    pub(super) id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    /// When it was created, in seconds since 1970.
    #[serde(default)]
    pub(in crate::discover) created: i64,
    state: String,
    #[serde(default)]
    ports: Option<Vec<ExposedPort>>,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
    /// Whether it is to get no new sessions. This is not in the engine's answer: `ContainerWatch` sets it.
    #[serde(skip)]
    pub(super) is_draining: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExposedPort {
    private_port: u16,
    #[serde(rename = "Type")]
    protocol: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<BTreeMap<String, NetworkEndpoint>>,
}

impl Container {
    /// Whether its processes run, or are paused.
    pub(super) fn is_alive(&self) -> bool {
        self.state == "running" || self.is_paused()
    }

    /// Whether its processes are paused.
    pub(super) fn is_paused(&self) -> bool {
        self.state == "paused"
    }

    /// Its name, without the slash at its beginning; without a name, its ID. Names with a second slash are aliases from
    /// links of other containers (`docker run --link`).
    pub(in crate::discover) fn name(&self) -> &str {
        let names = self.names.as_deref().unwrap_or_default();
        let mut names = names.iter().map(|name| name.trim_start_matches('/'));
        names.find(|name| !name.contains('/')).unwrap_or(&self.id)
    }

    /// The value of a label.
    pub(in crate::discover) fn label(&self, key: &str) -> Option<&str> {
        Some(self.labels.as_ref()?.get(key)?.as_str())
    }

    /// The container as a server. Its address is the one in the network that its label names, else in `network`, else
    /// in its only network; in the network of the host, it is 127.0.0.1. Its port is the one that its label names, else
    /// `port`, else the only TCP port that it exposes.
    pub(in crate::discover) fn server(
        &self,
        network: Option<&str>,
        port: Option<u16>,
        defaults: MemberConfig,
    ) -> Result<ServerEntry, Reason> {
        let weight = self.label(WEIGHT_LABEL).map(|text| {
            parse_digits::<u16>(text.trim())
                .ok_or_else(|| Reason::from(format!("label `{WEIGHT_LABEL}`: `{text}` is not a weight")))
        });
        let listed = ListedServer {
            name: Some(self.name().to_owned()),
            weight: weight.transpose()?,
            draining: self.is_draining,
            ..ListedServer::at(SocketAddr::new(self.ip(network)?, self.port(port)?).to_string())
        };
        listed.into_entry(defaults)
    }

    fn ip(&self, network: Option<&str>) -> Result<IpAddr, Reason> {
        let networks = self
            .network_settings
            .as_ref()
            .and_then(|settings| settings.networks.as_ref());
        let mut networks = networks.into_iter().flatten();
        let (name, endpoint) = match self.label(NETWORK_LABEL).or(network) {
            Some(wanted) => networks
                .find(|(name, _)| *name == wanted)
                .ok_or_else(|| Reason::from(format!("it is not in network `{wanted}`")))?,
            None => match (networks.next(), networks.next()) {
                (Some(only), None) => only,
                (None, _) => return Err("it is in no network of its own".into()),
                (Some((first, _)), Some((second, _))) => {
                    let message = format!(
                        "it is in several networks (`{first}`, `{second}`): set `network` or its label `{NETWORK_LABEL}`"
                    );
                    return Err(message.into());
                }
            },
        };
        if name == HOST_NETWORK {
            return Ok(Ipv4Addr::LOCALHOST.into());
        }
        endpoint
            .ip()
            .ok_or_else(|| Reason::from(format!("it has no address in network `{name}`")))
    }

    fn port(&self, configured: Option<u16>) -> Result<u16, Reason> {
        if let Some(text) = self.label(PORT_LABEL) {
            let port = parse_digits::<u16>(text.trim()).filter(|port| *port > 0);
            return port.ok_or_else(|| Reason::from(format!("label `{PORT_LABEL}`: `{text}` is not a port")));
        }
        if let Some(port) = configured {
            return Ok(port);
        }
        let ports = self.ports.iter().flatten().filter(|port| port.protocol == "tcp");
        let mut ports: Vec<u16> = ports.map(|port| port.private_port).collect();
        ports.sort_unstable();
        ports.dedup(); // a published port is listed for each address of the host
        match ports.as_slice() {
            [only] => Ok(*only),
            [] => Err(format!("it exposes no TCP port: set `port` or its label `{PORT_LABEL}`").into()),
            _ => Err(format!("it exposes several TCP ports: set `port` or its label `{PORT_LABEL}`").into()),
        }
    }
}

#[cfg(test)]
mod tests;
