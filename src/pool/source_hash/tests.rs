use super::super::tests::{candidate, candidates};
use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

/// Candidates with these identities and weights, in this order.
fn servers<'a>(list: impl IntoIterator<Item = (&'a str, u16)>) -> Vec<Candidate> {
    list.into_iter()
        .enumerate()
        .map(|(index, (identity, weight))| candidate(index, identity, weight, 0))
        .collect()
}

fn identity(candidate: &Candidate) -> &str {
    &candidate.server.spec().identity
}

fn chosen(servers: &[Candidate], client: ClientHost) -> &str {
    identity(choose(servers, client).unwrap())
}

fn chosen_index(servers: &[Candidate], client: ClientHost) -> Option<usize> {
    choose(servers, client).map(|candidate| candidate.index)
}

/// A client at the address 10.0.0.0 + `n`.
fn client(n: u32) -> ClientHost {
    ClientHost::Ip(Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + n).into())
}

#[test]
fn the_published_vectors_hold() {
    let mut vectors = 0;
    for line in include_str!("../../../tests/data/source_hash.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let [client, written, order] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("expected three columns: {line}");
        };
        let servers = servers(written.split(' ').map(|server| {
            let (identity, weight) = server.rsplit_once('*').unwrap();
            (identity, weight.parse().unwrap())
        }));
        let client = client.parse::<IpAddr>().unwrap().into();
        let ours: Vec<_> = in_order(&servers, client)
            .into_iter()
            .map(|index| identity(&servers[index]))
            .collect();
        assert_eq!(ours.join(" "), order, "{line}");
        assert_eq!(chosen(&servers, client), ours[0]);
        vectors += 1;
    }
    assert!(vectors >= 12);
}

#[test]
fn the_relative_error_of_the_logarithm_is_at_most_two_billionths() {
    let mut random = fastrand::Rng::with_seed(3);
    for bits in 0..64 {
        for _ in 0..1000 {
            let hash = random.u64(..) >> bits;
            let u = (hash | 1) as f64 / 2f64.powi(64);
            let ours = minus_ln(hash) as f64 / 2f64.powi(57);
            assert!(
                (ours + u.ln()).abs() <= 2e-9 * -u.ln(),
                "{hash:#x}: {ours} against {}",
                -u.ln()
            );
        }
    }
    assert_eq!(minus_ln(u64::MAX), 0);
    assert_eq!(minus_ln(0), 63 * LN_2 + minus_ln(1 << 63));
}

#[test]
fn a_greater_hash_never_scores_less() {
    assert!(minus_ln(1 << 63) < LN_2, "the border between octaves");
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..100_000 {
        let low = random.u64(..) >> random.u32(..64);
        let high = low.saturating_add(random.u64(..) >> random.u32(..64));
        assert!(minus_ln(high) <= minus_ln(low), "{low:#x} {high:#x}");
    }
}

#[test]
fn the_lower_bound_of_the_logarithm_is_never_too_high() {
    let is_bound = |hash| minus_ln_at_least(hash) <= minus_ln(hash) >> 9; // units of 2^-48, from units of 2^-57
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..1_000_000 {
        // Often with `u` near 1, where the bound is tight.
        let hash = !(random.u64(..) >> random.u32(..64));
        assert!(is_bound(hash), "{hash:#x}");
    }
    for hash in [0, 1, u64::MAX - 1, u64::MAX, 1 << 63, (1 << 63) - 1] {
        assert!(is_bound(hash), "{hash:#x}");
    }
}

#[test]
fn the_choice_is_the_first_of_the_order_even_for_nearly_equal_hashes() {
    let mut random = fastrand::Rng::with_seed(6);
    for n in 0..20_000 {
        // Adjacent hashes: their logarithms are often equal, and then the identity decides.
        let hash = random.u64(..) >> random.u32(..40);
        let mut servers = servers([("c", 3), ("a", 1 + random.u16(..3)), ("b", 3), ("d", 25_600)]);
        for server in &mut servers {
            server.identity_hash = unfinalise(hash.wrapping_add(random.u64(..4))) ^ client_key(client(n));
        }
        assert_eq!(
            chosen_index(&servers, client(n)),
            Some(in_order(&servers, client(n))[0])
        );
    }
}

/// The inverse of [`finalise`].
fn unfinalise(z: u64) -> u64 {
    // Modulo 2^64, by Newton's method. It starts with `odd`, whose lowest 3 bits are those of its inverse. Each step
    // doubles the number of correct bits.
    let inverse = |odd: u64| (0..6).fold(odd, |x, _| x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x))));
    // The inverse of `z ^ (z >> by)`, if `by` is at least 22: further terms are then 0.
    let unshift = |z: u64, by: u32| z ^ (z >> by) ^ (z >> (2 * by));
    let z = unshift(z, 31).wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
    let z = unshift(z, 27).wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
    unshift(z, 30)
}

#[test]
fn equal_scores_go_to_the_smaller_identity() {
    // Equal hash and weight, hence equal scores.
    let mut twins = servers([("b", 2), ("a", 2)]);
    twins[0].identity_hash = 9;
    twins[1].identity_hash = 9;
    assert_eq!(chosen(&twins, client(1)), "a");
    twins.swap(0, 1);
    assert_eq!(chosen(&twins, client(1)), "a");
    assert!(choose(&[], client(1)).is_none());
}

#[test]
fn the_hash_uses_mapped_addresses_as_ipv4_and_8_bytes_of_ipv6() {
    let key = |text: &str| client_key(text.parse::<IpAddr>().unwrap().into());
    assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    assert_ne!(key("::192.0.2.1"), key("192.0.2.1"));
    assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:3:4:5:6"));
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
}

#[test]
fn a_million_clients_spread_by_weight() {
    let weights = [("a:1", 1), ("b:1", 2), ("c:1", 3), ("d:1", 10)];
    let servers = servers(weights);
    let mut counts = [0u32; 4];
    for n in 0..1_000_000 {
        counts[chosen_index(&servers, client(n)).unwrap()] += 1;
    }
    for ((_, weight), count) in weights.iter().zip(counts) {
        let due = 1e6 * f64::from(*weight) / 16.0;
        assert!(
            (f64::from(count) / due - 1.0).abs() < 0.02,
            "{weight}: {count} of {due}"
        );
    }
}

#[test]
fn more_weight_moves_only_a_due_share_of_clients_to_that_server() {
    let before = servers([("a:1", 2), ("b:1", 2), ("c:1", 4)]);
    let after = servers([("a:1", 2), ("b:1", 4), ("c:1", 4)]);
    let mut moved = 0;
    for n in 0..100_000 {
        let (was, is) = (chosen(&before, client(n)), chosen(&after, client(n)));
        if was != is {
            assert_eq!(is, "b:1", "{:?} moved between two whose weight stayed", client(n));
            moved += 1;
        }
    }
    // From 2 of 8 to 4 of 10: 15 %.
    assert!((14_500..15_500).contains(&moved), "{moved}");
}

proptest! {
    #[test]
    fn removing_a_server_moves_only_its_own_clients(
        weights in prop::collection::vec(1u16..=256, 2..12),
        gone: prop::sample::Index,
        clients in prop::collection::vec(any::<IpAddr>(), 50),
    ) {
        let all = candidates(&weights.iter().map(|weight| (*weight, 0)).collect::<Vec<_>>());
        let gone = gone.index(all.len());
        let remaining: Vec<_> = all.iter().filter(|server| server.index != gone).cloned().collect();
        for client in clients.into_iter().map(ClientHost::Ip) {
            let order = in_order(&all, client);
            prop_assert_eq!(order[0], chosen_index(&all, client).unwrap());
            let rest: Vec<_> = order.into_iter().filter(|index| *index != gone).collect();
            prop_assert_eq!(in_order(&remaining, client), rest);
        }
    }

    #[test]
    fn the_configured_order_does_not_change_the_choice(
        (written, shuffled) in prop::collection::vec(1u16..=256, 1..12).prop_flat_map(|weights| {
            let list: Vec<_> = weights.into_iter().enumerate().collect();
            (Just(list.clone()), Just(list).prop_shuffle())
        }),
        client: IpAddr,
    ) {
        let names: Vec<_> = (0..written.len()).map(|n| format!("10.0.0.{n}:80")).collect();
        let order = |list: &[(usize, u16)]| {
            let servers = servers(list.iter().map(|(n, weight)| (names[*n].as_str(), *weight)));
            let order = in_order(&servers, client.into()).into_iter();
            order.map(|index| identity(&servers[index]).to_owned()).collect::<Vec<_>>()
        };
        prop_assert_eq!(order(&written), order(&shuffled));
    }
}
