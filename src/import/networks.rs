//! Differences and intersections of lists of networks. Importers need them: HAProxy and nginx apply the first rule
//! that matches, but their rules become the lists `allow` and `deny`, of which acequia always applies `deny` first.

use ipnet::IpNet;

use crate::addr::parse_network;

/// The most networks in a result. Nobody could read a longer list.
const LIST_MAX: usize = 1000;

/// The networks of all clients.
pub(super) const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// The networks of one list without those of another. Of a network that is excluded in part, the other parts are
/// listed. `None`: the result has too many networks, or had too many before all of `excluded` was taken out; or a text
/// is not a network.
pub(super) fn without(networks: &[String], excluded: &[String]) -> Option<Vec<String>> {
    let excluded = parsed(excluded)?;
    let mut left = Vec::new();
    for text in networks {
        let network = parse_network(text).ok()?;
        let mut parts = vec![network];
        for hole in excluded.iter().filter(|hole| overlap(hole, &network)) {
            parts = parts.into_iter().flat_map(|part| subtracted(part, hole)).collect();
            if left.len() + parts.len() > LIST_MAX {
                return None;
            }
        }
        match parts.as_slice() {
            [part] if *part == network => left.push(text.clone()), // as it was written
            parts => left.extend(parts.iter().map(shown)),
        }
        if left.len() > LIST_MAX {
            return None;
        }
    }
    Some(left)
}

/// The networks that are in both lists. `None`: the result has too many, or a text is not a network.
pub(super) fn common(some: &[String], others: &[String]) -> Option<Vec<String>> {
    let (some, others) = (parsed(some)?, parsed(others)?);
    let common = some.iter().flat_map(|one| {
        let of_both = others.iter().filter(move |other| overlap(one, other));
        of_both.map(move |other| if one.contains(other) { other } else { one })
    });
    let common: Vec<String> = common.take(LIST_MAX + 1).map(shown).collect();
    (common.len() <= LIST_MAX).then_some(common)
}

fn parsed(networks: &[String]) -> Option<Vec<IpNet>> {
    networks.iter().map(|text| parse_network(text).ok()).collect()
}

/// The network as text. A network of one address is written without its prefix length.
fn shown(network: &IpNet) -> String {
    match network.prefix_len() == network.max_prefix_len() {
        true => network.addr().to_string(),
        false => network.to_string(),
    }
}

/// Whether one of the two contains the other.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// What remains of `network` without `hole`. The network is halved, and the half that contains `hole` is halved again,
/// until that half is `hole`. The other halves remain. If `hole` contains the whole network, nothing remains.
fn subtracted(network: IpNet, hole: &IpNet) -> Vec<IpNet> {
    if !overlap(&network, hole) {
        return vec![network];
    }
    let mut left = Vec::new();
    let mut around_hole = network;
    while around_hole.prefix_len() < hole.prefix_len() {
        let halves = around_hole.subnets(around_hole.prefix_len() + 1).into_iter().flatten();
        let (with, without): (Vec<IpNet>, Vec<IpNet>) = halves.partition(|half| half.contains(hole));
        left.extend(without);
        around_hole = with[0]; // exactly one half contains the hole
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn networks_are_subtracted_up_to_a_limit() {
        for (networks, excluded, left) in [
            (&["10.0.0.0/8"][..], &["192.0.2.0/24"][..], &["10.0.0.0/8"][..]),
            (&["10.0.0.0/30"], &["10.0.0.1"], &["10.0.0.2/31", "10.0.0.0"]),
            (&["10.0.0.0/8", "::1"], &["10.0.0.0/7"], &["::1"]),
            (&["fd00::/126"], &["fd00::", "fd00::2/127"], &["fd00::1"]),
        ] {
            assert_eq!(without(&list(networks), &list(excluded)), Some(list(left)));
        }
        assert_eq!(without(&list(&EVERYWHERE), &list(&["::1"])).unwrap().len(), 1 + 128);
        assert_eq!(without(&list(&["10.0.0.0/8"]), &list(&["x"])), None);
        let addresses: Vec<String> = (0..=LIST_MAX)
            .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
            .collect();
        assert_eq!(without(&addresses, &[]), None, "too many");
        assert_eq!(without(&addresses[1..], &[]), Some(addresses[1..].to_vec()));
        let holes: Vec<String> = (0..250).map(|n| format!("10.{n}.7.7")).collect();
        assert_eq!(without(&list(&["10.0.0.0/8"]), &holes), None, "too many");
    }

    #[test]
    fn two_lists_are_intersected_up_to_a_limit() {
        let (some, others) = (
            list(&["10.0.0.0/8", "192.0.2.1"]),
            list(&["10.1.0.0/16", "192.0.2.0/24", "::/0"]),
        );
        assert_eq!(common(&some, &others), Some(list(&["10.1.0.0/16", "192.0.2.1"])));
        let addresses: Vec<String> = (0..=LIST_MAX)
            .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
            .collect();
        assert_eq!(common(&addresses, &some), None, "too many");
        assert_eq!(
            common(&addresses[1..], &some).map(|common| common.len()),
            Some(LIST_MAX)
        );
    }

    proptest! {
        #[test]
        fn subtraction_and_intersection_agree_with_their_definition(
            networks in prop::collection::vec((0u8..32, 0u8..=8), 0..4),
            excluded in prop::collection::vec((0u8..32, 0u8..=8), 0..4),
        ) {
            // All networks are in 10.0.0.0/24, so that it is enough to test the addresses of 10.0.0.0/24.
            let network = |(address, bits): &(u8, u8)| {
                let net = IpNet::new([10, 0, 0, address * 8].into(), 24 + bits).unwrap().trunc();
                net.to_string()
            };
            let (networks, excluded): (Vec<_>, Vec<_>) =
                (networks.iter().map(network).collect(), excluded.iter().map(network).collect());
            let left = without(&networks, &excluded).unwrap();
            let both = common(&networks, &excluded).unwrap();
            for last in 0..=255 {
                let address = IpNet::from(std::net::IpAddr::from([10, 0, 0, last]));
                let is_in = |list: &[String]| list.iter().any(|text| parse_network(text).unwrap().contains(&address));
                prop_assert_eq!(is_in(&left), is_in(&networks) && !is_in(&excluded));
                prop_assert_eq!(is_in(&both), is_in(&networks) && is_in(&excluded));
            }
        }
    }
}
