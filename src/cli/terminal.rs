//! Output to the terminal. All text is escaped, whatever its origin, so that it cannot control the terminal.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use super::exit::{EXIT_OUTPUT, EXIT_USAGE};
use crate::text::{self, escape};

/// Prints text to standard output; returns the exit code. A closed pipe is not a failure. Any other error is a failure,
/// so that a script does not mistake a part of the output for all of it.
pub(super) fn print(text: &str) -> ExitCode {
    write(&escape_lines(text))
}

/// As [`print()`], for JSON: `json` must be valid, and its value does not change.
pub(super) fn print_json(json: &str) -> ExitCode {
    write(&escape_json(json))
}

/// Escapes unsafe characters, and ends the last line. In valid JSON, a carriage return is always between tokens: a
/// space takes its place.
fn escape_json(json: &str) -> String {
    text::escape_json(json).replace('\r', " ") + "\n"
}

/// Prints a message to standard error; `severity` is `error`, `warning` or `help`. A failure to write is ignored.
pub(super) fn print_message(severity: &str, message: &str) {
    let _ = writeln!(io::stderr(), "{severity}: {}", escape_lines(message));
}

/// Prints an error about the arguments; returns the exit code.
pub(super) fn reject_arguments(message: &str) -> ExitCode {
    print_message("error", message);
    ExitCode::from(EXIT_USAGE)
}

/// Escapes unsafe characters, line feeds excepted.
fn escape_lines(text: &str) -> String {
    let escaped = text.split('\n').map(|line| escape(line, &[]));
    escaped.collect::<Vec<_>>().join("\n")
}

fn write(text: &str) -> ExitCode {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            print_message("error", &format!("cannot write the answer: {error}"));
            ExitCode::from(EXIT_OUTPUT)
        }
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_feeds_are_kept_and_other_control_characters_escaped() {
        assert_eq!(escape_lines("a\nb\tc\n"), "a\nb\\tc\n");
        assert_eq!(
            escape_lines("\u{1b}[2J\r\u{9b}m\u{202e}x"),
            r"\u{1b}[2J\r\u{9b}m\u{202e}x"
        );
    }

    #[test]
    fn escaped_json_parses_to_an_equal_value() {
        let json = "{\r\n\t\"a\": \"\u{9b}\u{202e}\u{7f}é\" }";
        let escaped = escape_json(json);
        assert_eq!(escaped, "{ \n\t\"a\": \"\\u009b\\u202e\\u007fé\" }\n");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&escaped), parse(json));
    }
}
