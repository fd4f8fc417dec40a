//! The Redis serialization protocol, version 2: commands are written, replies read.
//!
//! ```text
//!  +OK\r\n        simple string        $5\r\nhello\r\n    bulk string; $-1\r\n: null
//!  -ERR what\r\n  error                *2\r\n…            array of two replies; *-1\r\n: null
//!  :42\r\n        integer
//! ```

/// The most levels of nested arrays, counting the outermost. The reply to `ROLE` of a server with replicas has three.
const DEPTH_MAX: usize = 4;

/// A reply of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RespValue {
    /// A simple or bulk string, or an integer as text.
    Text(String),
    /// An error: a word in capitals, and a text.
    Error(String),
    /// An array.
    Array(Vec<Self>),
    /// A null string or array: there is none.
    Null,
}

impl RespValue {
    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements; none if it is not an array.
    pub(super) fn elements(&self) -> &[Self] {
        match self {
            Self::Array(elements) => elements,
            _ => &[],
        }
    }
}

/// Why bytes are not a whole reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoReply {
    /// They are the beginning of a reply.
    Incomplete,
    /// They are not of this protocol, or are arrays of more than [`DEPTH_MAX`] levels.
    Invalid,
}

/// Appends a command to `request`.
pub(super) fn write_command(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

/// Reads the first reply in `bytes`. Returns it, and the bytes after it.
///
/// # Errors
/// [`NoReply`].
pub(super) fn read_reply(bytes: &[u8]) -> Result<(RespValue, &[u8]), NoReply> {
    read_nested(bytes, DEPTH_MAX)
}

/// `levels_left`: how many levels of arrays the reply may have.
fn read_nested(bytes: &[u8], levels_left: usize) -> Result<(RespValue, &[u8]), NoReply> {
    let (&kind, rest) = bytes.split_first().ok_or(NoReply::Incomplete)?;
    if !b"+-:$*".contains(&kind) {
        return Err(NoReply::Invalid);
    }
    let (line, rest) = read_line(rest)?;
    match kind {
        b'-' => Ok((RespValue::Error(line.to_owned()), rest)),
        b'$' | b'*' => {
            let Some(length) = parse_length(line)? else {
                return Ok((RespValue::Null, rest));
            };
            if kind == b'$' {
                read_bulk(length, rest)
            } else {
                read_array(length, rest, levels_left)
            }
        }
        _ => Ok((RespValue::Text(line.to_owned()), rest)),
    }
}

/// A line without its end.
fn read_line(bytes: &[u8]) -> Result<(&str, &[u8]), NoReply> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\r')
        .ok_or(NoReply::Incomplete)?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| NoReply::Invalid)?;
    match bytes.get(end + 1) {
        None => Err(NoReply::Incomplete),
        Some(b'\n') => Ok((line, &bytes[end + 2..])),
        Some(_) => Err(NoReply::Invalid),
    }
}

/// The length of a string or array; `None`: it is a null.
fn parse_length(line: &str) -> Result<Option<usize>, NoReply> {
    if line == "-1" {
        return Ok(None);
    }
    line.parse().map(Some).map_err(|_| NoReply::Invalid)
}

fn read_bulk(length: usize, bytes: &[u8]) -> Result<(RespValue, &[u8]), NoReply> {
    let (text, rest) = bytes.split_at_checked(length).ok_or(NoReply::Incomplete)?;
    let (end, rest) = rest.split_at_checked(2).ok_or(NoReply::Incomplete)?;
    if end != b"\r\n" {
        return Err(NoReply::Invalid);
    }
    Ok((RespValue::Text(String::from_utf8_lossy(text).into_owned()), rest))
}

fn read_array(length: usize, mut bytes: &[u8], levels_left: usize) -> Result<(RespValue, &[u8]), NoReply> {
    let levels_left = levels_left.checked_sub(1).ok_or(NoReply::Invalid)?;
    let mut elements = Vec::new(); // no capacity is reserved: the server may send any `length`
    for _ in 0..length {
        let (element, rest) = read_nested(bytes, levels_left)?;
        elements.push(element);
        bytes = rest;
    }
    Ok((RespValue::Array(elements), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> RespValue {
        RespValue::Text(text.to_owned())
    }

    #[test]
    fn a_reply_is_incomplete_until_its_last_byte() {
        let replies = [
            ("+PONG\r\n", text("PONG")),
            ("-LOADING not yet\r\n", RespValue::Error("LOADING not yet".to_owned())),
            (":42\r\n", text("42")),
            ("$5\r\na\r\nb!\r\n", text("a\r\nb!")),
            ("$-1\r\n", RespValue::Null),
            ("*-1\r\n", RespValue::Null),
            (
                "*3\r\n$6\r\nmaster\r\n:7\r\n*1\r\n*1\r\n$1\r\na\r\n",
                RespValue::Array(vec![
                    text("master"),
                    text("7"),
                    RespValue::Array(vec![RespValue::Array(vec![text("a")])]),
                ]),
            ),
        ];
        for (written, reply) in replies {
            let bytes = [written.as_bytes(), b"more"].concat();
            assert_eq!(read_reply(&bytes), Ok((reply, &b"more"[..])), "{written:?}");
            for end in 0..written.len() {
                assert_eq!(
                    read_reply(&bytes[..end]),
                    Err(NoReply::Incomplete),
                    "{written:?} up to {end}"
                );
            }
        }
    }

    #[test]
    fn bytes_of_another_protocol_and_arrays_of_too_many_levels_are_invalid() {
        for bytes in [
            "220 smtp\r\n",
            "HTTP/1.1 400\r\n",
            "$x\r\n",
            "$1\r\nabc",
            "+a\rb",
            "*9999999999999999999999\r\n",
            "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ] {
            assert_eq!(read_reply(bytes.as_bytes()), Err(NoReply::Invalid), "{bytes:?}");
        }
        assert_eq!(read_reply(b"*4294967295\r\n"), Err(NoReply::Incomplete));
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut request = Vec::new();
        write_command(&mut request, &[b"AUTH", b"two words\r\n"]);
        assert_eq!(request, b"*2\r\n$4\r\nAUTH\r\n$11\r\ntwo words\r\n\r\n");
    }
}
