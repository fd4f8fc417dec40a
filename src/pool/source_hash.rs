//! `source-hash`: weighted rendezvous hashing of the client's address.
//!
//! Every server has a score for every client. The score depends on nothing but these two. The server with the highest
//! score is chosen, and the next highest is tried next. The order of servers in the configuration has no effect, and
//! removing a server moves only its own clients.
//!
//! All instances of acequia, of any version, must make the same choice. This is the complete rule, which must never
//! change:
//!
//! ```text
//! server = XXH3-64, seed 0, of the bytes of the server's identity (UTF-8)
//! client = XXH3-64, seed 0, of the 4 bytes of an IPv4 address or the first 8 of an IPv6 address;
//!          an IPv4-mapped IPv6 address (::ffff:0:0/96) is the IPv4 address;
//!          on a Unix socket, of the 4 bytes of the client's uid, big-endian
//! hash   = finaliser of SplitMix64 (modulo 2^64): z = server xor client;
//!          z ^= z >> 30;  z *= 0xbf58476d1ce4e5b9;  z ^= z >> 27;  z *= 0x94d049bb133111eb;  z ^= z >> 31
//! u      = (hash | 1) / 2^64                               between 0 and 1, both excluded
//! score  = weight / -ln(u)                                 equal scores: the bytewise smaller identity first
//! ```
//!
//! The score orders servers as `u` to the power of 1/weight does. This power is distributed as the largest of `weight`
//! numbers that are distributed as `u`, so shares are proportional to weights. The logarithm uses integers, because
//! floating-point libraries give different results:
//!
//! ```text
//! zeros  = leading zero bits of (hash | 1);   m = (hash | 1) << zeros          so u = m / 2^64 / 2^zeros
//! t      = (2^64 - m) * 2^63 / (2^64 + m)                                      -ln(m / 2^64) = 2 artanh(t / 2^63)
//! q      = t * t / 2^63
//! s      = sum of q^k / (2k + 1), k = 0 to 7, by Horner's rule from s = C7:    s = s * q / 2^63 + Ck,
//!          where Ck = 2^63 / (2k + 1)
//! -ln(u) = zeros * 99893036290645747 + (t * s / 2^63) / 2^5                    in units of 2^-57
//! ```
//!
//! Every division is rounded down. Results fit in 64 bits without a sign; products and dividends need 128. The number
//! 99893036290645747 is ln 2 in units of 2^-57. Scores are compared exactly: a beats b when
//! weight(a) * -ln(u(b)) > weight(b) * -ln(u(a)). `tests/data/source_hash.tsv` has examples.

use std::cmp::Ordering;
use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::candidates::Candidate;
use crate::addr::ClientHost;

/// The candidate with the highest score for this client; `None` if there is none.
pub(super) fn choose(candidates: &[Candidate], client: ClientHost) -> Option<&Candidate> {
    let client = client_key(client);
    let mut best: Option<Scored<'_>> = None;
    for candidate in candidates {
        let hash = finalise(candidate.identity_hash ^ client);
        if best
            .as_ref()
            .is_some_and(|best| best.surely_beats(hash, candidate.weight))
        {
            continue; // nearly all candidates: no logarithm is computed for them
        }
        let next = Scored::new(candidate, hash);
        if best.as_ref().is_none_or(|best| next.best_first(best).is_lt()) {
            best = Some(next);
        }
    }
    best.map(|best| best.candidate)
}

/// The indices of all candidates, highest score first: the order in which they are tried.
pub(super) fn in_order(candidates: &[Candidate], client: ClientHost) -> Vec<usize> {
    let client = client_key(client);
    let scored = |candidate| Scored::new(candidate, finalise(candidate.identity_hash ^ client));
    let mut order: Vec<_> = candidates.iter().map(scored).collect();
    order.sort_by(Scored::best_first);
    order.iter().map(|scored| scored.candidate.index).collect()
}

struct Scored<'a> {
    candidate: &'a Candidate,
    /// -ln(u); see [`minus_ln`].
    minus_ln: u64,
}

impl<'a> Scored<'a> {
    fn new(candidate: &'a Candidate, hash: u64) -> Self {
        Self {
            candidate,
            minus_ln: minus_ln(hash),
        }
    }

    fn best_first(&self, other: &Self) -> Ordering {
        // The higher score has the lower minus_ln/weight. Both sides are multiplied by both weights; each is then the
        // product of a number of 63 bits and a weight of 15 bits (see `Candidate::weight`).
        let crosswise = |of: &Self, by: &Self| u128::from(of.minus_ln) * u128::from(by.candidate.weight);
        crosswise(self, other)
            .cmp(&crosswise(other, self))
            .then_with(|| self.identity().cmp(other.identity()))
    }

    /// Whether a server of this hash and weight certainly scores less, without computing its logarithm. `false` decides
    /// nothing.
    fn surely_beats(&self, hash: u64, weight: u16) -> bool {
        // The products of `best_first`, in units of 2^-48. The first has at most 63 bits; the second may saturate.
        let others_at_least = minus_ln_at_least(hash) * u64::from(self.candidate.weight);
        let own_at_most = ((self.minus_ln >> 9) + 1).saturating_mul(u64::from(weight));
        others_at_least > own_at_most
    }

    fn identity(&self) -> &str {
        &self.candidate.server.spec().identity
    }
}

/// The hash of a client's address. Of IPv6 only the first 8 bytes count: a host changes the others at will (RFC 8981).
fn client_key(client: ClientHost) -> u64 {
    let address = match client {
        ClientHost::Ip(address) => address.to_canonical(),
        ClientHost::User(uid) => return xxh3_64(&uid.to_be_bytes()),
    };
    match address {
        IpAddr::V4(address) => xxh3_64(&address.octets()),
        IpAddr::V6(address) => xxh3_64(&address.octets()[..8]),
    }
}

/// The finaliser of SplitMix64: a bijection. Every bit of the result depends on every bit of `z`.
const fn finalise(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 2^63 / (2k + 1), rounded down.
const COEFFICIENTS: [u64; 8] = {
    let mut coefficients = [0; 8];
    let mut k = 0;
    while k < coefficients.len() {
        coefficients[k] = (1 << 63) / (2 * k as u64 + 1);
        k += 1;
    }
    coefficients
};

/// ln 2 in units of 2^-57, rounded down.
const LN_2: u64 = 99_893_036_290_645_747;

/// -ln((hash | 1) / 2^64) in units of 2^-57, as the module's doc defines it.
///
/// It never increases as the hash increases. Within an octave (hashes with the same `zeros`), [`ratio`] does not
/// decrease as `m` decreases, and every later step is a sum or a product, rounded down, of values that do not decrease
/// either. From octave to octave, the results start at the next multiple of `LN_2`. The results of an octave stay below
/// the start of the next one, because truncating the series and rounding down only make them smaller.
fn minus_ln(hash: u64) -> u64 {
    let odd = hash | 1;
    let zeros = odd.leading_zeros();
    let m = odd << zeros;
    let t = ratio(m);
    let q = times(t, t);
    let [rest @ .., last] = COEFFICIENTS;
    let series = rest
        .iter()
        .rev()
        .fold(last, |sum, coefficient| times(sum, q) + coefficient);
    u64::from(zeros) * LN_2 + (times(t, series) >> 5)
}

/// A lower bound of [`minus_ln`] in units of 2^-48. -ln(u) is at least 1 - u. From 1 - u, a millionth of it and two
/// units are subtracted: more than `minus_ln` loses by rounding and by truncating its series.
const fn minus_ln_at_least(hash: u64) -> u64 {
    let one_minus_u = !hash >> 16;
    one_minus_u.saturating_sub((one_minus_u >> 20) + 2)
}

/// (2^64 - m) / (2^64 + m), in units of 2^-63.
fn ratio(m: u64) -> u64 {
    let (numerator, denominator) = (u128::from(m.wrapping_neg()) << 63, (1 << 64) + u128::from(m));
    (numerator / denominator) as u64
}

/// The product of two numbers in units of 2^-63.
fn times(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 63) as u64
}

#[cfg(test)]
mod tests;
