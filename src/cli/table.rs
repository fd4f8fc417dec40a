//! What is shown to people: tables, and numbers in them.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

use crate::text::escape;

/// Each cell has a blank on either side.
const BLANKS: usize = 2;

/// A table without lines, as wide as the terminal at most; where there is none, as wide as it needs. Where there is no
/// room for all, columns that are `spare` are left out, the first of them first, and that is said; then words are cut.
/// A column that has nothing to say in any row is left out too.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]], spare: &[&str]) -> String {
    // A line feed in a cell would be a line of the table.
    let tamed = |row: &[String; N]| row.each_ref().map(|cell| escape(cell, &[]).into_owned());
    let rows = &rows.iter().map(tamed).collect::<Vec<_>>();
    let is_told = |column: &usize| rows.is_empty() || rows.iter().any(|row| row[*column] != NOTHING_TO_SAY);
    let columns: Vec<usize> = (0..N).filter(is_told).collect();
    let whole = filled(&columns, head, rows);
    let Some(room) = whole.width() else { return text(&whole) };
    let widths = whole.column_max_content_widths();
    let widths = widths.into_iter().map(|width| usize::from(width) + BLANKS);
    let with_widths: Vec<_> = columns.into_iter().zip(widths).collect();
    let (kept, left_out) = fitted(with_widths, room.into(), |column| {
        spare.iter().position(|name| *name == head[column])
    });
    let mut table = filled(&kept, head, rows);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(room.saturating_add(BLANKS as u16));
    if left_out.is_empty() {
        return text(&table);
    }
    let names: Vec<_> = left_out.into_iter().map(|column| head[column]).collect();
    format!("{}(no room for {})\n", text(&table), names.join(", "))
}

/// Which columns are kept and which are left out, so that all have room. `spare` says which one may be, and when.
fn fitted(
    mut columns: Vec<(usize, usize)>,
    room: usize,
    spare: impl Fn(usize) -> Option<usize>,
) -> (Vec<usize>, Vec<usize>) {
    let mut left_out = Vec::new();
    // The blanks at both ends are not shown.
    while columns.iter().map(|(_, width)| width).sum::<usize>() > room + BLANKS {
        let next = columns
            .iter()
            .filter_map(|(column, _)| Some((spare(*column)?, *column)));
        let Some((_, next)) = next.min() else { break };
        columns.retain(|(column, _)| *column != next);
        left_out.push(next);
    }
    (columns.into_iter().map(|(column, _)| column).collect(), left_out)
}

fn filled<const N: usize>(columns: &[usize], head: [&str; N], rows: &[[String; N]]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(columns.iter().map(|column| head[*column]));
    for row in rows {
        table.add_row(columns.iter().map(|column| &row[*column]));
    }
    table
}

fn text(table: &Table) -> String {
    let line = |line: String| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end());
    table.lines().map(line).collect()
}

const NOTHING_TO_SAY: &str = "-";

/// What may not be there.
pub(super) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| NOTHING_TO_SAY.to_owned())
}

/// A duration for people, in its two largest units.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let of = |units: [(u64, &str); 2]| {
        let [(large, a), (small, b)] = units;
        format!("{large}{a} {small}{b}")
    };
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => of([(seconds / 60, "m"), (seconds % 60, "s")]),
        3600..86_400 => of([(seconds / 3600, "h"), (seconds / 60 % 60, "m")]),
        _ => of([(seconds / 86_400, "d"), (seconds / 3600 % 24, "h")]),
    }
}

/// A number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_spared_goes_before_words_are_cut() {
        let widths = || vec![(0, 10), (1, 20), (2, 30), (3, 20)];
        let fitted = |room| fitted(widths(), room, |column| [None, Some(1), None, Some(0)][column]);
        assert_eq!(fitted(78), (vec![0, 1, 2, 3], vec![]), "the outer blanks are not there");
        assert_eq!(fitted(77), (vec![0, 1, 2], vec![3]));
        assert_eq!(fitted(57), (vec![0, 2], vec![3, 1]));
        assert_eq!(fitted(5), (vec![0, 2], vec![3, 1]));
    }

    #[test]
    fn durations_for_people() {
        let shown = |ms| duration(Duration::from_millis(ms));
        let all = [7, 59_999, 60_000, 3_599_000, 3_600_000, 86_400_000, 90_061_000].map(shown);
        assert_eq!(all, ["7ms", "59s", "1m 0s", "59m 59s", "1h 0m", "1d 0h", "1d 1h"]);
    }

    #[test]
    fn sizes_for_people() {
        let all = [0, 1023, 1024, 1 << 20, 5 << 30, u64::MAX].map(size);
        assert_eq!(all, ["0B", "1023B", "1.0KiB", "1.0MiB", "5.0GiB", "16.0EiB"]);
    }
}
