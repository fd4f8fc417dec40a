//! Tables for people, and the format of durations and sizes in them.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

use crate::text::escape;

/// The width of the padding of a cell, both sides together.
const PADDING: usize = 2;

/// Formats a table without borders. A column with only [`EMPTY`] cells is left out.
///
/// On a terminal, the table is at most as wide as the terminal. Columns are left out for that, in the order of
/// `optional`, and a note names them. If that is not enough, cells are wrapped.
pub(super) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]], optional: &[&str]) -> String {
    // Escaped, because a line feed in a cell would start a new line of the table.
    let escape_cells = |row: &[String; N]| row.each_ref().map(|cell| escape(cell, &[]).into_owned());
    let rows = &rows.iter().map(escape_cells).collect::<Vec<_>>();
    let is_used = |column: &usize| rows.is_empty() || rows.iter().any(|row| row[*column] != EMPTY);
    let columns: Vec<usize> = (0..N).filter(is_used).collect();
    let full = build(&columns, header, rows);
    let Some(terminal_width) = full.width() else {
        return text(&full); // not on a terminal
    };
    let widths = full.column_max_content_widths();
    let widths = widths.into_iter().map(|width| usize::from(width) + PADDING);
    let with_widths: Vec<_> = columns.into_iter().zip(widths).collect();
    let (kept, left_out) = fit(with_widths, terminal_width.into(), |column| {
        optional.iter().position(|name| *name == header[column])
    });
    let mut table = build(&kept, header, rows);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(terminal_width.saturating_add(PADDING as u16));
    if left_out.is_empty() {
        return text(&table);
    }
    let names: Vec<_> = left_out.into_iter().map(|column| header[column]).collect();
    format!("{}(no room for {})\n", text(&table), names.join(", "))
}

/// Divides columns, given with their widths, into those kept and those left out, so that the kept ones fit into
/// `width_max` if possible. `order` is the order in which columns are left out; `None`: never.
fn fit(
    mut columns: Vec<(usize, usize)>,
    width_max: usize,
    order: impl Fn(usize) -> Option<usize>,
) -> (Vec<usize>, Vec<usize>) {
    let mut left_out = Vec::new();
    // The padding at both ends is not printed.
    while columns.iter().map(|(_, width)| width).sum::<usize>() > width_max + PADDING {
        let next = columns
            .iter()
            .filter_map(|(column, _)| Some((order(*column)?, *column)));
        let Some((_, next)) = next.min() else { break };
        columns.retain(|(column, _)| *column != next);
        left_out.push(next);
    }
    (columns.into_iter().map(|(column, _)| column).collect(), left_out)
}

fn build<const N: usize>(columns: &[usize], header: [&str; N], rows: &[[String; N]]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(columns.iter().map(|column| header[*column]));
    for row in rows {
        table.add_row(columns.iter().map(|column| &row[*column]));
    }
    table
}

fn text(table: &Table) -> String {
    let line = |line: String| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end());
    table.lines().map(line).collect()
}

/// The text of an empty cell.
const EMPTY: &str = "-";

/// The text of a cell that may be empty.
pub(super) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| EMPTY.to_owned())
}

/// Formats a duration in its two largest units; below a minute, in one unit.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let in_units = |[(large, a), (small, b)]: [(u64, &str); 2]| format!("{large}{a} {small}{b}");
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => in_units([(seconds / 60, "m"), (seconds % 60, "s")]),
        3600..86_400 => in_units([(seconds / 3600, "h"), (seconds / 60 % 60, "m")]),
        _ => in_units([(seconds / 86_400, "d"), (seconds / 3600 % 24, "h")]),
    }
}

/// Formats a number of bytes, in binary units.
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
    fn only_optional_columns_are_left_out_and_in_order() {
        let widths = || vec![(0, 10), (1, 20), (2, 30), (3, 20)];
        let fit = |width| fit(widths(), width, |column| [None, Some(1), None, Some(0)][column]);
        assert_eq!(fit(78), (vec![0, 1, 2, 3], vec![]), "the outer padding is not printed");
        assert_eq!(fit(77), (vec![0, 1, 2], vec![3]));
        assert_eq!(fit(57), (vec![0, 2], vec![3, 1]));
        assert_eq!(fit(5), (vec![0, 2], vec![3, 1]));
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let format = |ms| duration(Duration::from_millis(ms));
        let all = [7, 59_999, 60_000, 3_599_000, 3_600_000, 86_400_000, 90_061_000].map(format);
        assert_eq!(all, ["7ms", "59s", "1m 0s", "59m 59s", "1h 0m", "1d 0h", "1d 1h"]);
    }

    #[test]
    fn sizes_have_binary_units() {
        let all = [0, 1023, 1024, 1 << 20, 5 << 30, u64::MAX].map(size);
        assert_eq!(all, ["0B", "1023B", "1.0KiB", "1.0MiB", "5.0GiB", "16.0EiB"]);
    }
}
