use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// The server's end of a conversation. It sends the packets that the test gives it.
struct PlaybackServer(DuplexStream);

impl PlaybackServer {
    async fn send(&mut self, sequence: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let packet = [&length[..3], &[sequence], payload].concat();
        self.0.write_all(&packet).await.unwrap();
    }

    /// The payload of a packet of less than 64 KiB.
    async fn receive(&mut self) -> Vec<u8> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).await.unwrap();
        let mut payload = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
        self.0.read_exact(&mut payload).await.unwrap();
        payload
    }
}

fn conversation() -> (Packets, PlaybackServer) {
    conversation_over(false)
}

fn conversation_over(is_unix_socket: bool) -> (Packets, PlaybackServer) {
    let (ours, theirs) = duplex(64 << 10);
    (Packets::new(Box::new(ours), is_unix_socket), PlaybackServer(theirs))
}

/// The server's random challenge.
const SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";

/// The server accepts the login.
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
/// With caching_sha2_password: the server remembers the password, and the proof is right. [`OK`] follows.
const FAST_LOGIN_OK: &[u8] = &[1, 3];
/// With caching_sha2_password: the server does not remember the password, and asks for it.
const PASSWORD_REQUIRED: &[u8] = &[1, 4];

/// A greeting as MySQL 8.0 sends it if it offers no TLS. `plugin` is the one that the server proposes for the login.
fn greeting(plugin: &str) -> Vec<u8> {
    let (first, second) = SCRAMBLE.split_at(8);
    let mut greeting = b"\x0a8.0.39\0\x08\0\0\0".to_vec();
    greeting.extend_from_slice(first);
    // A zero byte, capabilities (low half), character set, status, capabilities (high half), length of the scramble.
    greeting.extend_from_slice(b"\0\xff\xf7\xff\x02\0\xff\xdf\x15");
    greeting.extend_from_slice(&[0; 10]);
    greeting.extend_from_slice(second);
    greeting.push(0);
    greeting.extend_from_slice(plugin.as_bytes());
    greeting.push(0);
    greeting
}

/// The result of a login as `checker` with the password `secret`.
async fn logged_in(packets: Packets) -> Result<Packets, MysqlFailure> {
    let account = Account {
        user: "checker",
        password: b"secret".to_vec(),
    };
    log_in(packets, &account, None).await
}

#[tokio::test]
async fn a_cached_password_is_proved_without_sending_it() {
    let (packets, mut server) = conversation();
    let serve = async {
        server.send(0, &greeting("caching_sha2_password")).await;
        let response = server.receive().await;
        assert_eq!(&response[32..40], b"checker\0"); // after the 32 bytes of `response_head`
        assert_eq!(response[40], 32, "the length of a proof with SHA-256");
        assert!(response.ends_with(b"caching_sha2_password\0"));
        server.send(2, FAST_LOGIN_OK).await;
        server.send(3, OK).await;
    };
    let (login, ()) = tokio::join!(logged_in(packets), serve);
    login.unwrap();
}

#[tokio::test]
async fn over_a_unix_socket_the_password_itself_is_sent() {
    let (packets, mut server) = conversation_over(true);
    let serve = async {
        server.send(0, &greeting("caching_sha2_password")).await;
        server.receive().await;
        server.send(2, PASSWORD_REQUIRED).await;
        assert_eq!(server.receive().await, b"secret\0");
        server.send(4, OK).await;
    };
    let (login, ()) = tokio::join!(logged_in(packets), serve);
    login.unwrap();
}

#[tokio::test]
async fn without_tls_the_password_is_encrypted_with_the_public_key_of_the_server() {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let pem = pem_of(public.as_ref());
    let key = OaepPrivateDecryptingKey::new(key).unwrap();
    let (packets, mut server) = conversation();
    let serve = async {
        server.send(0, &greeting("mysql_native_password")).await;
        assert_eq!(server.receive().await[40], 20, "the length of a proof with SHA-1");
        let switch = [&b"\xfecaching_sha2_password\0"[..], SCRAMBLE, b"\0"].concat(); // to the plugin of the user
        server.send(2, &switch).await;
        assert_eq!(server.receive().await.len(), 32, "a proof with SHA-256");
        server.send(4, PASSWORD_REQUIRED).await;
        assert_eq!(server.receive().await, [2], "a request for the key");
        server.send(6, &[b"\x01", pem.as_bytes()].concat()).await;
        let encrypted = server.receive().await;
        let mut plain = [0; 256];
        let plain = key.decrypt(&OAEP_SHA1_MGF1SHA1, &encrypted, &mut plain, None).unwrap();
        let password: Vec<u8> = plain.iter().zip(SCRAMBLE).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(password, b"secret\0");
        server.send(8, OK).await;
    };
    let (login, ()) = tokio::join!(logged_in(packets), serve);
    login.unwrap();
}

/// A public key in DER, as PEM.
fn pem_of(key: &[u8]) -> String {
    use std::fmt::Write;
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for (index, three) in key.chunks(3).enumerate() {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let character = match digit <= three.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            };
            pem.push(character);
        }
        if index % 16 == 15 {
            pem.push('\n');
        }
    }
    writeln!(pem, "\n-----END PUBLIC KEY-----").unwrap();
    pem
}

#[tokio::test]
async fn malformed_answers_to_a_login_fail_without_a_panic() {
    let switch = [&b"\xfemysql_native_password\0"[..], SCRAMBLE, b"\0"].concat();
    for answers in [
        vec![switch.clone(), switch],                       // only one switch is allowed
        vec![b"\xfemysql_native_password\0short".to_vec()], // a switch whose scramble is too short
        vec![Vec::new()],
        vec![PASSWORD_REQUIRED.to_vec()], // belongs to caching_sha2_password, which is not in use
    ] {
        let (packets, mut server) = conversation();
        let serve = async {
            server.send(0, &greeting("mysql_native_password")).await;
            for answer in &answers {
                server.receive().await;
                server.send(2, answer).await;
            }
        };
        let (login, ()) = tokio::join!(logged_in(packets), serve);
        match login {
            Err(MysqlFailure::Io(error)) => assert!(error.to_string().contains("malformed packet"), "{error}"),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("the login succeeded after {answers:?}"),
        }
    }
}

#[tokio::test]
async fn an_unknown_plugin_fails_a_login_with_a_password_but_gets_an_empty_proof_if_there_is_no_password() {
    let switch = [&b"\xfeclient_ed25519\0"[..], SCRAMBLE, b"\0"].concat();
    let (packets, mut server) = conversation();
    let serve = async {
        server.send(0, &greeting("mysql_native_password")).await;
        server.receive().await;
        server.send(2, &switch).await;
    };
    match tokio::join!(logged_in(packets), serve).0 {
        Err(MysqlFailure::Server { code: 1251, message }) => {
            assert!(
                message.starts_with("the user has the plugin client_ed25519"),
                "{message}"
            );
        }
        _ => panic!("expected the failure for an unknown plugin"),
    }
    let (packets, mut server) = conversation();
    let serve = async {
        server.send(0, &greeting("mysql_native_password")).await;
        server.receive().await;
        server.send(2, &switch).await;
        assert_eq!(server.receive().await, b"");
        server.send(4, b"\xff\x15\x04#28000Access denied").await;
    };
    let no_password = Account {
        user: "acequia",
        password: Vec::new(),
    };
    let (login, ()) = tokio::join!(log_in(packets, &no_password, None), serve);
    assert!(matches!(login, Err(MysqlFailure::Server { code: 1045, .. }))); // what the server has sent last
}

#[tokio::test]
async fn an_error_instead_of_the_greeting_is_reported_in_the_servers_words() {
    for (payload, code, text) in [
        (&b"\xff\x10\x04Too many connections"[..], 1040, "Too many connections"),
        (&b"\xff\x15\x04#28000Access denied"[..], 1045, "Access denied"),
    ] {
        let (packets, mut server) = conversation();
        let (login, ()) = tokio::join!(logged_in(packets), server.send(0, payload));
        match login {
            Err(MysqlFailure::Server { code: sent, message }) => assert_eq!((sent, &*message), (code, text)),
            _ => panic!("expected the error: {text}"),
        }
    }
}

#[tokio::test]
async fn other_protocols_and_packets_that_are_too_long_fail() {
    let too_long = "not a MySQL server, or one that sends more than 256 KiB";
    let mut version_9 = greeting("mysql_native_password");
    version_9[0] = 9;
    let length = u8::try_from(version_9.len()).unwrap();
    for (bytes, expected) in [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(), too_long), // as the length of a packet, "SSH" means 4.5 MiB
        (b"\xff\xff\xff\x00".to_vec(), too_long),          // a header with the greatest length, 16 MiB
        (
            [&[length, 0, 0, 0], &version_9[..]].concat(),
            "not a MySQL server: malformed packet",
        ),
    ] {
        let (packets, mut server) = conversation();
        let send = async {
            server.0.write_all(&bytes).await.unwrap();
            drop(server);
        };
        match tokio::join!(logged_in(packets), send).0 {
            Err(MysqlFailure::Io(error)) => assert_eq!(error.to_string(), expected, "{bytes:?}"),
            _ => panic!("expected a failure of the connection: {bytes:?}"),
        }
    }
}

/// A length-encoded string, in the form for lengths up to 250.
fn encode(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// Answers queries. Each element of `answers` is the beginning of a query, and the answer to it as pairs of name and
/// value. In the answer to `SHOW GLOBAL …`, each pair is a row; in any other answer, each pair is a column of the only
/// row. A query that has no element in `answers` gets an answer without pairs.
async fn serve_rows(mut server: PlaybackServer, answers: &[(&str, Vec<(&str, &str)>)]) {
    loop {
        let mut header = [0; 4];
        if server.0.read_exact(&mut header).await.is_err() {
            return;
        }
        let mut request = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
        server.0.read_exact(&mut request).await.unwrap();
        let statement = String::from_utf8_lossy(&request[1..]).into_owned();
        let found = answers.iter().find(|(begin, _)| statement.starts_with(begin));
        let pairs = found.map_or(&[][..], |(_, pairs)| pairs.as_slice());
        let (columns, rows): (Vec<&str>, Vec<Vec<&str>>) = if statement.starts_with("SHOW GLOBAL") {
            let rows = pairs.iter().map(|(name, value)| vec![*name, *value]).collect();
            (vec!["Variable_name", "Value"], rows)
        } else {
            let columns = pairs.iter().map(|(name, _)| *name).collect();
            (columns, vec![pairs.iter().map(|(_, value)| *value).collect()])
        };
        let mut packets = vec![vec![u8::try_from(columns.len()).unwrap()]];
        if !columns.is_empty() {
            packets.extend(columns.iter().map(|name| [encode("").repeat(4), encode(name)].concat()));
            packets.push(b"\xfe\0\0\x02\0".to_vec()); // EOF, after the columns
            packets.extend(
                rows.iter()
                    .map(|row| row.iter().flat_map(|value| encode_value(value)).collect()),
            );
            packets.push(b"\xfe\0\0\x02\0".to_vec()); // EOF, after the rows
        }
        for (sequence, packet) in (1..).zip(packets) {
            server.send(sequence, &packet).await;
        }
    }
}

/// A value of a row. The text `NULL` stands for the value NULL.
fn encode_value(value: &str) -> Vec<u8> {
    if value == "NULL" { vec![0xfb] } else { encode(value) }
}

/// What the check learns from a server that gives these answers ([`serve_rows`]).
async fn status(answers: &[(&str, Vec<(&str, &str)>)]) -> MysqlStatus {
    let (mut packets, server) = conversation();
    let asked = async {
        let status = MysqlStatus::ask(&mut packets).await;
        drop(packets);
        status
    };
    tokio::join!(asked, serve_rows(server, answers)).0.unwrap()
}

/// The answer with the global variables, for [`serve_rows`]: the variables in `on` are `ON`, the others `OFF`.
fn variables<'a>(on: &[&'a str]) -> (&'a str, Vec<(&'a str, &'a str)>) {
    let names = ["read_only", "super_read_only", "wsrep_on"];
    let value = |name| if on.contains(&name) { "ON" } else { "OFF" };
    ("SHOW GLOBAL VARIABLES", names.map(|name| (name, value(name))).to_vec())
}

#[tokio::test]
async fn a_lag_counts_only_while_both_replication_threads_run_and_a_source_only_while_connected() {
    let replica = |io, sql, behind| {
        let row = vec![
            ("Replica_IO_Running", io),
            ("Replica_SQL_Running", sql),
            ("Seconds_Behind_Source", behind),
            ("Source_Server_Id", "3"),
        ];
        [variables(&["read_only"]), ("SHOW REPLICA STATUS", row)]
    };
    for (io, sql, behind, lag) in [
        ("Yes", "Yes", "0", Duration::ZERO),
        ("Yes", "Yes", "7", Duration::from_secs(7)),
        ("Yes", "Yes", "NULL", STOPPED),
        ("Connecting", "Yes", "0", STOPPED),
        ("Yes", "No", "0", STOPPED),
    ] {
        let status = status(&replica(io, sql, behind)).await;
        assert_eq!(status.role, Role::Replica);
        assert_eq!(status.lag, Some(lag), "{io} {sql} {behind}");
        let source = (io == "Yes").then_some(3);
        assert_eq!(status.source, source, "{io} {sql} {behind}");
    }
}

#[tokio::test]
async fn mariadb_is_also_asked_for_replication_connections_that_have_a_name() {
    let row = vec![
        ("Connection_name", "from_a"),
        ("Slave_IO_Running", "Yes"),
        ("Slave_SQL_Running", "Yes"),
        ("Seconds_Behind_Master", "7"),
        ("Master_Server_Id", "3"),
    ];
    let mut of_mariadb = variables(&["read_only"]);
    of_mariadb.1.push(("version", "10.11.6-MariaDB-0+deb12u1-log"));
    let status = status(&[of_mariadb, ("SHOW ALL SLAVES STATUS", row)]).await;
    assert_eq!((status.lag, status.source), (Some(Duration::from_secs(7)), Some(3)));
}

#[tokio::test]
async fn a_server_is_a_primary_unless_it_is_read_only() {
    let mut primary = variables(&[]);
    primary.1.push(("server_id", "4"));
    let primary = status(&[primary]).await;
    assert_eq!((primary.role, primary.source), (Role::Primary, Some(4))); // its source is itself
    assert_eq!(status(&[variables(&["super_read_only"])]).await.role, Role::Replica);
}

#[tokio::test(start_paused = true)]
async fn while_a_replica_reports_no_lag_the_last_known_lag_grows_with_time() {
    let mut memory = Memory::default();
    assert_eq!(memory.lag_now(None), None);
    assert_eq!(memory.lag_now(Some(STOPPED)), Some(STOPPED));
    let seconds = |lag| Some(Duration::from_secs(lag));
    assert_eq!(memory.lag_now(seconds(2)), seconds(2));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(memory.lag_now(Some(STOPPED)), seconds(7));
    assert_eq!(memory.lag_now(None), seconds(7));
    assert_eq!(memory.lag_now(seconds(0)), seconds(0));
}

#[tokio::test]
async fn a_galera_node_must_be_ready_and_in_the_primary_component_and_a_donor_is_used_unless_avoided() {
    let node = |ready, cluster, state| {
        let row = vec![
            ("wsrep_ready", ready),
            ("wsrep_cluster_status", cluster),
            ("wsrep_local_state", state),
        ];
        [variables(&["wsrep_on"]), ("SHOW GLOBAL STATUS", row)]
    };
    for (answers, passes_with_use, passes_with_avoid) in [
        (node("ON", "Primary", "4"), true, true),       // synced
        (node("ON", "Primary", "2"), true, false),      // a donor
        (node("OFF", "Primary", "1"), false, false),    // joining
        (node("ON", "non-Primary", "4"), false, false), // cut off from the primary component
    ] {
        let galera = status(&answers).await.galera;
        assert_eq!(DonorUse::Use.judge(galera.as_ref()).is_ok(), passes_with_use);
        assert_eq!(DonorUse::Avoid.judge(galera.as_ref()).is_ok(), passes_with_avoid);
    }
}
