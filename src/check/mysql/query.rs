//! A query and its rows ("Text Resultset" in the chapter "Client/Server Protocol" of the MySQL source code
//! documentation).

use super::packet::{Fields, MysqlFailure, Packets, malformed};

/// The command that runs a query.
const COM_QUERY: u8 = 3;

/// The most columns of an answer. The status of a replica has about 60.
const COLUMNS_MAX: u64 = 256;

/// The rows of an answer, as text.
#[derive(Debug, Default)]
pub(super) struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// The values of the first column that has one of these names, row by row; `None`: NULL. Empty if there is no such
    /// column.
    pub(super) fn column<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = Option<&'a str>> {
        let index = self.columns.iter().position(|column| names.contains(&column.as_str()));
        let values = index.map(|index| self.rows.iter().map(move |row| row.get(index)?.as_deref()));
        values.into_iter().flatten()
    }

    /// Finds the row whose first value is this name, and returns the second value of the row, for example in an answer
    /// to `SHOW VARIABLES`. `None`: there is no such row, or the value is NULL.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let row = self
            .rows
            .iter()
            .find(|row| row.first().and_then(Option::as_deref) == Some(name))?;
        row.get(1)?.as_deref()
    }
}

/// Runs a query.
///
/// # Errors
/// The server answers with an error; the connection fails; the answer is malformed or too long.
pub(super) async fn query(packets: &mut Packets, statement: &str) -> Result<Rows, MysqlFailure> {
    packets.send_command(COM_QUERY, statement.as_bytes()).await?;
    let head = packets.receive().await?;
    let count = Fields(&head).integer().filter(|count| *count <= COLUMNS_MAX);
    let count = count.ok_or_else(malformed)?;
    let mut answer = Rows::default();
    for _ in 0..count {
        let definition = packets.receive().await?;
        answer.columns.push(column_name(&definition).ok_or_else(malformed)?);
    }
    if count == 0 {
        return Ok(answer); // `head` is an OK packet: there are no rows
    }
    if !is_end(&packets.receive().await?) {
        return Err(malformed());
    }
    loop {
        let row = packets.receive().await?;
        if is_end(&row) {
            return Ok(answer);
        }
        let mut fields = Fields(&row);
        let values = (0..count).map(|_| fields.value().map(|value| value.map(text)));
        answer.rows.push(values.collect::<Option<_>>().ok_or_else(malformed)?);
    }
}

/// Whether it is an EOF packet. A row may begin with the same byte, but is longer then.
fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}

/// The name in a column definition. It is the fifth string, after catalog, schema, and two names of the table.
fn column_name(definition: &[u8]) -> Option<String> {
    let mut fields = Fields(definition);
    for _ in 0..4 {
        fields.string()?;
    }
    fields.string().map(text)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
