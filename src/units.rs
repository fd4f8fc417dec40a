//! Parses and formats durations and sizes: an integer and a unit. Also parses rates, bandwidths, and the permissions of
//! files. Configuration, API and command line share these forms.
//!
//! Fractions and sums (`1.5s`, `1m30s`) are rejected.

use std::time::Duration;

/// The units of durations, each in milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The units of sizes, each in bytes, the largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is not a duration. Displays what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A number without a unit.
    #[error("write {}", suggest_duration(*.0))]
    MissingUnit(u64),
    /// Anything else.
    #[error(r#"write an integer with a unit (ms, s, m or h), as in "250ms" or "5s""#)]
    Malformed,
}

/// Why a text is not a size. Displays what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A number without a unit.
    #[error("write {}", suggest_size(*.0))]
    MissingUnit(u64),
    /// Anything else.
    #[error(r#"write an integer with a unit (B, KiB, MiB or GiB), as in "16KiB""#)]
    Malformed,
}

/// Why a text is not a rate. Displays what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(r#"write a count of 1 to 1000000 and a period, as in "20/s", "300/m" or "1000/h""#)]
pub struct RateError;

/// Why a text is not a bandwidth. Displays what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BandwidthError {
    /// Less than `BANDWIDTH_MIN`.
    #[error("at least 1KiB/s")]
    TooLow,
    /// Anything else.
    #[error(r#"write a size a second, as in "50MiB/s""#)]
    Malformed,
}

/// The highest count of a rate.
const RATE_MAX: u32 = 1_000_000;

/// The lowest bandwidth, in bytes a second.
const BANDWIDTH_MIN: u64 = 1 << 10;

/// Parses `20/s`, `300/m`, `1000/h`: a count and the period in which it is allowed.
///
/// # Errors
/// The text has another form, or the count is not 1 to 1,000,000.
pub fn parse_rate(text: &str) -> Result<(u32, Duration), RateError> {
    let (count, unit) = text.split_once('/').ok_or(RateError)?;
    let unit = DURATION_UNITS.iter().find(|(known, _)| *known == unit && unit != "ms");
    let (_, milliseconds) = unit.ok_or(RateError)?;
    if !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RateError); // `parse` would accept a plus sign
    }
    let count = count.parse().ok().filter(|count| (1..=RATE_MAX).contains(count));
    Ok((count.ok_or(RateError)?, Duration::from_millis(*milliseconds)))
}

/// Parses `50MiB/s`: bytes a second.
///
/// # Errors
/// The text has another form, or the bandwidth is too low.
pub fn parse_bandwidth(text: &str) -> Result<u64, BandwidthError> {
    let size = text.strip_suffix("/s").ok_or(BandwidthError::Malformed)?;
    let bytes = parse_size(size).map_err(|_| BandwidthError::Malformed)?;
    if bytes < BANDWIDTH_MIN {
        return Err(BandwidthError::TooLow);
    }
    Ok(bytes)
}

/// Parses `250ms`, `2s`, `5m`, `1h`.
///
/// # Errors
/// The text has another form, or the duration in milliseconds does not fit into 64 bits.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let milliseconds = parse(text, &DURATION_UNITS);
    milliseconds
        .map(Duration::from_millis)
        .map_err(|without_unit| without_unit.map_or(DurationError::Malformed, DurationError::MissingUnit))
}

/// What to write instead of a number without a unit. HAProxy reads such a number as milliseconds, other proxies read it
/// as seconds; from 1000 on, both are suggested.
#[must_use]
pub fn suggest_duration(number: u64) -> String {
    let quoted = suggested_durations(number).map(|text| format!("\"{text}\""));
    quoted.collect::<Vec<_>>().join(" or ")
}

/// The durations that [`suggest_duration`] names.
pub fn suggested_durations(number: u64) -> impl Iterator<Item = String> {
    let units: &'static [&str] = if number >= 1_000 { &["ms", "s"] } else { &["s"] };
    units.iter().map(move |unit| format!("{number}{unit}"))
}

/// Parses `512B`, `16KiB`, `1MiB`.
///
/// # Errors
/// The text has another form, or the size in bytes does not fit into 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let bytes = parse(text, &SIZE_UNITS);
    bytes.map_err(|without_unit| without_unit.map_or(SizeError::Malformed, SizeError::MissingUnit))
}

/// What to write instead of a size without a unit.
#[must_use]
pub fn suggest_size(number: u64) -> String {
    format!("\"{}\"", format_number(number, &SIZE_UNITS))
}

/// Formats a duration with the largest unit that divides it. Fractions of a millisecond are dropped.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    format_number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// Formats a size with the largest unit that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    format_number(bytes, &SIZE_UNITS)
}

/// Parses the permissions of a file, as in chmod(1): three or four octal digits, at most `0777`. `None`: the text has
/// another form.
#[must_use]
pub fn parse_file_mode(text: &str) -> Option<u32> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok()?;
    (is_octal && mode <= 0o777).then_some(mode)
}

/// Parses a number with one of these units.
///
/// # Errors
/// `Some`: the number, if only the unit is missing. `None`: the text has another form, or the value is too large.
fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, Option<u64>> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| None)?;
    if unit.is_empty() {
        return Err(Some(number));
    }
    let (_, factor) = units.iter().find(|(known, _)| *known == unit).ok_or(None)?;
    number.checked_mul(*factor).ok_or(None)
}

fn format_number(number: u64, units: &[(&str, u64); 4]) -> String {
    let [.., smallest] = units;
    let divides = |unit: &&(&str, u64)| number >= unit.1 && number.is_multiple_of(unit.1);
    let (unit, factor) = units.iter().find(divides).unwrap_or(smallest);
    format!("{}{unit}", number / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_with_a_unit_is_parsed() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for (text, bytes) in [("512B", 512), ("16KiB", 16 << 10), ("1MiB", 1 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn permissions_of_files_are_three_or_four_octal_digits() {
        let modes = ["660", "0660", "777", "+66", "+660", "66", "00660", "1777", "0999", ""].map(parse_file_mode);
        assert_eq!(modes[..3], [Some(0o660), Some(0o660), Some(0o777)]);
        assert_eq!(modes[3..], [None; 7]);
    }

    #[test]
    fn rates_and_bandwidths_have_a_time_unit() {
        for (text, count, seconds) in [("20/s", 20, 1), ("300/m", 300, 60), ("1/h", 1, 3_600)] {
            assert_eq!(parse_rate(text), Ok((count, Duration::from_secs(seconds))), "{text}");
        }
        for text in [
            "",
            "20",
            "/s",
            "20/",
            "20/ms",
            "+20/s",
            "0/s",
            "1000001/s",
            "1.5/s",
            "20/s/s",
        ] {
            assert!(parse_rate(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_bandwidth("50MiB/s"), Ok(50 << 20));
        assert_eq!(parse_bandwidth("1023B/s"), Err(BandwidthError::TooLow));
        for text in ["50MiB", "MiB/s", "50/s", "50MiB/m"] {
            assert!(parse_bandwidth(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_rejected_with_a_suggestion() {
        assert_eq!(parse_duration("5").unwrap_err().to_string(), r#"write "5s""#);
        assert_eq!(
            parse_duration("5000").unwrap_err().to_string(),
            r#"write "5000ms" or "5000s""#
        );
        assert_eq!(parse_size("65536").unwrap_err().to_string(), r#"write "64KiB""#);
    }

    #[test]
    fn malformed_durations_and_sizes_are_rejected() {
        for text in [
            "",
            "s",
            "1.5s",
            "1m30s",
            "-1s",
            "+1s",
            " 1s",
            "1 s",
            "5M",
            "99999999999999999999s",
            "9999999999999999999h",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        assert!(parse_size("64KB").is_err());
    }

    #[test]
    fn formatted_values_can_be_parsed() {
        for milliseconds in [0, 1, 250, 1_000, 1_500, 60_000, 90_000, 3_600_000] {
            let formatted = format_duration(Duration::from_millis(milliseconds));
            assert_eq!(
                parse_duration(&formatted),
                Ok(Duration::from_millis(milliseconds)),
                "{formatted}"
            );
        }
        for (bytes, formatted) in [(64 << 10, "64KiB"), (1_000, "1000B")] {
            assert_eq!(format_size(bytes), formatted);
            assert_eq!(parse_size(formatted), Ok(bytes));
        }
    }
}
