//! The state of a table between two drawings: its order, its filter and the selected row.

use super::columns::Column;

/// The longest filter that can be typed, in characters.
const FILTER_CHARS_MAX: usize = 200;

/// The state of a table whose rows are identified by an `I`.
#[derive(Clone)]
pub(super) struct List<I> {
    /// The index of the column that the table is sorted by.
    pub(super) sort: usize,
    pub(super) is_descending: bool,
    filter: String,
    /// The row that the user has moved to; `None`: the first row is selected, whichever that is.
    chosen: Option<I>,
    /// The row that was selected at the last drawing.
    selected: Option<I>,
    /// The index of the row that was selected at the last drawing.
    position: usize,
    /// How many rows to move down by at the next drawing; negative: up.
    movement: isize,
    /// The index of the first row on the screen.
    offset: usize,
}

impl<I: Clone + PartialEq> List<I> {
    /// Sorted by this column, the highest first.
    pub(super) fn sorted_by(sort: usize) -> Self {
        Self {
            sort,
            is_descending: true,
            filter: String::new(),
            chosen: None,
            selected: None,
            position: 0,
            movement: 0,
            offset: 0,
        }
    }

    /// The row that the user sees as selected.
    pub(super) fn selected(&self) -> Option<&I> {
        self.selected.as_ref()
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    /// Adds a character to the filter, unless the filter is full or the character is unsafe to display.
    pub(super) fn type_char(&mut self, c: char) {
        if self.filter.chars().count() < FILTER_CHARS_MAX && !crate::text::is_unsafe(c) {
            self.filter.push(c);
        }
        self.return_to_first_row();
    }

    /// Removes the last character of the filter.
    pub(super) fn erase_char(&mut self) {
        self.filter.pop();
        self.return_to_first_row();
    }

    pub(super) fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.return_to_first_row();
    }

    fn return_to_first_row(&mut self) {
        (self.chosen, self.position, self.offset) = (None, 0, 0);
    }

    /// At the next drawing, selects the row that is this many rows below; negative: above.
    pub(super) fn move_by(&mut self, rows: isize) {
        self.movement = self.movement.saturating_add(rows);
    }

    pub(super) fn reverse(&mut self) {
        self.is_descending = !self.is_descending;
    }

    /// Sorts by the next (`forward`) or the previous column on the screen, if there is one. `shown`: the indices of the
    /// columns on the screen. A narrow screen may not show the column that the table is sorted by now.
    pub(super) fn sort_by_neighbour<R>(&mut self, columns: &[Column<R>], shown: &[usize], forward: bool) {
        let neighbour = match forward {
            true => shown.iter().find(|index| **index > self.sort),
            false => shown.iter().rfind(|index| **index < self.sort),
        };
        if let Some(index) = neighbour {
            self.sort = *index;
            self.is_descending = columns[*index].is_number;
        }
    }

    /// Sorts the rows, and decides which one is selected. Returns the rows that fit a screen of this height, and the
    /// index of the selected one among them.
    pub(super) fn arrange<'r, R>(
        &mut self,
        rows: &'r mut [R],
        columns: &[Column<R>],
        id: impl Fn(&R) -> I,
        height: usize,
    ) -> (&'r [R], usize) {
        self.sort_rows(rows, columns);
        self.select(rows, id);
        self.scroll(rows.len(), height);
        let end = rows.len().min(self.offset + height);
        (&rows[self.offset..end], self.position - self.offset)
    }

    /// Sorts the rows. Rows that are equal stay in their order.
    fn sort_rows<R>(&self, rows: &mut [R], columns: &[Column<R>]) {
        let value = columns[self.sort].value;
        let compare = |a: &R, b: &R| value(a).order(&value(b));
        if self.is_descending {
            rows.sort_by(|a, b| compare(b, a));
        } else {
            rows.sort_by(compare);
        }
    }

    /// Selects the row that the user has chosen, and moves from there. If that row is gone, the row that is now in its
    /// place is selected instead.
    fn select<R>(&mut self, rows: &[R], id: impl Fn(&R) -> I) {
        let current = match &self.chosen {
            Some(chosen) => rows.iter().position(|row| id(row) == *chosen).unwrap_or(self.position),
            None => 0,
        };
        let last = rows.len().saturating_sub(1);
        self.position = current.min(last).saturating_add_signed(self.movement).min(last);
        self.selected = rows.get(self.position).map(id);
        if self.movement != 0 {
            self.chosen.clone_from(&self.selected);
            self.movement = 0;
        }
    }

    /// Scrolls no more than needed to show the selected row, and leaves no room below the last row while rows above the
    /// screen could fill it.
    fn scroll(&mut self, rows: usize, height: usize) {
        self.offset = self
            .offset
            .min(self.position)
            .max((self.position + 1).saturating_sub(height.max(1)));
        self.offset = self.offset.min(rows.saturating_sub(height));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::columns::CellValue;

    fn columns() -> [Column<u32>; 2] {
        [
            Column::number("", 1, 0, |row: &u32| CellValue::Count((*row).into())),
            Column::number("", 1, 0, |row: &u32| CellValue::Text((row % 10).to_string().into())),
        ]
    }

    fn shown(list: &mut List<u32>, rows: &[u32]) -> (Vec<u32>, usize) {
        let mut rows = rows.to_vec();
        let (rows, selected) = list.arrange(&mut rows, &columns(), |row| *row, 3);
        (rows.to_vec(), selected)
    }

    #[test]
    fn the_selection_stays_on_the_first_row_until_the_user_moves_it() {
        let mut list = List::sorted_by(0);
        assert_eq!(shown(&mut list, &[1, 3, 2]), (vec![3, 2, 1], 0));
        assert_eq!(shown(&mut list, &[1, 3, 2, 4]), (vec![4, 3, 2], 0));
        list.move_by(1);
        assert_eq!(shown(&mut list, &[1, 3, 2, 4]), (vec![4, 3, 2], 1));
        assert_eq!(
            shown(&mut list, &[1, 3, 2, 4, 5]),
            (vec![5, 4, 3], 2),
            "3 stays selected"
        );
        assert_eq!(list.selected(), Some(&3));
        assert_eq!(
            shown(&mut list, &[1, 2, 4, 5]),
            (vec![5, 4, 2], 2),
            "3 has gone: the row in its place is selected"
        );
        list.move_by(isize::MAX);
        assert_eq!(shown(&mut list, &[1, 2, 4, 5]), (vec![4, 2, 1], 2));
        list.move_by(isize::MIN);
        assert_eq!(shown(&mut list, &[1, 2, 4, 5]), (vec![5, 4, 2], 0));
        assert_eq!(shown(&mut list, &[]), (vec![], 0));
        assert_eq!(list.selected(), None);
    }

    #[test]
    fn the_sort_column_moves_along_the_columns_on_the_screen() {
        let mut list = List::sorted_by(0);
        list.sort_by_neighbour(&columns(), &[0, 1], true);
        assert_eq!(shown(&mut list, &[11, 30, 22]).0, [22, 11, 30]);
        list.reverse();
        assert_eq!(shown(&mut list, &[11, 30, 22]).0, [30, 11, 22]);
        list.sort_by_neighbour(&columns(), &[0, 1], true);
        assert_eq!(list.sort, 1, "there is no column after it");
        list.sort_by_neighbour(&columns(), &[0], true);
        assert_eq!(list.sort, 1, "the screen shows neither column 1 nor a later one");
        list.sort_by_neighbour(&columns(), &[0], false);
        assert_eq!(list.sort, 0);
    }

    #[test]
    fn a_filter_is_bounded_and_takes_no_control_characters() {
        let mut list = List::<u32>::sorted_by(0);
        for c in ['a', '\u{1b}', 'b'] {
            list.type_char(c);
        }
        assert_eq!(list.filter(), "ab");
        (0..1000).for_each(|_| list.type_char('x'));
        assert_eq!(list.filter().len(), FILTER_CHARS_MAX);
        list.erase_char();
        assert_eq!(list.filter().len(), FILTER_CHARS_MAX - 1);
    }
}
