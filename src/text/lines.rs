//! The lines that a process prints, bounded in length.

/// The longest line that is kept, in bytes; the rest of a longer one is dropped. A [`Reason`](super::Reason) shows no
/// more than this.
pub(crate) const LINE_BYTES_MAX: usize = 1024;

/// Divides bytes into lines. Empty lines are left out, and so is white space at the end of a line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    current: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut ended = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                ended.extend(self.finish());
            } else if self.current.len() < LINE_BYTES_MAX {
                self.current.push(*byte);
            }
        }
        ended
    }

    /// Ends the current line and returns it; `None`: it is empty. Must be called when no more bytes come.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.current);
        let length = line.trim_ascii_end().len();
        (length > 0).then(|| line[..length].to_vec())
    }

    /// The line that has not ended yet.
    pub(crate) fn current(&self) -> &[u8] {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_not_empty() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\r\n\n \ntw"), [b"one"]);
        assert_eq!(lines.push(b"o\n"), [b"two"]);
        let long = lines.push(&[&[b'x'; 5000][..], b"\nnext\n"].concat());
        assert_eq!((long[0].len(), &*long[1]), (LINE_BYTES_MAX, &b"next"[..]));
        lines.push(b"no end");
        assert_eq!(lines.finish().as_deref(), Some(&b"no end"[..]));
        assert_eq!(lines.finish(), None);
    }
}
