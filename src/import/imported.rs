//! What an importer has found: the sections of a configuration, as text, with remarks about lines of the imported file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::Hash;

use crate::text::toml_basic_string;

/// A configuration before it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Imported {
    /// `[runtime]`
    pub(super) runtime: ImportedSection,
    pub(super) listeners: Vec<ImportedListener>,
    pub(super) pools: Vec<ImportedPool>,
    /// Remarks about lines that belong to none of these sections.
    pub(super) remarks: Vec<Remark>,
}

/// Keys with their values, and remarks.
#[derive(Clone, Debug, Default)]
pub(super) struct ImportedSection {
    /// Each key once; the values are in TOML.
    pub(super) keys: Vec<(&'static str, String)>,
    pub(super) remarks: Vec<Remark>,
}

/// `[listeners.NAME.tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ImportedTls {
    /// Entries of `certificates`, in TOML. Without any, TLS is not terminated.
    pub(super) certificates: Vec<String>,
    /// The other keys with their values in TOML.
    pub(super) keys: BTreeMap<&'static str, String>,
}

/// `[listeners.NAME]`
#[derive(Clone, Debug, Default)]
pub(super) struct ImportedListener {
    pub(super) name: String,
    /// Valid values of `bind`.
    pub(super) bind: Vec<String>,
    /// The addresses of `bind` at which no TLS is terminated, whatever `tls` says.
    pub(super) plain_addresses: Vec<String>,
    /// The addresses of `bind`, such as `[::]:443`, that stand for all addresses of IPv4, too.
    pub(super) dual_stack: Vec<String>,
    /// The pool for clients that match no route.
    pub(super) pool: Option<String>,
    pub(super) section: ImportedSection,
    pub(super) tls: ImportedTls,
    /// What takes the place of `tls` at single addresses of `bind`.
    pub(super) address_tls: HashMap<String, ImportedTls>,
    /// `from` of `accept_proxy`. Empty: clients do not begin with a PROXY header.
    pub(super) proxy_peers: Vec<String>,
    /// The addresses of `bind` to which `proxy_peers` applies. Empty: it applies to all.
    pub(super) proxy_addresses: Vec<String>,
    /// `allow` and `deny` of a guard of its own.
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    /// The limits of that guard.
    pub(super) limits: ImportedSection,
    pub(super) routes: Vec<ImportedRoute>,
}

/// `[[listeners.NAME.routes]]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ImportedRoute {
    pub(super) sni: Vec<String>,
    pub(super) alpn: Vec<String>,
    pub(super) from: Vec<String>,
    /// `None`: the route refuses clients.
    pub(super) pool: Option<String>,
    /// The number of its line, for remarks.
    pub(super) line: usize,
}

impl ImportedRoute {
    /// Whether it has no condition, and takes all clients.
    pub(super) fn is_for_all(&self) -> bool {
        self.sni.is_empty() && self.kinds() == 0
    }

    /// How many kinds of conditions it has besides names.
    pub(super) fn kinds(&self) -> usize {
        [&self.alpn, &self.from]
            .into_iter()
            .filter(|entries| !entries.is_empty())
            .count()
    }
}

/// `[pools.NAME]`
#[derive(Clone, Debug, Default)]
pub(super) struct ImportedPool {
    pub(super) name: String,
    /// The name of the nginx `upstream` block that became this pool. `None`: there is no such block.
    pub(super) upstream: Option<String>,
    pub(super) section: ImportedSection,
    /// `[pools.NAME.tls]`; `None`: no TLS with the servers begins here.
    pub(super) tls: Option<ImportedSection>,
    /// `[pools.NAME.health]`
    pub(super) health: ImportedSection,
    /// `bind_source`: an address of this machine, or `client`. `None`: the system chooses.
    pub(super) source: Option<String>,
    pub(super) servers: Vec<ImportedServer>,
}

/// An entry of `servers`.
#[derive(Clone, Debug, Default)]
pub(super) struct ImportedServer {
    /// A valid value of `address`.
    pub(super) address: String,
    pub(super) name: Option<String>,
    /// 0 to 256.
    pub(super) weight: Option<u32>,
    /// The tier, at most 255.
    pub(super) priority: u32,
    /// `max_sessions`, 1 to [`SESSIONS_MAX`].
    pub(super) sessions_max: Option<u32>,
}

/// The reason for a remark about an address that the imported file binds more than once.
pub(super) const BOUND_ALREADY: &str = "it is bound already";

/// The highest `max_sessions` that the configuration accepts.
pub(super) const SESSIONS_MAX: u32 = 1_000_000;

/// A comment about a line of the imported file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    /// The number of the line; 0: the remark is about no line.
    pub(super) line: usize,
    /// Whether the line, or a part of it, was not carried over.
    pub(super) is_left_out: bool,
    pub(super) text: String,
}

impl Remark {
    /// A line, or a part of one, that is not carried over. `why` may be empty.
    pub(super) fn left_out(line: usize, what: &str, why: &str) -> Self {
        let mut text = String::from(what);
        if !why.is_empty() {
            let _ = write!(text, " ({why})");
        }
        Self {
            line,
            is_left_out: true,
            text,
        }
    }

    /// A line that is carried over, with a difference that the operator should know.
    pub(super) fn note(line: usize, text: impl Into<String>) -> Self {
        Self {
            line,
            is_left_out: false,
            text: text.into(),
        }
    }

    /// Notes that `server` gets the pool's value of a key instead of its own. `source` says in words which server the
    /// pool's value comes from.
    pub(super) fn uses_pool_value(
        line: usize,
        key: &str,
        server: &str,
        own: Option<&str>,
        pool_value: Option<&str>,
        source: &str,
    ) -> Self {
        let value = pool_value.unwrap_or("not set");
        let instead = own.map_or(String::new(), |own| format!(", instead of {own}"));
        Self::note(line, format!("{key} of {server} is {value}, as for {source}{instead}"))
    }
}

impl ImportedListener {
    /// TLS at an address of `bind`. `None`: the address is in `plain_addresses`.
    pub(super) fn tls_at(&self, address: &String) -> Option<&ImportedTls> {
        let is_plain = self.plain_addresses.contains(address);
        (!is_plain).then(|| self.address_tls.get(address).unwrap_or(&self.tls))
    }

    /// Whether an address of `bind` is not in `plain_addresses`.
    pub(super) fn has_tls_address(&self) -> bool {
        self.bind.iter().any(|address| self.tls_at(address).is_some())
    }

    /// Accepts a PROXY header from any peer at these addresses of `bind`. `addresses` must not be empty: no address
    /// would mean all.
    pub(super) fn accept_proxy_at(&mut self, addresses: &[String]) {
        self.proxy_peers = vec![String::from("0.0.0.0/0"), String::from("::/0")];
        self.proxy_addresses.extend_from_slice(addresses);
    }

    /// Accepts a PROXY header from these peers, and those of earlier calls, at all addresses. Returns whether this
    /// replaces what [`accept_proxy_at`](Self::accept_proxy_at) has set.
    pub(super) fn expect_proxy_of(&mut self, peers: Vec<String>) -> bool {
        let is_replaced = !self.proxy_addresses.is_empty();
        if is_replaced {
            self.proxy_peers.clear();
            self.proxy_addresses.clear();
        }
        self.proxy_peers.extend(peers); // duplicates are removed later
        is_replaced
    }
}

impl ImportedSection {
    /// Sets a key to a value in TOML; the last one holds.
    pub(super) fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.remove(key);
        self.keys.push((key, value.into()));
    }

    /// Removes a key, if it is set.
    pub(super) fn remove(&mut self, key: &str) {
        self.keys.retain(|(known, _)| *known != key);
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.keys.iter().find(|(known, _)| *known == key)?;
        Some(value)
    }
}

/// Whether a protocol of ALPN can have this name.
pub(super) fn is_protocol(name: &str) -> bool {
    (1..=255).contains(&name.len())
}

/// Whether the configuration accepts this path of a file.
pub(super) fn is_file(path: &str) -> bool {
    !path.is_empty() && !path.ends_with('/') && !path.contains('\0')
}

/// Removes texts that are not valid, and texts with the same meaning as an earlier one.
pub(super) fn keep_first<T: Eq + Hash>(texts: &mut Vec<String>, parse: impl Fn(&str) -> Option<T>) {
    let mut seen = HashSet::new();
    texts.retain(|text| parse(text).is_some_and(|entry| seen.insert(entry)));
}

/// A string in TOML, in one line.
pub(super) fn quoted(text: &str) -> String {
    if text.contains(['\n', '\r']) {
        return toml_basic_string(text);
    }
    ::toml::Value::from(text).to_string()
}

/// A list of strings in TOML; a single one by itself.
pub(super) fn quoted_list(texts: &[String]) -> String {
    match texts {
        [one] => quoted(one),
        many => format!(
            "[{}]",
            many.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")
        ),
    }
}
