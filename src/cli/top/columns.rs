//! Columns of a table: which of them fit, and how wide they are.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::time::Duration;

use crate::cli::table::{duration, size};
use crate::text::escape;

/// A column of a table with rows of type `R`.
pub(super) struct Column<R> {
    pub(super) title: &'static str,
    /// The width, in cells of the terminal; the minimum, if the column grows.
    pub(super) width: u16,
    /// Its part of the remaining width, in proportion to the `growth` of the other columns; 0: it does not grow.
    pub(super) growth: u16,
    /// Whether it is right-aligned, and sorted from the highest down at first.
    pub(super) is_number: bool,
    /// Where there is no room for all columns, those with the lowest rank are left out.
    pub(super) rank: u8,
    pub(super) value: for<'r> fn(&'r R) -> CellValue<'r>,
}

impl<R> Column<R> {
    pub(super) fn text(
        title: &'static str,
        (width, growth): (u16, u16),
        rank: u8,
        value: for<'r> fn(&'r R) -> CellValue<'r>,
    ) -> Self {
        Self {
            title,
            width,
            growth,
            is_number: false,
            rank,
            value,
        }
    }

    pub(super) fn number(title: &'static str, width: u16, rank: u8, value: for<'r> fn(&'r R) -> CellValue<'r>) -> Self {
        Self {
            is_number: true,
            ..Self::text(title, (width, 0), rank, value)
        }
    }
}

/// A value in a table: how it is printed, and what it is sorted by. All values of a column are of the same variant.
#[derive(PartialEq, PartialOrd)]
pub(super) enum CellValue<'a> {
    Text(Cow<'a, str>),
    /// Text that is sorted by this number first.
    Ranked(u8, String),
    Count(u64),
    /// A count, and its maximum if there is one.
    CountAndMax(u32, Option<u32>),
    /// In events per second.
    Rate(f64),
    Bytes(u64),
    /// In bytes per second.
    ByteRate(u64),
    Duration(Option<Duration>),
    /// In microseconds.
    RoundTrip(Option<u32>),
}

impl CellValue<'_> {
    /// The text of the cell, without characters that control the terminal.
    pub(super) fn cell(&self) -> String {
        match self {
            Self::Text(text) => escape(text, &[]).into_owned(),
            Self::Ranked(_, text) => escape(text, &[]).into_owned(),
            Self::Count(count) => count.to_string(),
            Self::CountAndMax(count, None) => count.to_string(),
            Self::CountAndMax(count, Some(max)) => format!("{count}/{max}"),
            // From 9.95, a rate with one decimal would be printed as `10.0`.
            Self::Rate(rate) if *rate > 0.0 && *rate < 9.95 => format!("{rate:.1}"),
            Self::Rate(rate) => format!("{rate:.0}"),
            Self::Bytes(bytes) => size(*bytes),
            Self::ByteRate(bytes) => format!("{}/s", size(*bytes)),
            Self::Duration(time) => time.map_or_else(|| "-".to_owned(), duration),
            Self::RoundTrip(None) => "-".to_owned(),
            Self::RoundTrip(Some(us @ ..1000)) => format!("{us}µs"),
            Self::RoundTrip(Some(us)) => format!("{:.1}ms", f64::from(*us) / 1000.0),
        }
    }

    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.partial_cmp(other).unwrap_or(Ordering::Equal)
    }
}

/// The space between two columns, in cells of the terminal.
pub(super) const GAP: u16 = 2;

/// The columns that fit, by their indices, with their widths; always at least one column.
pub(super) fn fit<R>(columns: &[Column<R>], width: u16) -> Vec<(usize, u16)> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| {
        kept.iter()
            .map(|index| columns[*index].width + GAP)
            .sum::<u16>()
            .saturating_sub(GAP)
    };
    while kept.len() > 1 && needed(&kept) > width {
        let least = kept.iter().copied().min_by_key(|index| columns[*index].rank);
        kept.retain(|index| Some(*index) != least);
    }
    let room = u32::from(width.saturating_sub(needed(&kept)));
    let shares: u32 = kept.iter().map(|index| u32::from(columns[*index].growth)).sum();
    let grown = |index: usize| {
        let Column { width, growth, .. } = &columns[index];
        let more = (room * u32::from(*growth)).checked_div(shares).unwrap_or(0); // at most `room`
        width + u16::try_from(more).unwrap_or(0)
    };
    kept.into_iter().map(|index| (index, grown(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(width: u16, growth: u16, rank: u8) -> Column<()> {
        Column::text("", (width, growth), rank, |()| CellValue::Count(0))
    }

    #[test]
    fn columns_of_low_rank_are_dropped_and_the_others_share_the_width() {
        let columns = [column(10, 1, 9), column(5, 0, 1), column(8, 3, 5)];
        assert_eq!(fit(&columns, 27), [(0, 10), (1, 5), (2, 8)]);
        assert_eq!(fit(&columns, 31), [(0, 11), (1, 5), (2, 11)]);
        assert_eq!(fit(&columns, 26), [(0, 11), (2, 12)]);
        assert_eq!(fit(&columns, 19), [(0, 19)]);
        assert_eq!(fit(&columns, 3), [(0, 10)], "the last one stays");
        assert_eq!(fit(&columns, u16::MAX), [(0, 16387), (1, 5), (2, 49139)]);
    }

    #[test]
    fn values_are_short_and_safe() {
        let cells = [
            CellValue::Text("a\u{1b}[2J".into()),
            CellValue::CountAndMax(3, Some(10)),
            CellValue::CountAndMax(3, None),
            CellValue::Rate(0.0),
            CellValue::Rate(0.25),
            CellValue::Rate(120.4),
            CellValue::ByteRate(2048),
            CellValue::RoundTrip(Some(1240)),
        ];
        let cells = cells.map(|value| value.cell());
        assert_eq!(
            cells,
            [r"a\u{1b}[2J", "3/10", "3", "0", "0.2", "120", "2.0KiB/s", "1.2ms"]
        );
    }

    #[test]
    fn counts_round_trips_and_texts_are_sorted_by_value() {
        assert_eq!(CellValue::Count(9).order(&CellValue::Count(10)), Ordering::Less);
        assert_eq!(
            CellValue::CountAndMax(9, Some(1)).order(&CellValue::CountAndMax(10, None)),
            Ordering::Less
        );
        assert_eq!(
            CellValue::RoundTrip(None).order(&CellValue::RoundTrip(Some(0))),
            Ordering::Less
        );
        assert_eq!(
            CellValue::Text("a".into()).order(&CellValue::Text("b".into())),
            Ordering::Less
        );
    }
}
