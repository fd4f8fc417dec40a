//! Converts the TCP part of a configuration of HAProxy or nginx to one of acequia: text to text.
//!
//! Each importer reads its file into an `Imported`, which `complete` makes consistent and `toml` writes. What
//! cannot be carried over is written as a comment in the section to which it belongs. The result is a valid
//! configuration.

mod number;
mod imported;
mod networks;
mod toml;
mod addresses;
mod route_order;
mod complete;
mod haproxy;
mod nginx;
#[cfg(test)]
mod tests;

/// A program whose configuration can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// HAProxy: sections in `mode tcp`.
    Haproxy,
    /// nginx: the `stream` block.
    Nginx,
}

/// A configuration that was imported.
#[derive(Debug)]
pub struct Import {
    /// The configuration, in TOML.
    pub text: String,
    /// The number of lines, or parts of lines, that could not be carried over. Each is a comment in the text.
    pub left_out: usize,
}

/// Why a file is not converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The other program would not accept the file either, or blocks are nested too deep. Most often the file is cut
    /// off, so that a rule about who may connect may be missing.
    #[error("line {line}: {problem}")]
    Syntax {
        /// The number of the line where the problem begins.
        line: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// There is nothing to import: no listener has an address and a server.
    #[error("{}", nothing_left(*.origin, .left_out))]
    NothingLeft {
        /// The program that the file configures.
        origin: Origin,
        /// What could not be carried over, one comment a line.
        left_out: String,
    },
}

fn nothing_left(origin: Origin, left_out: &str) -> String {
    let what = match origin {
        Origin::Haproxy => "no section in `mode tcp` has both an address and a server that can be carried over",
        Origin::Nginx => "no TCP server in a `stream` block can be carried over",
    };
    match left_out {
        "" => what.to_owned(),
        left_out => format!("{what}:\n{left_out}"),
    }
}

/// Converts the text of a configuration file.
///
/// # Errors
/// The file is cut off or otherwise not valid, or no listener would be left.
pub fn import(origin: Origin, text: &str) -> Result<Import, ImportError> {
    let mut imported = match origin {
        Origin::Haproxy => haproxy::read(text)?,
        Origin::Nginx => nginx::read(text)?,
    };
    complete::complete(&mut imported, origin);
    if imported.listeners.is_empty() {
        let left_out = toml::comments(&imported.remarks).trim_end().to_owned();
        return Err(ImportError::NothingLeft { origin, left_out });
    }
    let mut written = toml::write(&imported);
    written.text.insert_str(0, &heading(origin));
    Ok(written)
}

fn heading(origin: Origin) -> String {
    let (name, order) = match origin {
        Origin::Haproxy => (
            "HAProxy",
            "# HAProxy takes the first rule that matches; acequia takes the route with the most exact name.\n",
        ),
        Origin::Nginx => ("nginx", ""),
    };
    format!(
        "# Imported from a configuration of {name}. Lines that could not be carried over are comments: `# not carried over`,\n\
         # most with their line number. `# note` tells where acequia differs.\n{order}"
    )
}
