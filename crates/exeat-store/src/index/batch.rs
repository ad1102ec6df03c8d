//! Rows on their way into the index: many to a statement, because a statement for each would cost more than the row.

use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, SqliteConnection};

/// Rows of one INSERT: below SQLite's limit of variables for the widest table.
const ROWS_PER_INSERT: usize = 200;

#[derive(Debug, Clone)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<i64>> for Cell {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Int)
    }
}

/// Rows for one table.
#[derive(Debug)]
pub(super) struct Batch {
    columns: usize,
    whole: Arc<str>,
    single: Arc<str>,
    cells: Vec<Cell>,
}

impl Batch {
    /// `into`: `INSERT … INTO table (columns)`.
    pub(super) fn new(into: &str, columns: usize) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        let whole = format!("{into} VALUES {}", vec![row.as_str(); ROWS_PER_INSERT].join(","));
        Self { columns, whole: whole.into(), single: format!("{into} VALUES {row}").into(), cells: Vec::new() }
    }

    pub(super) fn push<const N: usize>(&mut self, row: [Cell; N]) {
        self.cells.extend(row);
    }

    /// In the order in which they came.
    pub(super) async fn flush(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let cells = std::mem::take(&mut self.cells);
        let mut cells = cells.into_iter();
        while cells.len() > 0 {
            let many = cells.len() >= self.columns * ROWS_PER_INSERT;
            let (text, take) =
                if many { (&self.whole, self.columns * ROWS_PER_INSERT) } else { (&self.single, self.columns) };
            let mut arguments = SqliteArguments::default();
            for cell in cells.by_ref().take(take) {
                match cell {
                    Cell::Null => arguments.add(None::<i64>),
                    Cell::Int(number) => arguments.add(number),
                    Cell::Text(text) => arguments.add(text),
                    Cell::Blob(bytes) => arguments.add(bytes),
                }
                .map_err(sqlx::Error::Encode)?;
            }
            sqlx::query_with(AssertSqlSafe(Arc::clone(text)), arguments).execute(&mut *db).await?;
        }
        Ok(())
    }
}
