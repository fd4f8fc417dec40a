//! ClientHello messages: generated and captured ones.

use std::path::Path;

/// A builder of ClientHellos that offer TLS 1.2 and 1.3.
#[derive(Default)]
pub struct Hello {
    name: Option<String>,
    alpn: Vec<String>,
    padding: usize,
}

impl Hello {
    pub fn named(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }

    pub fn nameless() -> Self {
        Self::default()
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|protocol| (*protocol).to_owned()).collect();
        self
    }

    /// Adds a padding extension with this many bytes of content.
    pub fn padded(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// The hello in one record.
    pub fn bytes(&self) -> Vec<u8> {
        record(&self.message())
    }

    /// The hello in records with content of these lengths, and the rest in a last one.
    pub fn in_records(&self, lengths: &[usize]) -> Vec<u8> {
        let (message, mut at, mut bytes) = (self.message(), 0, Vec::new());
        for length in lengths {
            bytes.extend(record(&message[at..at + length]));
            at += length;
        }
        bytes.extend(record(&message[at..]));
        bytes
    }

    /// The handshake message (RFC 8446, section 4.1.2).
    fn message(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]); // random
        body.push(0); // session ID: none
        body.extend([0, 4, 0x13, 0x01, 0xc0, 0x2f]); // cipher suites
        body.extend([1, 0]); // compression
        body.extend(sized16(&self.extensions()));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    fn extensions(&self) -> Vec<u8> {
        let mut all = extension(43, &[4, 3, 4, 3, 3]); // supported_versions
        if let Some(name) = &self.name {
            let entry = [&[0][..], &sized16(name.as_bytes())].concat();
            all.extend(extension(0, &sized16(&entry)));
        }
        if !self.alpn.is_empty() {
            let sized8 = |name: &String| [&[name.len() as u8], name.as_bytes()].concat();
            let list: Vec<u8> = self.alpn.iter().flat_map(sized8).collect();
            all.extend(extension(16, &sized16(&list)));
        }
        if self.padding > 0 {
            all.extend(extension(21, &vec![0; self.padding]));
        }
        all
    }
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized16(content)].concat()
}

fn sized16(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    [&length.to_be_bytes()[..], content].concat()
}

fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &sized16(content)].concat()
}

/// A captured ClientHello of `tests/data/hello`, and the name in it.
pub fn captured(file: &str) -> (Vec<u8>, String) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hello");
    let index = std::fs::read_to_string(directory.join("index.tsv")).unwrap();
    let row = index
        .lines()
        .find(|row| row.split('\t').next() == Some(file))
        .unwrap_or_else(|| panic!("no {file}"));
    (
        std::fs::read(directory.join(format!("{file}.bin"))).unwrap(),
        row.split('\t').nth(1).unwrap().to_owned(),
    )
}
