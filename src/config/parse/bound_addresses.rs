//! Parses the addresses to listen on, and finds those that conflict.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use super::{Problems, address, value};
use crate::addr::{ListenAddr, UnixPath, UnixPlace};
use crate::config::file::{Node, Value};
use crate::config::report::Position;

/// The addresses of all listeners and of `[admin]`, except those with port 0, each with the position where it was first
/// bound.
#[derive(Default)]
pub(super) struct BoundAddresses {
    all: HashMap<ListenAddr, Position>,
    /// The Unix sockets: how each is written, and its position (`None` for the socket of the API).
    unix: HashMap<UnixPlace, (String, Option<Position>)>,
    /// The address of the admin port, with which no listener may overlap. It is parsed first.
    admin: Option<(ListenAddr, Position)>,
}

impl BoundAddresses {
    /// Parses an address and adds it, or reports that it conflicts with an address added before. `None`: it is invalid,
    /// or it is a Unix socket in a text of the store, and `allow` in `[remote]` does not permit its path. Port 0 may be
    /// bound more than once: it stands for any free port.
    pub(super) fn add(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<ListenAddr> {
        let parsed = match &node.value {
            // An error that names the missing IP address.
            Value::Integer(port) if u16::try_from(*port).is_ok() => address::listen(&port.to_string()),
            _ => address::listen(value::string(node, r#"write "0.0.0.0:443""#, problems)?),
        };
        let address = match parsed {
            Ok(address) => address,
            Err((message, hint)) => {
                problems.error(&node.position, message, hint);
                return None;
            }
        };
        if let Some(socket) = address.unix()
            && !problems.check_path(&node.position, socket.as_path())
        {
            return None;
        }
        if address.port() == Some(0) {
            return Some(address);
        }
        // A path that is already in `all` is reported below, as bound twice.
        if let Some(path) = address.unix()
            && !self.all.contains_key(&address)
        {
            self.add_unix(path, &node.position, problems);
        }
        let overlapping = self.admin.as_ref().filter(|(admin, _)| admin.overlaps(address));
        if let Some(first) = self.all.get(&address) {
            let hint = format!("first on {}", problems.describe_position(first));
            problems.error(&node.position, format!("{address} is bound twice"), hint);
        } else if let Some((admin, position)) = overlapping {
            let message = format!("{address} overlaps with {admin}, `bind` of [admin]");
            let hint = format!("that is on {}: use another port", problems.describe_position(position));
            problems.error(&node.position, message, hint);
        } else {
            self.all.insert(address, node.position.clone());
        }
        Some(address)
    }

    /// Adds a Unix socket, or reports that it was added already by another path, or that it is the socket of the API.
    fn add_unix(&mut self, path: &UnixPath, position: &Position, problems: &mut Problems<'_>) {
        let (written, first) = match self.unix.entry(path.place()) {
            Entry::Vacant(vacant) => {
                vacant.insert((path.to_string(), Some(position.clone())));
                return;
            }
            Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let message = format!("{path} is the same socket as {written}");
        let hint = first.as_ref().map_or("use another path".to_owned(), |first| {
            format!("that is on {}: use another path", problems.describe_position(first))
        });
        problems.error(position, message, hint);
    }

    /// Reserves the path of the socket of the API, with which no listener may conflict. `what` names the setting.
    pub(super) fn reserve_admin_socket(&mut self, path: &Path, what: &str) {
        let written = format!("{}, {what}", path.display());
        self.unix.insert(UnixPlace::of(path), (written, None));
    }

    /// As [`Self::add`], for the admin port, which cannot be a Unix socket.
    pub(super) fn add_admin(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<ListenAddr> {
        if matches!(&node.value, Value::String(text) if text.starts_with("unix:")) {
            let hint = r#"write socket = "/run/acequia/admin.sock": the Unix socket of the API"#;
            problems.error(&node.position, "`bind` of [admin] must be a TCP address", hint);
            return None;
        }
        let address = self.add(node, problems)?;
        self.admin = (address.port() != Some(0)).then(|| (address, node.position.clone()));
        Some(address)
    }
}
