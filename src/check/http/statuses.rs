//! Lists of HTTP statuses.

use std::ops::RangeInclusive;
use std::str::FromStr;

use hyper::StatusCode;

/// Statuses of HTTP responses, as numbers and ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusList(Vec<RangeInclusive<u16>>);

/// The error of a text that is not a list of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(r#"write statuses from 100 to 599, as in "200-399" or "200, 204""#)]
pub struct StatusListError;

impl StatusList {
    /// Whether it has no status.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the status is in the list.
    pub(super) fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }

    /// The statuses that are in at least one of the lists.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl FromStr for StatusList {
    type Err = StatusListError;

    /// Numbers and ranges, separated by commas.
    fn from_str(text: &str) -> Result<Self, StatusListError> {
        let range = |entry: &str| {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            let (first, last) = (status(first)?, status(last)?);
            (first <= last).then_some(first..=last)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(|entry| range(entry.trim())).collect();
        ranges.map(Self).ok_or(StatusListError)
    }
}

fn status(digits: &str) -> Option<u16> {
    let is_number = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None; // such as "+20", which `parse` accepts
    }
    digits.parse().ok().filter(|number| (100..=599).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_numbers_and_ranges_are_parsed_and_other_texts_are_errors() {
        let list: StatusList = "200-299, 401,503-503".parse().unwrap();
        let contained: Vec<_> = (100..=599)
            .filter(|code| list.contains(StatusCode::from_u16(*code).unwrap()))
            .collect();
        assert_eq!(contained, (200..=299).chain([401, 503]).collect::<Vec<_>>());
        for text in ["", "2xx", "299-200", "99", "600", "200,", "+20", "200-", "200 204"] {
            assert_eq!(text.parse::<StatusList>(), Err(StatusListError), "{text}");
        }
    }
}
