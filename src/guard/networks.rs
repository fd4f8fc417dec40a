//! Sets of networks: sorted ranges, so that a lookup among 100,000 networks is a binary search.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of networks. IPv4-mapped IPv6 addresses are looked up as IPv4 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    /// How many networks it was made of.
    networks: usize,
    /// The first and last address of each range, ascending; ranges neither overlap nor touch.
    v4: Box<[(u32, u32)]>,
    /// As `v4`.
    v6: Box<[(u128, u128)]>,
}

impl NetworkSet {
    /// Whether an address is in one of the networks.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => is_within(&self.v4, u32::from(v4)),
            IpAddr::V6(v6) => is_within(&self.v6, u128::from(v6)),
        }
    }

    /// How many networks it was made of.
    #[must_use]
    pub fn networks(&self) -> usize {
        self.networks
    }

    /// Whether it contains all IPv4 addresses, or all IPv6 addresses.
    #[must_use]
    pub fn has_all_of_a_family(&self) -> bool {
        *self.v4 == [(0, u32::MAX)] || *self.v6 == [(0, u128::MAX)]
    }

    /// How many ranges the networks make up: networks that touch or overlap are one range.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

impl FromIterator<IpNet> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push((network.network().into(), network.broadcast().into())),
                IpNet::V6(network) => v6.push((network.network().into(), network.broadcast().into())),
            }
        }
        Self {
            networks: v4.len() + v6.len(),
            v4: merged(v4, |last: u32| last.checked_add(1)),
            v6: merged(v6, |last: u128| last.checked_add(1)),
        }
    }
}

/// Sorts the ranges, and joins those that touch or overlap. `next` returns the following number; `None`: there is none.
fn merged<N: Copy + Ord>(mut ranges: Vec<(N, N)>, next: impl Fn(N) -> Option<N>) -> Box<[(N, N)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(N, N)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            // No next number: `end` is the highest one, and this range lies within the joined one.
            Some((_, end)) if next(*end).is_none_or(|next| first <= next) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}

fn is_within<N: Copy + Ord>(ranges: &[(N, N)], number: N) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= number);
    after > 0 && number <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> NetworkSet {
        networks
            .iter()
            .map(|network| network.parse::<IpNet>().unwrap())
            .collect()
    }

    #[test]
    fn networks_that_touch_or_overlap_are_merged() {
        let networks = set(&[
            "10.0.0.0/9",
            "10.128.0.0/9",
            "10.1.0.0/16",
            "2001:db8::/32",
            "11.0.0.0/8",
        ]);
        assert_eq!(networks.ranges(), 2);
        assert!(!networks.has_all_of_a_family() && set(&["0.0.0.0/1", "128.0.0.0/1"]).has_all_of_a_family());
    }

    #[test]
    fn the_edges_of_a_family_are_contained_and_mapped_addresses_count_as_ipv4() {
        let everything = set(&["0.0.0.0/0", "255.255.255.255/32", "::/0"]);
        for address in [
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(everything.contains(address.parse().unwrap()), "{address}");
        }
        assert!(set(&["10.0.0.0/8"]).contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(
            !set(&["::/0"]).contains("::ffff:10.1.2.3".parse().unwrap()),
            "a mapped address counts as IPv4"
        );
        assert!(!NetworkSet::default().contains("10.0.0.1".parse().unwrap()));
    }

    /// An address from a small part of each family, so that it is often in one of the networks.
    fn address() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), any::<u8>()).prop_map(|(is_v4, low)| match is_v4 {
            true => IpAddr::from(u32::from(low).to_be_bytes()),
            false => IpAddr::from(u128::from(low).to_be_bytes()),
        })
    }

    fn network() -> impl Strategy<Value = IpNet> {
        (address(), 0u8..9).prop_map(|(address, host_bits)| {
            let length = if address.is_ipv4() { 32 } else { 128 } - host_bits;
            IpNet::new(address, length).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn a_set_contains_the_addresses_of_its_networks(
            networks in proptest::collection::vec(network(), 0..20),
            addresses in proptest::collection::vec(address(), 1..50),
        ) {
            let set: NetworkSet = networks.iter().copied().collect();
            for address in addresses {
                let expected = networks.iter().any(|network| network.contains(&address));
                prop_assert_eq!(set.contains(address), expected, "{}", address);
            }
        }
    }
}
