//! `acequia import`: converts a configuration of HAProxy or nginx.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::exit::{EXIT_CONFIG, EXIT_RUN};
use super::terminal::{print, print_message};
use crate::import::{Origin, import};
use crate::text::{counted, without_byte_order_mark};

/// The longest file that is read, in bytes. Most files have a few kilobytes; one with tens of thousands of routes has a
/// few megabytes.
const BYTES_MAX: u64 = 16 << 20;

/// The arguments of `acequia import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The program that the file configures.
    program: Program,
    /// The file: sections of HAProxy in `mode tcp`, or the `stream` block of nginx.
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Program {
    Haproxy,
    Nginx,
}

/// Prints the converted configuration to standard output. Prints to standard error how many lines were left out.
#[must_use]
pub fn run(args: &ImportArgs) -> ExitCode {
    let origin = match args.program {
        Program::Haproxy => Origin::Haproxy,
        Program::Nginx => Origin::Nginx,
    };
    match convert(origin, &args.file) {
        Ok(text) => print(&text),
        Err((code, message)) => {
            print_message("error", &message);
            ExitCode::from(code)
        }
    }
}

/// Returns the converted configuration, or the exit code and the error message. Prints a warning if lines are left out.
fn convert(origin: Origin, file: &Path) -> Result<String, (u8, String)> {
    let name = file.display();
    let bytes = read(file).map_err(|error| (EXIT_RUN, format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err((EXIT_CONFIG, format!("{name}: longer than {} MiB", BYTES_MAX >> 20)));
    }
    let text = String::from_utf8_lossy(&bytes);
    let imported =
        import(origin, without_byte_order_mark(&text)).map_err(|error| (EXIT_CONFIG, format!("{name}: {error}")))?;
    if imported.left_out > 0 {
        let lines = counted(imported.left_out, "line");
        print_message(
            "warning",
            &format!("{name}: {lines} not carried over; see the comments"),
        );
    }
    Ok(imported.text)
}

/// Reads at most one byte more than [`BYTES_MAX`]. The file may be a pipe, as in
/// `nginx -T | acequia import nginx /dev/stdin`.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("haproxy.cfg");
        let text = "listen web\n  mode tcp\n  bind 127.0.0.1:80\n  server a 10.0.0.1:80\n";
        let converted = [text, &format!("\u{feff}{text}")].map(|text| {
            std::fs::write(&file, text).unwrap();
            convert(Origin::Haproxy, &file).unwrap()
        });
        assert_eq!(converted[0], converted[1]);
    }
}
