//! Draws a table.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Span, Text};
use ratatui::widgets::{Cell, Row, Table};

use super::columns::{Column, GAP, fit};
use super::list::List;
use super::palette::{BOLD, DIM, REVERSED};

/// Sorts the rows of a list, and draws as many as there is room for. `style` gives the style of a cell, from its row
/// and the title of its column. Returns the indices of the columns that have room, and the selected row.
pub(super) fn draw_list<'r, R, I: Clone + PartialEq>(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[Column<R>],
    list: &mut List<I>,
    rows: &'r mut [R],
    id: impl Fn(&R) -> I,
    style: impl Fn(&R, &str) -> Style,
) -> (Vec<usize>, Option<&'r R>) {
    let shown = fit(columns, area.width);
    let body_height = area.height.saturating_sub(1).into();
    let (rows, selected) = list.arrange(rows, columns, id, body_height);
    let cell = |column: &Column<R>, text: String, width: u16| {
        let alignment = if column.is_number {
            Alignment::Right
        } else {
            Alignment::Left
        };
        Cell::from(Text::from(shorten(text, width.into())).alignment(alignment))
    };
    let header = shown.iter().map(|&(index, width)| {
        let (sign, style) = if index != list.sort {
            ("", DIM)
        } else if list.is_descending {
            ("↓", BOLD)
        } else {
            ("↑", BOLD)
        };
        cell(&columns[index], format!("{}{sign}", columns[index].title), width).style(style)
    });
    let body = rows.iter().enumerate().map(|(at, row)| {
        let cells = shown.iter().map(|&(index, width)| {
            let column = &columns[index];
            cell(column, (column.value)(row).cell(), width).style(style(row, column.title))
        });
        let row = Row::new(cells);
        if at == selected { row.style(REVERSED) } else { row }
    });
    let widths = shown.iter().map(|(_, width)| Constraint::Length(*width));
    let table = Table::new(body, widths).header(Row::new(header)).column_spacing(GAP);
    frame.render_widget(table, area);
    (shown.into_iter().map(|(index, _)| index).collect(), rows.get(selected))
}

/// The text cut to `width` cells of the terminal. An ellipsis in the middle stands for what does not fit: long names
/// often differ at their end only.
fn shorten(text: String, width: usize) -> String {
    let width_of = |text: &str| Span::raw(text).width();
    if width_of(&text) <= width {
        return text;
    }
    let room = width.saturating_sub(1);
    let (mut head, mut tail) = (text.chars(), text.chars());
    while width_of(head.as_str()) > room.div_ceil(2) {
        head.next_back();
    }
    while width_of(tail.as_str()) > room - width_of(head.as_str()) {
        tail.next();
    }
    format!("{}…{}", head.as_str(), tail.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_keeps_its_beginning_and_its_end() {
        assert_eq!(shorten("abcdef".to_owned(), 6), "abcdef");
        assert_eq!(shorten("abcdefg".to_owned(), 6), "abc…fg");
        assert_eq!(shorten("abc".to_owned(), 1), "…");
        assert_eq!(shorten("日本語日本語".to_owned(), 6), "日…語");
    }
}
