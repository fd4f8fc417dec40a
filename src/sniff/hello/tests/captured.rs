//! Hellos of real clients: those in `tests/data/hello`, and those that rustls makes while the tests run.

use super::*;

/// The bytes of a hello, and what the parser must find in them.
pub(super) struct Captured {
    pub(super) file: String,
    pub(super) wire: Vec<u8>,
    pub(super) name: Option<String>,
    /// See [`Hello::raw_name`].
    pub(super) raw_name: Option<String>,
    pub(super) alpn: Vec<Box<[u8]>>,
    /// Separated by commas: `ech`, `tls1.3`, `records` (the hello is split over more than one record).
    facts: String,
}

impl Captured {
    pub(super) fn has(&self, fact: &str) -> bool {
        self.facts.split(',').any(|has| has == fact)
    }
}

/// The hellos that `scripts/capture-hello` has captured.
pub(super) fn all() -> Vec<Captured> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/hello");
    let index = std::fs::read_to_string(directory.join("index.tsv")).unwrap();
    let all: Vec<_> = index
        .lines()
        .skip(1)
        .map(|row| {
            let [file, name, raw_name, alpn, facts] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let non_empty = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            Captured {
                file: file.to_owned(),
                wire: std::fs::read(directory.join(format!("{file}.bin"))).unwrap(),
                name: non_empty(name),
                raw_name: non_empty(raw_name),
                alpn: alpn
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(|name| name.as_bytes().into())
                    .collect(),
                facts: facts.to_owned(),
            }
        })
        .collect();
    assert!(all.len() >= 20, "captures are missing");
    all
}

/// The handshake message in these records, put together without the code under test.
pub(super) fn message(mut wire: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = wire {
        let (fragment, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(fragment);
        wire = rest;
    }
    message
}

/// The hello of the rustls we are built with, in records of at most this many bytes, headers included.
pub(super) fn rustls(name: &'static str, record_bytes_max: Option<usize>) -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.max_fragment_size = record_bytes_max;
    let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}
