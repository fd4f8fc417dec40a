//! Reads the `stream` block and `worker_processes` of a configuration of nginx.

mod block;
mod map;
mod upstream;
mod access;
mod access_limits;
mod certificates;
mod proxy_ssl;
mod server;

use std::collections::{HashMap, HashSet};

use super::ImportError;
use super::complete::{unique, valid_name};
use super::imported::{Imported, ImportedListener, ImportedPool, ImportedServer, Remark};
use super::number::clamped_integer;
use block::{Directive, parse};
use map::TargetMap;

/// Converts the text of a file. A file without a `stream` block is read as the contents of one: it may be an included
/// file.
///
/// # Errors
/// The file is cut off, or otherwise not one of nginx.
pub(super) fn read(text: &str) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    let all = parse(text)?;
    let has_stream = all.iter().any(|directive| directive.name() == "stream");
    let mut stream = Vec::new();
    for directive in all {
        match directive.name() {
            "stream" => stream.extend(directive.block.unwrap_or_default()),
            "worker_processes" => {
                if let Some(workers) = directive.word(1).and_then(|text| clamped_integer(text, 1, 1024)) {
                    imported.runtime.set("workers", workers.to_string());
                }
            }
            _ if !has_stream && directive.name() != "http" => stream.push(directive),
            _ => imported.remarks.push(directive.left_out("")),
        }
    }
    read_stream(&stream, &mut imported);
    Ok(imported)
}

/// What `server` blocks refer to.
#[derive(Default)]
struct Targets {
    maps: HashMap<String, TargetMap>,
    /// The zones that count the sessions of each client. The value is how many `limit_conn` have used the zone.
    client_zones: HashMap<String, usize>,
    /// The pools to write. `server` blocks add settings to the pools that they use.
    pools: Vec<ImportedPool>,
    /// The key is what `proxy_pass` calls the pool: the name of an upstream, or an address.
    upstreams: HashMap<String, Upstream>,
    /// The names of the pools in `pools`, as [`unique`] counts them.
    names: HashMap<String, usize>,
}

/// What `proxy_pass` can name.
struct Upstream {
    /// The pool without the settings of `server` blocks, to make copies of.
    pool: ImportedPool,
    /// The names of the pool and its copies, by `connect_settings` (see [`Targets::pool`]).
    pool_names: HashMap<String, String>,
}

impl Targets {
    /// Adds a pool, and changes its name if that is taken. `target` is what `proxy_pass` calls the pool. If several
    /// upstreams have the same name, `proxy_pass` means the first.
    fn add(&mut self, target: &str, mut pool: ImportedPool) {
        pool.name = unique(&pool.name, &mut self.names);
        self.pools.push(pool.clone());
        let pool_names = HashMap::new();
        self.upstreams
            .entry(target.to_owned())
            .or_insert(Upstream { pool, pool_names });
    }

    /// The name of the pool that `proxy_pass` means. An address gets a pool of its own, which is added if it is new.
    /// `server` blocks that connect to the same target in different ways get a pool each. `connect_settings` tells
    /// these ways apart: it has what the directives `proxy_ssl*`, `proxy_protocol`, `proxy_bind`, `proxy_next_upstream`
    /// and `proxy_next_upstream_tries` set other than their defaults. `None`: the target is neither an upstream nor an
    /// address.
    fn pool(&mut self, target: &str, connect_settings: &str) -> Option<String> {
        if !self.upstreams.contains_key(target) {
            self.add(target, pool_of_address(target)?);
        }
        let upstream = self.upstreams.get_mut(target)?;
        if let Some(name) = upstream.pool_names.get(connect_settings) {
            return Some(name.clone());
        }
        let mut name = upstream.pool.name.clone();
        if !upstream.pool_names.is_empty() {
            name = unique(&name, &mut self.names);
            self.pools.push(ImportedPool {
                name: name.clone(),
                ..upstream.pool.clone()
            });
        }
        upstream.pool_names.insert(connect_settings.to_owned(), name.clone());
        Some(name)
    }

    /// The pools of a listener.
    fn used_by(&mut self, listener: &ImportedListener) -> impl Iterator<Item = &mut ImportedPool> {
        let routed = listener.routes.iter().filter_map(|route| route.pool.clone());
        let used: HashSet<String> = routed.chain(listener.pool.clone()).collect();
        self.pools.iter_mut().filter(move |pool| used.contains(&pool.name))
    }
}

/// A pool of one server. `None`: the target of `proxy_pass` is not an address.
fn pool_of_address(target: &str) -> Option<ImportedPool> {
    let address = upstream::address(target)?;
    let name = valid_name(target).replace([':', '.', '[', ']'], "-");
    Some(ImportedPool {
        name: name.trim_matches('-').to_owned(),
        servers: vec![ImportedServer {
            address,
            ..ImportedServer::default()
        }],
        ..ImportedPool::default()
    })
}

fn read_stream(stream: &[Directive], imported: &mut Imported) {
    let mut targets = Targets::default();
    let mut inherited = Vec::new();
    for directive in stream {
        match (directive.name(), &directive.block) {
            ("upstream", Some(block)) => {
                let name = directive.word(1).unwrap_or_default();
                targets.add(name, upstream::read(name, block));
            }
            ("map", Some(block)) => match TargetMap::read(directive, block, &mut imported.remarks) {
                Some((variable, map)) => drop(targets.maps.insert(variable, map)),
                None => imported
                    .remarks
                    .push(directive.left_out("only maps of the server name or of ALPN protocols are carried over")),
            },
            ("limit_conn_zone", None) => match access_limits::client_zone(directive) {
                Some(zone) => drop(targets.client_zones.insert(zone.to_owned(), 0)),
                None => imported.remarks.push(directive.left_out("")),
            },
            ("server", Some(_)) => {}
            ("log_format" | "access_log" | "error_log", _) => {}
            (_, None) if server::is_inherited(directive) => inherited.push(directive),
            _ => imported.remarks.push(directive.left_out("")),
        }
    }
    for directive in stream.iter().filter(|directive| directive.name() == "server") {
        let Some(block) = directive.block.as_deref() else {
            continue; // the loop above has made a remark
        };
        let is_http = |inside: &Directive| matches!(inside.name(), "location" | "server_name" | "root");
        if block.iter().any(is_http) {
            imported.remarks.push(directive.left_out("a server for HTTP"));
            continue;
        }
        match server::read(&inherited, block, &mut targets) {
            Ok(listener) => imported.listeners.push(listener),
            Err(why) => imported
                .remarks
                .push(Remark::left_out(directive.line, &summary(directive), why)),
        }
    }
    imported.pools = targets.pools;
}

/// A server, with its addresses and target.
fn summary(server: &Directive) -> String {
    let block = server.block.as_deref().unwrap_or_default();
    let inside = block
        .iter()
        .filter(|inside| matches!(inside.name(), "listen" | "proxy_pass"));
    let inside: Vec<String> = inside.map(|inside| inside.words.join(" ")).collect();
    format!("server {{ {} }}", inside.join("; "))
}
