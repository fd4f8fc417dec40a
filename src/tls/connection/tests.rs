//! A client and a server that exchange records, which are cut into pieces at any place.

use proptest::prelude::*;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, CipherSuiteCommon, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion,
    Tls12CipherSuite,
};

use super::*;

const NAME: &str = "shop.example";

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn configs(
    version: &'static SupportedProtocolVersion,
    provider: CryptoProvider,
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(provider);
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], key.into())
        .unwrap();
    (Arc::new(client), Arc::new(server))
}

fn unconnected(version: &'static SupportedProtocolVersion) -> (TlsConnection, TlsConnection) {
    unconnected_with(version, default_provider())
}

fn unconnected_with(
    version: &'static SupportedProtocolVersion,
    provider: CryptoProvider,
) -> (TlsConnection, TlsConnection) {
    let (client, server) = configs(version, provider);
    let client = TlsConnection::client(client, NAME.try_into().unwrap(), Vec::new()).unwrap();
    (client, TlsConnection::server(server).unwrap())
}

/// A client and a server whose handshake is complete; the bytes of the handshake came in pieces of at most this length.
fn connected(version: &'static SupportedProtocolVersion, piece_bytes: usize) -> (TlsConnection, TlsConnection) {
    let (client, server) = unconnected(version);
    connect(client, server, piece_bytes)
}

/// A connected pair of TLS 1.2 whose keys are used up after this many records.
pub(crate) fn tls12_pair_with_key_limit(records: u64) -> (TlsConnection, TlsConnection) {
    let SupportedCipherSuite::Tls12(suite) = TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 else {
        unreachable!("the cipher suite is one of TLS 1.2");
    };
    let limited = Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: records,
        },
        prf_provider: suite.prf_provider,
        kx: suite.kx,
        sign: suite.sign,
        aead_alg: suite.aead_alg,
    };
    let provider = CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls12(Box::leak(Box::new(limited)))],
        ..default_provider()
    };
    let (client, server) = unconnected_with(&TLS12, provider);
    connect(client, server, usize::MAX)
}

/// Makes tickets of this length. None of them can be used.
#[derive(Debug)]
struct LongTickets(usize);

impl ProducesTickets for LongTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        3600
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(vec![0; self.0])
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// A connected pair of TLS 1.3, and what the server has sent after the handshake: a ticket of this length, in records
/// of at most `record_bytes` of plaintext.
pub(crate) fn connected_with_ticket(
    ticket_bytes: usize,
    record_bytes: Option<usize>,
) -> (TlsConnection, TlsConnection, Vec<u8>) {
    let (client, mut server) = configs(&TLS13, default_provider());
    let config = Arc::make_mut(&mut server);
    (config.ticketer, config.max_fragment_size) = (Arc::new(LongTickets(ticket_bytes)), record_bytes);
    config.send_tls13_tickets = 1;
    let mut client = TlsConnection::client(client, NAME.try_into().unwrap(), Vec::new()).unwrap();
    let mut server = TlsConnection::server(server).unwrap();
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    client.handshake(&[], &mut to_server).unwrap();
    while server.is_handshaking() {
        server.handshake(&take(&mut to_server), &mut to_client).unwrap();
        if client.is_handshaking() {
            client.handshake(&take(&mut to_client), &mut to_server).unwrap();
        }
    }
    (client, server, to_client)
}

fn connect(mut client: TlsConnection, mut server: TlsConnection, piece_bytes: usize) -> (TlsConnection, TlsConnection) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    client.handshake(&[], &mut to_server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        for piece in take(&mut to_server).chunks(piece_bytes) {
            server.handshake(piece, &mut to_client).unwrap();
        }
        for piece in take(&mut to_client).chunks(piece_bytes) {
            client.handshake(piece, &mut to_server).unwrap();
        }
    }
    (client, server)
}

/// The plaintext of these records, which come in pieces of at most this length.
fn receive(connection: &mut TlsConnection, records: &[u8], piece_bytes: usize) -> Result<Vec<u8>, rustls::Error> {
    let mut all = Vec::new();
    for piece in records.chunks(piece_bytes.min(RECORD_BYTES_MAX)) {
        let mut received = take_unread(connection);
        received.extend_from_slice(piece);
        let mut plain = vec![0; received.len()];
        let bytes = connection.decrypt(&mut received, &mut plain, &mut Vec::new())?;
        all.extend_from_slice(&plain[..bytes]);
    }
    Ok(all)
}

fn take_unread(connection: &mut TlsConnection) -> Vec<u8> {
    let mut unread = vec![0; connection.unread_bytes()];
    connection.take_unread(&mut unread);
    unread
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    for version in VERSIONS {
        let (client, server) = connected(version, 1);
        assert_eq!(client.negotiated().protocol_version(), Some(version.version));
        assert_eq!(server.negotiated().protocol_version(), Some(version.version));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn plaintext_arrives_at_any_split(
        bytes in 0_usize..60_000,
        record_bytes in 1_usize..=1 << 14,
        piece_bytes in 1_usize..30_000,
        is_from_client in any::<bool>(),
        version in prop_oneof![Just(VERSIONS[0]), Just(VERSIONS[1])],
    ) {
        // At most 200 records and 6000 pieces: more would take too long.
        let (record_bytes, piece_bytes) = (record_bytes.max(bytes / 100), piece_bytes.max(bytes / 1000));
        let (client, server) = connected(version, usize::MAX);
        let (mut from, mut to) = if is_from_client { (client, server) } else { (server, client) };
        let (sent, mut records) = (pattern(bytes), Vec::new());
        from.encrypt(&sent, record_bytes, &mut records).unwrap();
        prop_assert_eq!(receive(&mut to, &records, piece_bytes).unwrap(), sent);
        prop_assert!(!to.has_peer_closed());
        let mut end = Vec::new();
        from.close(&mut end);
        prop_assert_eq!(receive(&mut to, &end, piece_bytes).unwrap(), b"");
        prop_assert!(to.has_peer_closed());
        // The other direction goes on.
        let mut answer = Vec::new();
        to.encrypt(b"late", 1 << 14, &mut answer).unwrap();
        prop_assert_eq!(receive(&mut from, &answer, piece_bytes).unwrap(), b"late");
    }
}

#[test]
fn bytes_after_the_end_of_a_handshake_are_kept() {
    for version in VERSIONS {
        let (mut client, mut server) = unconnected(version);
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        client.handshake(&[], &mut to_server).unwrap();
        loop {
            let is_last = !client.is_handshaking();
            if is_last {
                client.encrypt(b"at once", 1 << 14, &mut to_server).unwrap();
            }
            server.handshake(&take(&mut to_server), &mut to_client).unwrap();
            if is_last {
                break;
            }
            client.handshake(&take(&mut to_client), &mut to_server).unwrap();
        }
        assert!(!server.is_handshaking());
        // The bytes are kept as plaintext, or as a record that is not decrypted yet.
        let mut plain = [0; 7];
        let kept = server.take_kept_plaintext(&mut plain);
        let mut all = plain[..kept].to_vec();
        if all.is_empty() {
            let mut unread = take_unread(&mut server);
            let mut plain = vec![0; unread.len()];
            let decrypted = server.decrypt(&mut unread, &mut plain, &mut Vec::new());
            all.extend_from_slice(&plain[..decrypted.unwrap()]);
        }
        assert_eq!(all, b"at once");
    }
}

#[test]
fn after_a_tampered_record_all_calls_fail_and_only_one_alert_is_sent() {
    for version in VERSIONS {
        let (mut client, mut server) = connected(version, usize::MAX);
        let mut records = Vec::new();
        client.encrypt(b"a request", 1 << 14, &mut records).unwrap();
        *records.last_mut().unwrap() ^= 1;
        let (mut plain, mut alert) = (vec![0; records.len()], Vec::new());
        let failed = server.decrypt(&mut records, &mut plain, &mut alert);
        assert_eq!(failed, Err(rustls::Error::DecryptError));
        assert!(!alert.is_empty());
        let mut more = Vec::new();
        assert_eq!(server.encrypt(b"x", 1, &mut more), Err(rustls::Error::DecryptError));
        assert_eq!(
            server.decrypt(&mut [0; 5], &mut plain, &mut more),
            Err(rustls::Error::DecryptError)
        );
        server.close(&mut more);
        assert!(more.is_empty(), "an alert was sent already");
        let received = receive(&mut client, &alert, usize::MAX);
        assert!(matches!(received, Err(rustls::Error::AlertReceived(_))), "{received:?}");
    }
}

#[test]
fn plaintext_before_a_tampered_record_is_returned() {
    for version in VERSIONS {
        let (mut client, mut server) = connected(version, usize::MAX);
        let mut records = Vec::new();
        client.encrypt(b"an answer", 1 << 14, &mut records).unwrap();
        client.encrypt(b"and more", 1 << 14, &mut records).unwrap();
        *records.last_mut().unwrap() ^= 1;
        let (mut plain, mut alert) = (vec![0; records.len()], Vec::new());
        assert_eq!(server.decrypt(&mut records, &mut plain, &mut alert), Ok(9));
        assert_eq!(&plain[..9], b"an answer");
        let failed = rustls::Error::DecryptError;
        assert!(server.failure() == Some(&failed) && !alert.is_empty());
        assert_eq!(server.decrypt(&mut [], &mut plain, &mut alert), Err(failed));
    }
}

#[test]
fn a_partial_record_is_kept_until_it_is_complete() {
    let (mut client, mut server) = connected(&TLS13, usize::MAX);
    let mut records = Vec::new();
    client.encrypt(b"a request", 1 << 14, &mut records).unwrap();
    let (head, rest) = records.split_at(7);
    assert_eq!(receive(&mut server, head, usize::MAX).unwrap(), b"");
    assert_eq!(take_unread(&mut server), head);
    server.incoming = head.to_vec();
    assert_eq!(receive(&mut server, rest, usize::MAX).unwrap(), b"a request");
    assert_eq!(server.unread_bytes(), 0);
}

#[test]
fn errors_for_which_rustls_has_no_alert_cause_an_alert() {
    let long_hello = [22, 3, 1, 0, 5, 1, 1, 0, 0, 0]; // a ClientHello of 64 KiB begins
    let hello_and_more = [long_hello, [22, 3, 1, 0, 9, 0, 0, 0, 0, 0]].concat(); // and a part of the next record
    let warnings = [21, 3, 3, 0, 2, 1, 90].repeat(100); // more alerts of level `warning` than rustls accepts
    for invalid in [&long_hello[..], &hello_and_more, &warnings] {
        let (mut client, mut server) = unconnected(&TLS12);
        let mut alert = Vec::new();
        client.handshake(&[], &mut Vec::new()).unwrap();
        let failed = server.handshake(invalid, &mut alert);
        assert!(failed.is_err());
        let mut more = Vec::new();
        assert_eq!(server.handshake(invalid, &mut more), failed);
        server.close(&mut more);
        assert!(more.is_empty(), "the alert is the last that is sent: {more:?}");
        let received = client.handshake(&alert, &mut Vec::new());
        assert_eq!(
            received,
            Err(rustls::Error::AlertReceived(AlertDescription::DecodeError))
        );
    }
}

fn too_long_error() -> rustls::Error {
    rustls::Error::General(String::from("a message of the handshake is too long"))
}

/// Almost the longest ticket that rustls accepts: its message may have 65,535 bytes.
const TICKET_BYTES_MAX: usize = 65_470;

#[test]
fn a_long_message_after_the_handshake_may_come_in_pieces() {
    for piece_bytes in [1000, 10_000, 70_000] {
        let (mut client, mut server, mut records) = connected_with_ticket(TICKET_BYTES_MAX, None);
        server.encrypt(b"an answer", 1 << 14, &mut records).unwrap();
        // The pieces may go to the connection's own buffer and to one of the caller in turn.
        for (number, piece) in records.chunks(piece_bytes).enumerate() {
            if number % 2 == 0 {
                client.decrypt_keeping_plaintext(piece, &mut Vec::new()).unwrap();
                continue;
            }
            let mut received = [&take_unread(&mut client), piece].concat();
            let mut plain = vec![0; received.len()];
            let bytes = client.decrypt(&mut received, &mut plain, &mut Vec::new()).unwrap();
            client.kept_plaintext.extend_from_slice(&plain[..bytes]);
        }
        assert_eq!(
            (&client.kept_plaintext[..], client.unread_bytes()),
            (&b"an answer"[..], 0)
        );
    }
}

#[test]
fn a_message_after_the_handshake_in_tiny_records_is_bounded() {
    let (mut client, _, records) = connected_with_ticket(TICKET_BYTES_MAX, Some(32));
    let mut alert = Vec::new();
    let mut pieces = records.chunks(1000);
    let failed = pieces.find_map(|piece| client.decrypt_keeping_plaintext(piece, &mut alert).err());
    assert_eq!(failed, Some(too_long_error()));
    assert!(client.held_bytes() <= HANDSHAKE_BYTES_MAX + 1000 && !alert.is_empty());
}

/// [`HANDSHAKE_BYTES_MAX`] is enough for the longest message that rustls accepts, but not if each byte of the message
/// comes in a record of its own.
#[test]
fn a_handshake_in_tiny_records_is_bounded() {
    let (mut client, _) = unconnected(&TLS13);
    client.handshake(&[], &mut Vec::new()).unwrap();
    let server_hello = [&[2, 0, 0xff, 0xff][..], &[0; 0xffff]].concat();
    let records: Vec<_> = server_hello.iter().flat_map(|byte| [22, 3, 3, 0, 1, *byte]).collect();
    let mut alert = Vec::new();
    let mut failures = records.chunks(6 * 1024).enumerate().filter_map(|(number, chunk)| {
        let failed = client.handshake(chunk, &mut alert).err()?;
        Some((number * 6 * 1024, failed))
    });
    let (accepted, error) = failures.next().expect("a handshake without an end was accepted");
    assert_eq!(error, too_long_error());
    assert!(accepted <= HANDSHAKE_BYTES_MAX, "{accepted} bytes were accepted");
    drop(failures);
    assert!(!alert.is_empty());
}

/// No close_notify is sent: it would make the stream look complete, without the bytes that were to be encrypted.
#[test]
fn exhausted_keys_end_a_connection_uncleanly() {
    let (mut client, mut server) = tls12_pair_with_key_limit(4); // the first record is the Finished of the handshake
    for _ in 0..3 {
        let mut records = Vec::new();
        server.encrypt(b"x", 1, &mut records).unwrap();
        assert_eq!(receive(&mut client, &records, usize::MAX).unwrap(), b"x");
    }
    let mut more = Vec::new();
    assert_eq!(server.encrypt(b"x", 1, &mut more), Err(rustls::Error::EncryptError));
    server.close(&mut more);
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn an_error_found_while_sending_causes_an_alert() {
    for version in VERSIONS {
        let (mut client, mut server) = connected(version, usize::MAX);
        let mut records = Vec::new();
        client.encrypt(b"a request", 1 << 14, &mut records).unwrap();
        *records.last_mut().unwrap() ^= 1;
        server.incoming = records;
        let mut alert = Vec::new();
        assert_eq!(server.encrypt(b"x", 1, &mut alert), Err(rustls::Error::DecryptError));
        let received = receive(&mut client, &alert, usize::MAX);
        assert!(matches!(received, Err(rustls::Error::AlertReceived(_))), "{received:?}");
    }
}
