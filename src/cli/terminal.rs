//! Where text leaves to the terminal. Whatever it came from, it cannot drive the terminal.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::text::{escape, is_unsafe};

/// The answer could not be written.
const EXIT_UNSAID: u8 = 1;

/// Prints an answer for people. That its reader has gone is no failure; that it cannot be written is one, lest a script
/// takes half of it for all.
pub(super) fn say(answer: &str) -> ExitCode {
    write(&lines(answer))
}

/// The same for programs: `answer` is valid JSON, and stays the same JSON.
pub(super) fn say_json(answer: &str) -> ExitCode {
    write(&json(answer))
}

/// What could drive a terminal can only be in strings, where it is written as `\u` and its code (RFC 8259, section 7); a
/// carriage return can only be a blank between values.
fn json(answer: &str) -> String {
    let mut shown = String::with_capacity(answer.len() + 1);
    for c in answer.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            '\r' => shown.push(' '),
            c if !is_unsafe(c) => shown.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    shown.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    shown.push('\n');
    shown
}

/// Writes to standard error what is wrong: an `error` or a `warning`. Nobody is left to tell when its reader has gone.
pub(super) fn complain(severity: &str, what: &str) {
    let _ = writeln!(io::stderr(), "{severity}: {}", lines(what));
}

/// What may be printed, its lines as they are.
fn lines(text: &str) -> String {
    let tamed = text.split('\n').map(|line| escape(line, &[]));
    tamed.collect::<Vec<_>>().join("\n")
}

fn write(text: &str) -> ExitCode {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain("error", &format!("cannot write the answer: {error}"));
            ExitCode::from(EXIT_UNSAID)
        }
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_and_nothing_else_moves_the_cursor() {
        assert_eq!(lines("a\nb\tc\n"), "a\nb\\tc\n");
        assert_eq!(lines("\u{1b}[2J\r\u{9b}m\u{202e}x"), r"\u{1b}[2J\r\u{9b}m\u{202e}x");
    }

    #[test]
    fn json_stays_what_it_is() {
        let answer = "{\r\n\t\"a\": \"\u{9b}\u{202e}\u{7f}é\" }";
        let shown = json(answer);
        assert_eq!(shown, "{ \n\t\"a\": \"\\u009b\\u202e\\u007fé\" }\n");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&shown), read(answer));
    }
}
