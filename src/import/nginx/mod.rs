//! Reads the `stream` block of a configuration of nginx.

mod block;
mod map;
mod upstream;
mod access;
mod proxy_ssl;
mod server;

use std::collections::HashMap;

use super::complete::valid_name;
use super::imported::{Imported, ImportedListener, ImportedPool, ImportedServer, Remark};
use super::number::integer;
use block::{Directive, parse};
use map::NameMap;

/// Converts the text of a file. A file without `stream` is taken for the inside of one, as an included file is.
pub(super) fn read(text: &str) -> Imported {
    let mut imported = Imported::default();
    let all = parse(text);
    let has_stream = all.iter().any(|directive| directive.name() == "stream");
    let mut stream = Vec::new();
    for directive in all {
        match directive.name() {
            "stream" => stream.extend(directive.block.unwrap_or_default()),
            _ if !has_stream && directive.name() != "http" => stream.push(directive),
            "worker_processes" => {
                if let Some(workers) = directive.word(1).and_then(|text| integer(text, 1, 1024)) {
                    imported.runtime.set("workers", workers.to_string());
                }
            }
            _ => imported.remarks.push(directive.left_out("")),
        }
    }
    read_stream(&stream, &mut imported);
    imported
}

/// What servers refer to.
#[derive(Default)]
struct Targets {
    maps: HashMap<String, NameMap>,
    pools: Vec<ImportedPool>,
}

impl Targets {
    /// The name of the pool that `proxy_pass` means: an upstream, or a pool of its own for an address.
    fn pool(&mut self, target: &str) -> Option<String> {
        let name = valid_name(target).replace([':', '.', '[', ']'], "-");
        if let Some(pool) = self.pools.iter().find(|pool| pool.name == target || pool.name == name) {
            return Some(pool.name.clone());
        }
        let address = upstream::address(target)?;
        let name = name.trim_matches('-').to_owned();
        self.pools.push(ImportedPool {
            name: name.clone(),
            servers: vec![ImportedServer {
                address,
                ..ImportedServer::default()
            }],
            ..ImportedPool::default()
        });
        Some(name)
    }

    /// The pools of a listener.
    fn used_by(&mut self, listener: &ImportedListener) -> impl Iterator<Item = &mut ImportedPool> {
        let routed = listener.routes.iter().filter_map(|route| route.pool.clone());
        let used: Vec<String> = routed.chain(listener.pool.clone()).collect();
        self.pools.iter_mut().filter(move |pool| used.contains(&pool.name))
    }
}

fn read_stream(stream: &[Directive], imported: &mut Imported) {
    let mut names = Targets::default();
    let mut inherited = Vec::new();
    for directive in stream {
        match (directive.name(), &directive.block) {
            ("upstream", Some(block)) => {
                let name = valid_name(directive.word(1).unwrap_or_default());
                names.pools.push(upstream::read(name, block));
            }
            ("map", Some(block)) => match NameMap::read(directive, block, &mut imported.remarks) {
                Some((variable, map)) => drop(names.maps.insert(variable, map)),
                None => imported
                    .remarks
                    .push(directive.left_out("only maps of the server name are carried over")),
            },
            ("server", Some(_)) => {}
            ("log_format" | "access_log" | "error_log", _) => {}
            (_, None) if server::is_known(directive) => inherited.push(directive),
            _ => imported.remarks.push(directive.left_out("")),
        }
    }
    let servers = stream.iter().filter(|directive| directive.name() == "server");
    for directive in servers {
        let block = directive.block.as_deref().unwrap_or_default();
        let is_http = |inside: &Directive| matches!(inside.name(), "location" | "server_name" | "root");
        if block.iter().any(is_http) {
            imported.remarks.push(directive.left_out("a server for HTTP"));
            continue;
        }
        match server::read(&inherited, block, &mut names) {
            Ok(listener) => imported.listeners.push(listener),
            Err(why) => imported
                .remarks
                .push(Remark::left_out(directive.line, &summary(directive), why)),
        }
    }
    imported.pools = names.pools;
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
