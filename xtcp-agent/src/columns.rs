//! Columns for people: as wide as the widest cell so far, drawn as lines come.
//!
//! Crates for tables (comfy-table, tabled) hold all rows before they draw one; a host may have a million.

/// Which side of a cell is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// The right one.
    Left,
    /// The left one.
    Right,
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// What stands above it.
    pub title: &'static str,
    /// Where its cells stand.
    pub align: Align,
    /// What stands before it, the first one excepted.
    pub gap: &'static str,
}

impl Column {
    /// A column two spaces behind the one before.
    pub const fn new(title: &'static str, align: Align) -> Self {
        Self { title, align, gap: "  " }
    }

    /// The same behind something else.
    #[must_use]
    pub const fn behind(self, gap: &'static str) -> Self {
        Self { gap, ..self }
    }
}

/// A table of so many columns, and a rest of any width at the end of each line.
#[derive(Clone, Debug)]
pub struct Columns<const N: usize> {
    all: [Column; N],
    rest: &'static str,
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    /// With the width of nothing yet. `rest` stands above the end of the lines.
    pub fn new(columns: [Column; N], rest: &'static str) -> Self {
        Self { all: columns, rest, widths: [0; N] }
    }

    /// Makes each column wide enough for its title.
    pub fn measure_titles(&mut self) {
        for (width, column) in self.widths.iter_mut().zip(&self.all) {
            *width = (*width).max(column.title.chars().count());
        }
    }

    /// Makes each column wide enough for these cells.
    pub fn measure(&mut self, cells: &[String; N]) {
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// Adds the line of titles.
    pub fn draw_titles(&self, text: &mut String) {
        self.draw(text, &self.all.map(|column| column.title.to_owned()), self.rest);
    }

    /// Adds a line. Nothing but its rest stands behind its last cell.
    pub fn draw(&self, text: &mut String, cells: &[String; N], rest: &str) {
        let begin = text.len();
        for (number, ((column, width), cell)) in self.all.iter().zip(self.widths).zip(cells).enumerate() {
            if number > 0 {
                text.push_str(column.gap);
            }
            let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
            match column.align {
                Align::Left => text.extend([cell.as_str(), &fill]),
                Align::Right => text.extend([&fill, cell.as_str()]),
            }
        }
        if !rest.is_empty() {
            text.extend(["  ", rest]);
        }
        let end = text.get(begin..).unwrap_or_default().trim_end_matches(' ').len();
        text.truncate(begin + end);
        text.push('\n');
    }
}

/// A name without what a terminal would obey: whoever may make it up may choose it.
pub fn plain(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            let escape = c.is_control().then(|| c.escape_default());
            let itself = (!c.is_control()).then_some(c);
            escape.into_iter().flatten().chain(itself)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_filled_to_their_side_and_lines_end_with_their_text() {
        let mut columns = Columns::new(
            [Column::new("Name", Align::Left), Column::new("Port", Align::Right).behind(":")],
            "Rest",
        );
        let cells = ["web".to_owned(), "443".to_owned()];
        columns.measure_titles();
        columns.measure(&cells);
        columns.measure(&["default".to_owned(), String::new()]);
        let mut text = String::new();
        columns.draw_titles(&mut text);
        columns.draw(&mut text, &cells, "");
        columns.draw(&mut text, &["a".to_owned(), String::new()], "end");
        assert_eq!(text, "Name   :Port  Rest\nweb    : 443\na      :      end\n");
    }
}
