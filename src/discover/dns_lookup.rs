//! Queries to a name server: the records of the answer, and how long the answer holds.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::Instant;

use super::dns_records::SrvRecord;
use crate::error::chain;
use crate::text::Reason;

/// The longest time that an answer without records holds, although zones may allow hours. An answer without records and
/// without a TTL holds this long.
const ABSENT_TTL_MAX: Duration = Duration::from_secs(30);

/// The most addresses of one host and one record type that are used. If there are more, the lowest are used. A host
/// name in the key `servers` of a pool has the same limit for both types together.
const ADDRESSES_MAX: usize = 256;

/// The most names that are asked for in a chain of aliases. For addresses, the resolver has the same limit.
const ALIAS_CHAIN_MAX: usize = 8;

pub(super) const NO_ANSWER: &str = "the name server does not answer";

/// An answer of a name server.
pub(super) struct Found<T> {
    /// Sorted, each once: name servers rotate their answers.
    pub(super) records: Vec<T>,
    /// Why there are no records, or why some records of the answer are left out.
    pub(super) remark: Option<Reason>,
    /// How long it holds.
    pub(super) ttl: Duration,
}

impl<T> Found<T> {
    /// The same answer, which holds no longer than this.
    fn limited_to(self, ttl: Duration) -> Self {
        Self {
            ttl: self.ttl.min(ttl),
            ..self
        }
    }
}

/// A resolver that asks this name server, or those of the system. It caches no answers.
pub(super) fn open(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let (config, mut options) = match server {
        None => read_system_conf()?,
        Some(server) => {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|each| each.port = server.port());
            let config = ResolverConfig::from_name_servers(vec![config]);
            (config, ResolverOpts::default())
        }
    };
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options).build()
}

/// Asks for the SRV records of a name, or of the name that it is an alias of: the resolver follows aliases for
/// addresses, but not for SRV records.
pub(super) async fn ask_srv(resolver: &TokioResolver, mut name: Name) -> Result<Found<SrvRecord>, Reason> {
    let mut ttl = Duration::MAX;
    for _ in 0..ALIAS_CHAIN_MAX {
        let found = ask(resolver, name.clone(), RecordType::SRV, srv_record).await?;
        if !found.records.is_empty() {
            return Ok(found.limited_to(ttl));
        }
        let mut alias = ask(resolver, name, RecordType::CNAME, alias_target).await?;
        let Some(target) = alias.records.pop() else {
            return Ok(found.limited_to(ttl));
        };
        ttl = ttl.min(alias.ttl);
        name = target;
    }
    Err("the chain of aliases that begins with the name is too long".into())
}

/// Asks for the addresses of a name that are of one type.
pub(super) async fn ask_addresses(
    resolver: &TokioResolver,
    name: Name,
    kind: RecordType,
) -> Result<Found<IpAddr>, Reason> {
    let mut found = ask(resolver, name, kind, ip_address).await?;
    let count = found.records.len();
    if count > ADDRESSES_MAX {
        found.records.truncate(ADDRESSES_MAX);
        found.remark =
            Some(format!("the name has {count} addresses, of which the lowest {ADDRESSES_MAX} are used").into());
    }
    Ok(found)
}

/// Asks for the records of a name. An answer without records is not an error.
async fn ask<T: Ord>(
    resolver: &TokioResolver,
    name: Name,
    kind: RecordType,
    read: fn(&RData) -> Option<T>,
) -> Result<Found<T>, Reason> {
    let absent = |reason: String, ttl: Option<u32>| Found {
        records: Vec::new(),
        remark: Some(reason.into()),
        ttl: ttl.map_or(ABSENT_TTL_MAX, |ttl| {
            Duration::from_secs(ttl.into()).min(ABSENT_TTL_MAX)
        }),
    };
    match resolver.lookup(name, kind).await {
        Ok(lookup) => {
            let records = lookup.answers().iter().filter_map(|record| read(&record.data));
            let mut records: Vec<T> = records.collect();
            if records.is_empty() {
                return Ok(absent(format!("the name has no {kind} record"), None));
            }
            records.sort_unstable();
            records.dedup();
            Ok(Found {
                records,
                remark: None,
                ttl: Instant::from_std(lookup.valid_until()).saturating_duration_since(Instant::now()),
            })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(no_records))) => Ok(match no_records.response_code {
            ResponseCode::NXDomain => absent("the name does not exist".to_owned(), no_records.negative_ttl),
            _ => absent(format!("the name has no {kind} record"), no_records.negative_ttl),
        }),
        Err(NetError::Timeout) => Err(NO_ANSWER.into()),
        Err(error) => Err(Reason::from(chain(&error))),
    }
}

fn srv_record(data: &RData) -> Option<SrvRecord> {
    let RData::SRV(srv) = data else { return None };
    let target = srv.target.to_lowercase().to_ascii();
    Some(SrvRecord {
        priority: srv.priority,
        target: target.trim_end_matches('.').into(),
        port: srv.port,
        weight: srv.weight,
    })
}

fn alias_target(data: &RData) -> Option<Name> {
    let RData::CNAME(target) = data else { return None };
    Some(target.0.clone())
}

fn ip_address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}
