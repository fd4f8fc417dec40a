//! Durations and sizes as text, both ways: a whole number and its unit. Configuration, API and command line share them.
//!
//! Fractions and sums (`1.5s`, `1m30s`) are rejected: a value has one spelling, and the error says the whole number to write.

use std::time::Duration;

const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `250ms`, `2s`, `5m`, `1h`.
///
/// # Errors
/// What to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    read(text, &DURATIONS)
        .map(Duration::from_millis)
        .map_err(|number| match number {
            Some(number) => format!("write {}", bare_duration(number)),
            None => String::from(r#"write a whole number and ms, s, m or h, as in "250ms" or "5s""#),
        })
}

/// What to write instead of a number without a unit. HAProxy counts in milliseconds, the others in seconds.
#[must_use]
pub fn bare_duration(number: u64) -> String {
    if number >= 1_000 {
        format!(r#""{number}ms" or "{number}s""#)
    } else {
        format!(r#""{number}s""#)
    }
}

/// Reads `512B`, `16KiB`, `1MiB`.
///
/// # Errors
/// What to write instead.
pub fn size(text: &str) -> Result<u64, String> {
    read(text, &SIZES).map_err(|number| match number {
        Some(number) => format!("write {}", bare_size(number)),
        None => String::from(r#"write a whole number and B, KiB or MiB, as in "16KiB""#),
    })
}

/// What to write instead of a number of bytes without a unit.
#[must_use]
pub fn bare_size(number: u64) -> String {
    format!("\"{}\"", show(number, &SIZES))
}

/// The shortest text for a duration; parts of a millisecond are dropped.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS)
}

/// The shortest text for a number of bytes.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

/// The error has the number if it has no unit.
fn read(text: &str, units: &[(&str, u64)]) -> Result<u64, Option<u64>> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| None)?;
    if unit.is_empty() {
        return Err(Some(number));
    }
    let (_, factor) = units.iter().find(|(known, _)| *known == unit).ok_or(None)?;
    number.checked_mul(*factor).ok_or(None)
}

fn show(number: u64, units: &[(&str, u64); 4]) -> String {
    let [.., smallest] = units;
    let whole = |unit: &&(&str, u64)| number >= unit.1 && number.is_multiple_of(unit.1);
    let (unit, factor) = units.iter().find(whole).unwrap_or(smallest);
    format!("{}{unit}", number / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for (text, bytes) in [("512B", 512), ("16KiB", 16 << 10), ("1MiB", 1 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        assert_eq!(duration("5").unwrap_err(), r#"write "5s""#);
        assert_eq!(duration("5000").unwrap_err(), r#"write "5000ms" or "5000s""#);
        assert_eq!(size("65536").unwrap_err(), r#"write "64KiB""#);
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
            assert!(duration(text).is_err(), "{text:?}");
            assert!(size(text).is_err(), "{text:?}");
        }
        assert!(size("64KB").is_err());
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for milliseconds in [0, 1, 250, 1_000, 1_500, 60_000, 90_000, 3_600_000] {
            let shown = show_duration(Duration::from_millis(milliseconds));
            assert_eq!(duration(&shown), Ok(Duration::from_millis(milliseconds)), "{shown}");
        }
        assert_eq!(show_size(64 << 10), "64KiB");
        assert_eq!(show_size(1_000), "1000B");
    }
}
