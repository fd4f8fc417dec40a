//! Turns DNS records into servers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use crate::plan::{LISTED_MAX, ListedServer, ServerEntry, WEIGHT_MAX};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// An SRV record (RFC 2782). The order is by priority first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SrvRecord {
    /// The lowest is the best.
    pub(super) priority: u16,
    /// A host name in lower case, without its last dot; empty: the service is not available.
    pub(super) target: Box<str>,
    pub(super) port: u16,
    pub(super) weight: u16,
}

/// The known addresses of a host name.
#[derive(Debug, Default)]
pub(super) struct HostAddresses {
    /// Without duplicates, in a fixed order: resolvers rotate their answers.
    pub(super) addresses: Vec<IpAddr>,
    /// Why there are no addresses, or not all, or only those of an earlier answer; `None`: they are up to date.
    pub(super) problem: Option<Reason>,
}

/// The hosts with a problem, each with the reason. Such a host is left out, or only some of its addresses are used, or
/// only the addresses of an earlier answer.
pub(super) type HostProblems = BTreeMap<Box<str>, Reason>;

/// The servers of these records, which must be sorted: each address of a target is a server, with the weight of the
/// record.
///
/// A pool has fewer priorities than DNS, and only their order matters: the best priority of these records becomes 0,
/// the next one 1, and so on; the 256th and all later ones become 255. Weights are as in the records, unless a weight
/// of the same priority is above [`WEIGHT_MAX`]: then all weights of this priority are scaled, so that the largest is
/// [`WEIGHT_MAX`]. A weight of 0 becomes 1, because such a server should still get a few sessions (RFC 2782).
///
/// # Errors
/// There are more than [`LISTED_MAX`] servers.
pub(super) fn servers(
    records: &[SrvRecord],
    hosts: &HashMap<Box<str>, HostAddresses>,
    defaults: MemberConfig,
) -> Result<(Vec<ServerEntry>, HostProblems), Reason> {
    let tiers = tiers(records);
    let (mut servers, mut problems) = (Vec::new(), HostProblems::new());
    let mut seen = HashSet::new();
    for record in records {
        let SrvRecord { target, port, .. } = record;
        let Some(host) = hosts.get(target) else {
            // Only an empty target has no entry.
            let reason = Reason::new("the records say that the service is not available");
            problems.insert(".".into(), reason);
            continue;
        };
        if let Some(problem) = &host.problem {
            problems.insert(target.clone(), problem.clone());
        }
        let tier = &tiers[&record.priority];
        for ip in &host.addresses {
            let listed = ListedServer {
                weight: Some(tier.weight(record.weight)),
                priority: Some(tier.pool_priority),
                ..ListedServer::at(format!("{target}:{port}@{ip}"))
            };
            let entry = match listed.into_entry(defaults) {
                Ok(entry) => entry,
                Err(reason) => {
                    problems.insert(target.clone(), reason);
                    continue;
                }
            };
            let is_new = seen.insert(entry.location.clone());
            if !is_new {
                continue; // an earlier record has listed it, with the same or a better priority
            }
            if servers.len() == LISTED_MAX {
                return Err(Reason::new(&format!("the records have more than {LISTED_MAX} servers")));
            }
            servers.push(entry);
        }
    }
    Ok((servers, problems))
}

/// All problems of hosts, as one warning.
pub(super) fn warning(problems: &HostProblems) -> Option<Reason> {
    let (host, reason) = problems.first_key_value()?;
    Some(Reason::from(match problems.len() {
        1 => format!("`{host}`: {reason}"),
        count => format!("{count} hosts have problems; the first is `{host}`: {reason}"),
    }))
}

/// The records of one priority.
struct Tier {
    pool_priority: u8,
    /// The largest weight of its records.
    weight_max: u16,
}

impl Tier {
    /// The weight in the pool for this weight of a record.
    fn weight(&self, of_record: u16) -> u16 {
        let (weight, limit) = (u32::from(of_record), u32::from(WEIGHT_MAX));
        // The weight `largest` is scaled to `limit`. If they are equal, all weights stay as they are.
        let largest = u32::from(self.weight_max).max(limit);
        let scaled = (weight * limit + largest / 2) / largest; // rounded to the nearest
        u16::try_from(scaled).unwrap_or(WEIGHT_MAX).max(1)
    }
}

fn tiers(records: &[SrvRecord]) -> BTreeMap<u16, Tier> {
    let mut tiers = BTreeMap::new();
    for record in records {
        let tier = tiers.entry(record.priority).or_insert(Tier {
            pool_priority: 0,
            weight_max: 0,
        });
        tier.weight_max = tier.weight_max.max(record.weight);
    }
    let pool_priorities = (0..=u8::MAX).chain(std::iter::repeat(u8::MAX));
    for (tier, pool_priority) in tiers.values_mut().zip(pool_priorities) {
        tier.pool_priority = pool_priority;
    }
    tiers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> SrvRecord {
        SrvRecord {
            priority,
            weight,
            target: target.into(),
            port: 5432,
        }
    }

    fn host(addresses: &[&str]) -> HostAddresses {
        HostAddresses {
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            problem: None,
        }
    }

    /// The servers of these records, as `LABEL weight priority`, and the warning.
    fn listed(records: &[SrvRecord], hosts: Vec<(&str, HostAddresses)>) -> (Vec<String>, Option<String>) {
        let hosts = hosts.into_iter().map(|(name, host)| (name.into(), host)).collect();
        let (servers, problems) = servers(records, &hosts, MemberConfig::default()).unwrap();
        let shown = |entry: &ServerEntry| {
            let config = entry.member_config;
            format!("{} {} {}", entry.label(), config.weight, config.priority)
        };
        let warning = warning(&problems).map(|warning| warning.to_string());
        (servers.iter().map(shown).collect(), warning)
    }

    #[test]
    fn each_address_of_a_target_is_a_server_with_weight_and_tier_of_its_record() {
        let records = [
            record(10, 3, "a.test"),
            record(10, 0, "b.test"),
            record(500, 60, "c.test"),
        ];
        let hosts = vec![
            ("a.test", host(&["10.0.0.1", "fd00::1"])),
            ("b.test", host(&["10.0.0.2"])),
            ("c.test", host(&["10.0.0.3"])),
        ];
        let expected = [
            "a.test:5432@10.0.0.1 3 0",
            "a.test:5432@fd00::1 3 0",
            "b.test:5432@10.0.0.2 1 0",
            "c.test:5432@10.0.0.3 60 1",
        ];
        assert_eq!(listed(&records, hosts), (expected.map(str::to_owned).to_vec(), None));
    }

    #[test]
    fn the_srv_target_is_the_host_name_for_tls_and_checks() {
        let hosts = HashMap::from([("a.test".into(), host(&["10.0.0.1"]))]);
        let (servers, _) = servers(&[record(0, 0, "a.test")], &hosts, MemberConfig::default()).unwrap();
        let spec = servers[0].fixed().unwrap();
        assert_eq!(
            (spec.host(), spec.address.to_string()),
            (Some("a.test"), "10.0.0.1:5432".to_owned())
        );
    }

    #[test]
    fn a_server_in_two_records_gets_the_better_priority() {
        let records = [record(1, 7, "a.test"), record(2, 9, "a.test")];
        let (servers, _) = listed(&records, vec![("a.test", host(&["10.0.0.1"]))]);
        assert_eq!(servers, ["a.test:5432@10.0.0.1 7 0"]);
    }

    #[test]
    fn hosts_with_problems_are_reported_and_only_usable_addresses_become_servers() {
        let problem = |reason: &str, addresses: &[&str]| HostAddresses {
            problem: Some(reason.into()),
            ..host(addresses)
        };
        let records = [record(1, 1, "a.test"), record(1, 1, "b.test"), record(2, 1, "c.test")];
        let hosts = vec![
            ("a.test", problem("the name does not exist", &[])),
            ("b.test", host(&["10.0.0.2", "fe80::1"])), // a link-local address needs an interface
            ("c.test", problem("the name server does not answer", &["10.0.0.3"])),
        ];
        let (servers, warning) = listed(&records, hosts);
        assert_eq!(servers, ["b.test:5432@10.0.0.2 1 0", "c.test:5432@10.0.0.3 1 1"]);
        let expected = "3 hosts have problems; the first is `a.test`: the name does not exist";
        assert_eq!(warning.as_deref(), Some(expected));
        let hosts = vec![("a_b:1@10.0.0.9", host(&["10.0.0.1"]))];
        let (servers, warning) = listed(&[record(1, 1, "a_b:1@10.0.0.9")], hosts);
        assert!(servers.is_empty() && warning.is_some(), "no host name has an `@`");
    }

    #[test]
    fn a_root_target_is_not_a_server() {
        let (servers, warning) = listed(&[record(0, 0, "")], vec![]);
        assert!(servers.is_empty());
        assert_eq!(
            warning.unwrap(),
            "`.`: the records say that the service is not available"
        );
    }

    #[test]
    fn too_many_servers_are_an_error() {
        let addresses = (0..LISTED_MAX as u32 / 2 + 1).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        let host = || HostAddresses {
            addresses: addresses.clone().collect(),
            problem: None,
        };
        let hosts = HashMap::from([("a.test".into(), host()), ("b.test".into(), host())]);
        let both = [record(0, 0, "a.test"), record(0, 0, "b.test")];
        let result = |records| servers(records, &hosts, MemberConfig::default());
        assert_eq!(&*result(&both).unwrap_err(), "the records have more than 10000 servers");
        assert!(result(&both[..1]).is_ok());
    }

    proptest! {
        #[test]
        fn priorities_keep_their_order_and_weights_their_proportion(
            mut records in proptest::collection::vec((any::<u16>(), any::<u16>()), 1..400),
        ) {
            records.sort_unstable();
            let records: Vec<_> = records
                .iter()
                .enumerate()
                .map(|(number, (priority, weight))| record(*priority, *weight, &format!("s{number}.test")))
                .collect();
            let hosts = records.iter().map(|record| (record.target.clone(), host(&["10.0.0.1"]))).collect();
            let (servers, _) = servers(&records, &hosts, MemberConfig::default()).unwrap();
            let configs: Vec<_> = servers.iter().map(|server| server.member_config).collect();
            prop_assert_eq!(configs.len(), records.len());
            prop_assert_eq!(configs[0].priority, 0);
            for (records, configs) in records.windows(2).zip(configs.windows(2)) {
                let (in_records, in_pool) = (
                    [records[0].priority, records[1].priority],
                    [configs[0].priority, configs[1].priority],
                );
                let is_same = in_pool[0] == in_pool[1];
                prop_assert_eq!(is_same, in_records[0] == in_records[1] || in_pool[0] == u8::MAX);
                prop_assert!(in_pool[0] <= in_pool[1]);
            }
            for (record, config) in records.iter().zip(&configs) {
                let tier = records.iter().filter(|other| other.priority == record.priority);
                let largest = tier.map(|other| other.weight).max().unwrap().max(WEIGHT_MAX);
                let exact = f64::from(record.weight) * f64::from(WEIGHT_MAX) / f64::from(largest);
                prop_assert!((1..=WEIGHT_MAX).contains(&config.weight));
                prop_assert!((f64::from(config.weight) - exact).abs() <= 1.0);
            }
        }
    }
}
