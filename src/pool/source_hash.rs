//! `source-hash`: weighted rendezvous hashing of the client's address.
//!
//! Every server has a score for every client, which depends on nothing but the two of them; the highest score wins,
//! the next highest is the next one tried. So the order in which servers are written plays no part, and a server that
//! goes takes its own clients along and none of the others'.
//!
//! Balancers of any version and any kind have to agree on it, so this is the whole rule, fixed for ever:
//!
//! ```text
//! server = XXH3-64, seed 0, of the bytes of the identity (UTF-8)
//! client = XXH3-64, seed 0, of the 4 bytes of an IPv4 address or the first 8 of an IPv6 address;
//!          an IPv4-mapped IPv6 address (::ffff:0:0/96) is the IPv4 address
//! hash   = finaliser of SplitMix64 of (server xor client):
//!          z ^= z >> 30;  z *= 0xbf58476d1ce4e5b9;  z ^= z >> 27;  z *= 0x94d049bb133111eb;  z ^= z >> 31
//! u      = (hash | 1) / 2^64                               between 0 and 1, both excluded
//! score  = weight / -ln(u)                                 equal scores: the bytewise smaller identity first
//! ```
//!
//! `u` to the power of 1/weight is the largest of `weight` numbers drawn like `u`, hence shares as the weights; the
//! score has the same order. The logarithm is taken in integers, since those of the machines' libraries differ:
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
//! Every division is rounded down; results fit 64 bits without a sign, products and dividends 128. 99893036290645747 is
//! ln 2 in units of 2^-57. Scores are compared exactly: a beats b when weight(a) * -ln(u(b)) > weight(b) * -ln(u(a)).
//! `tests/data/source_hash.tsv` has examples.

use std::cmp::Ordering;
use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::candidates::Candidate;

/// The candidate with the highest score for this client; `None` if there is none.
pub(super) fn choose(candidates: &[Candidate], client: IpAddr) -> Option<&Candidate> {
    let client = client_key(client);
    let mut best: Option<Scored<'_>> = None;
    for candidate in candidates {
        let hash = finalise(candidate.key ^ client);
        if best
            .as_ref()
            .is_some_and(|best| best.surely_beats(hash, candidate.weight))
        {
            continue; // all but a few, whatever their number: no logarithm is taken of these
        }
        let next = Scored::new(candidate, hash);
        if best.as_ref().is_none_or(|best| next.best_first(best).is_lt()) {
            best = Some(next);
        }
    }
    best.map(|best| best.candidate)
}

/// The indices of all of them, highest score first: the order in which they are tried.
pub(super) fn in_order(candidates: &[Candidate], client: IpAddr) -> Vec<usize> {
    let client = client_key(client);
    let scored = |candidate| Scored::new(candidate, finalise(candidate.key ^ client));
    let mut order: Vec<_> = candidates.iter().map(scored).collect();
    order.sort_by(Scored::best_first);
    order.iter().map(|scored| scored.candidate.index).collect()
}

struct Scored<'a> {
    candidate: &'a Candidate,
    /// -ln(u), see [`minus_ln`].
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
        // 1/score of each, times both weights: 63 bits by 15.
        let crosswise = |of: &Self, by: &Self| u128::from(of.minus_ln) * u128::from(by.candidate.weight);
        crosswise(self, other)
            .cmp(&crosswise(other, self))
            .then_with(|| self.identity().cmp(other.identity()))
    }

    /// Whether a server of this hash and weight scores less, as far as that is known without its logarithm: never wrong
    /// when it says so.
    fn surely_beats(&self, hash: u64, weight: u16) -> bool {
        // Units of 2^-48, against it in each case: rounded up here, down there. 48 bits by 15 do not overflow; where the
        // other side would, the answer is no.
        let own = (self.minus_ln >> 9) + 1;
        minus_ln_at_least(hash) * u64::from(self.candidate.weight) > own.saturating_mul(u64::from(weight))
    }

    fn identity(&self) -> &str {
        &self.candidate.server.spec().identity
    }
}

/// What stands for a client. Of IPv6 the first 8 bytes: a host changes the others at will (RFC 8981).
fn client_key(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => xxh3_64(&address.octets()),
        IpAddr::V6(address) => xxh3_64(&address.octets()[..8]),
    }
}

/// The finaliser of SplitMix64: a bijection whose every bit depends on every bit.
const fn finalise(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 2^63 / (2k + 1), rounded down.
const COEFFICIENTS: [u64; 8] = {
    let mut of = [0; 8];
    let mut k = 0;
    while k < of.len() {
        of[k] = (1 << 63) / (2 * k as u64 + 1);
        k += 1;
    }
    of
};

/// ln 2 in units of 2^-57, rounded down.
const LN_2: u64 = 99_893_036_290_645_747;

/// -ln((hash | 1) / 2^64) in units of 2^-57, as the module's doc defines it.
///
/// It never grows as the hash grows. Within an octave, because each step is a sum, a product or a quotient, rounded
/// down, of what does not shrink as `m` shrinks. Between octaves, because cutting the series off and rounding down
/// only ever lose something: what an octave ends with is below the `LN_2` at which the next one starts.
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

/// A lower bound of [`minus_ln`] in units of 2^-48: -ln(u) is at least 1 - u. A millionth and two units less than that,
/// which is more than `minus_ln` loses to rounding and to the end of its series.
const fn minus_ln_at_least(hash: u64) -> u64 {
    let below_one = !hash >> 16;
    below_one.saturating_sub((below_one >> 20) + 2)
}

/// (2^64 - m) / (2^64 + m), in units of 2^-63.
fn ratio(m: u64) -> u64 {
    let (above, below) = (u128::from(m.wrapping_neg()) << 63, (1 << 64) + u128::from(m));
    (above / below) as u64
}

/// The product of two numbers in units of 2^-63.
fn times(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 63) as u64
}

#[cfg(test)]
mod tests;
