//! Numbers, durations and addresses in configurations of HAProxy and nginx, limited to what acequia accepts.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::address;
use crate::units;

/// The shortest duration above 0 that acequia's configuration accepts.
const DURATION_MIN: Duration = Duration::from_millis(1);

/// The longest duration that acequia's configuration accepts, in milliseconds: a year.
const DURATION_MAX_MS: u64 = 365 * 24 * 3_600_000;

/// Parses a duration such as `30s`, `1h30m` or `500`. If the text is a number without a unit, its unit has `unit_ms`
/// milliseconds: 1 in HAProxy, 1,000 in nginx. Parts of a millisecond are rounded up. A duration above
/// [`DURATION_MAX_MS`] becomes that. A 0 stays 0: it often has a meaning of its own. `None`: the text has another form,
/// or the duration in microseconds does not fit into 64 bits.
pub(super) fn duration(text: &str, unit_ms: u64) -> Option<Duration> {
    let milliseconds = milliseconds(text, unit_ms)?.min(DURATION_MAX_MS);
    Some(Duration::from_millis(milliseconds))
}

/// The note about a text of which [`duration`] makes a shorter duration. `None`: it makes no shorter one.
pub(super) fn too_long(text: &str, unit_ms: u64) -> Option<String> {
    let is_cut = milliseconds(text, unit_ms)? > DURATION_MAX_MS;
    is_cut.then(|| too_large(text, &units::format_duration(Duration::from_millis(DURATION_MAX_MS))))
}

fn milliseconds(text: &str, unit_ms: u64) -> Option<u64> {
    let mut rest = text;
    let mut total_us: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_us = match &rest[digits..digits + letters] {
            "" if digits == text.len() => unit_ms.checked_mul(1_000)?,
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "w" => 7 * 86_400_000_000,
            "M" => 30 * 86_400_000_000,
            "y" => 365 * 86_400_000_000,
            _ => return None,
        };
        total_us = total_us.checked_add(number.checked_mul(unit_us)?)?;
        rest = &rest[digits + letters..];
    }
    (!text.is_empty()).then(|| total_us.div_ceil(1_000))
}

/// The duration as a value of acequia's configuration; at least [`DURATION_MIN`].
pub(super) fn duration_value(duration: Duration) -> String {
    format!("\"{}\"", units::format_duration(duration.max(DURATION_MIN)))
}

/// Parses an unsigned integer. A smaller one than `least` becomes `least`, a larger one than `most` becomes `most`.
/// `None`: the text is not only digits.
pub(super) fn clamped_integer(text: &str, least: u32, most: u32) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX).clamp(least, most))
}

/// Parses an unsigned integer. One above `most` becomes `most`, with a note. `None`: the text is not only digits.
pub(super) fn integer_at_most(text: &str, most: u32) -> Option<(u32, Option<String>)> {
    let number = clamped_integer(text, 0, u32::MAX)?;
    let note = (number > most).then(|| too_large(text, &most.to_string()));
    Some((number.min(most), note))
}

fn too_large(text: &str, most: &str) -> String {
    format!("{text} is more than is possible here: {most} is used")
}

/// Parses the number of a port. `None`: the text is not a port, or is 0.
pub(super) fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

/// The IP address from which connections to servers are to come, as a value of `bind_source`. `None`: the text is not
/// an IP address, or the address cannot be that of one host, as `0.0.0.0`.
pub(super) fn source_address(text: &str) -> Option<String> {
    let ip: IpAddr = text.parse().ok()?;
    let text = ip.to_canonical().to_string();
    address::ip(&text).is_ok().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_units_of_haproxy_and_nginx() {
        for (text, unit_ms, milliseconds) in [
            ("5000", 1, 5_000),
            ("5000", 1_000, 5_000_000),
            ("30s", 1, 30_000),
            ("1h30m", 1, 5_400_000),
            ("100us", 1, 1),
            ("1d", 1, 86_400_000),
            ("5y", 1, DURATION_MAX_MS),
            ("0", 1, 0),
        ] {
            assert_eq!(
                duration(text, unit_ms),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "5x",
            "1s30",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "99999999999999y",
        ] {
            assert_eq!(duration(text, 1), None, "{text}");
        }
    }

    #[test]
    fn only_a_duration_that_is_cut_gets_a_note() {
        let note = "400d is more than is possible here: 8760h is used";
        assert_eq!(too_long("400d", 1).as_deref(), Some(note));
        assert_eq!(too_long("1y", 1), None);
        assert_eq!(too_long("x", 1), None);
    }

    #[test]
    fn integers_are_limited_to_their_bounds() {
        assert_eq!(clamped_integer("0", 1, 256), Some(1));
        assert_eq!(clamped_integer("99999999999", 1, 256), Some(256));
        assert_eq!(clamped_integer("+1", 0, 256), None);
    }

    #[test]
    fn ports_are_between_1_and_65535() {
        assert_eq!(port("65535"), Some(65_535));
        assert!(["0", "65536", "+1", ""].into_iter().all(|text| port(text).is_none()));
    }
}
