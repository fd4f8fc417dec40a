use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, duplex, sink, split};
use tokio::net::TcpListener;

use super::naming::SentinelAnswers;
use super::*;

/// Checks a server that sends `answer`, whatever it is asked, and has Sentinels that send the answers `sentinels`. In
/// these, `PORT` stands for the port of the server.
async fn checked(answer: &str, sentinels: &[&str]) -> Result<CheckPass, CheckFailure> {
    let address = serve(answer).await;
    let mut group = SentinelGroup {
        addresses: Vec::new(),
        master: "orders".into(),
        login: None,
    };
    for sentinel in sentinels {
        let answer = sentinel.replace("PORT", &address.port().to_string());
        group.addresses.push(serve(&answer).await);
    }
    let check = RedisCheck {
        login: None,
        tls: false,
        sentinels: (!sentinels.is_empty()).then_some(group),
    };
    let target = CheckTarget::for_test(address);
    RedisProbe::new(Arc::new(check), target).learn_facts().await
}

async fn serve(answer: &str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.to_owned();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(answer.as_bytes()).await; // the check need not read all of it
        let _ = stream.read_to_end(&mut Vec::new()).await; // until the check has closed
    });
    address
}

/// The replies of a primary to `PING`, `ROLE`, `INFO replication` and `INFO server`.
const PRIMARY: &str = "+PONG\r\n*3\r\n$6\r\nmaster\r\n:7\r\n*0\r\n$13\r\nrole:master\r\n\r\n$10\r\nrun_id:abc\r\n";

/// [`Stream::Lineage`] keeps the first 32 of the 40 hexadecimal digits of a replication ID.
const REPLICATION_ID: u128 = 0xab << 64;

/// The replies of a replica whose link to its primary has this state.
fn replica(state: &str) -> String {
    let role = format!("*5\r\n+slave\r\n+10.0.0.1\r\n:6379\r\n+{state}\r\n:7\r\n");
    let info = format!("master_last_io_seconds_ago:4\r\nmaster_replid:{REPLICATION_ID:040x}\r\n");
    format!("+PONG\r\n{role}${}\r\n{info}\r\n$0\r\n\r\n", info.len())
}

/// The answer of a Sentinel that names this port of 127.0.0.1, with this run id, in this epoch.
fn sentinel(port: &str, run_id: &str, epoch: u32) -> String {
    sentinel_in_failover(port, port, run_id, epoch)
}

/// As [`sentinel`], but the reply to `SENTINEL MASTER` still has the port and run id of the old primary.
fn sentinel_in_failover(port: &str, old_port: &str, old_run_id: &str, epoch: u32) -> String {
    let pairs = ["ip", "127.0.0.1", "port", old_port, "runid", old_run_id, "config-epoch"];
    let pairs: String = pairs.iter().map(|word| format!("+{word}\r\n")).collect();
    format!("+PONG\r\n*2\r\n+127.0.0.1\r\n+{port}\r\n*8\r\n{pairs}+{epoch}\r\n")
}

fn unfit_reason(result: Result<CheckPass, CheckFailure>) -> String {
    unfit_reason_and_role(result).0
}

/// The reason why the server must not be used, and its role.
fn unfit_reason_and_role(result: Result<CheckPass, CheckFailure>) -> (String, Option<Role>) {
    match result {
        Err(CheckFailure::Unfit { reason, facts }) => (reason, facts.role),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_role_of_a_server_and_the_lag_of_a_replica_are_read() {
    let primary = checked(PRIMARY, &[]).await.unwrap().facts;
    assert_eq!((primary.role, primary.lag), (Some(Role::Primary), None));
    let follower = checked(&replica("connected"), &[]).await.unwrap().facts;
    assert_eq!(follower.stream, Some(Stream::Lineage(REPLICATION_ID >> 32)));
    assert_eq!(
        (follower.role, follower.lag),
        (Some(Role::Replica), Some(Duration::from_secs(4)))
    );
}

#[tokio::test]
async fn a_disconnected_replica_and_a_sentinel_are_unfit() {
    let (reason, role) = unfit_reason_and_role(checked(&replica("connecting"), &[]).await);
    assert_eq!(reason, "the link of the replica to its primary is down: connecting");
    assert_eq!(role, Some(Role::Replica));
    let (reason, role) = unfit_reason_and_role(checked("+PONG\r\n*1\r\n+sentinel\r\n-ERR\r\n", &[]).await);
    assert_eq!(reason, "the server is a Sentinel, it has no data");
    assert_eq!(role, Some(Role::Replica), "it is no primary either");
}

#[tokio::test]
async fn a_replica_that_refuses_ping_is_still_known_as_a_replica() {
    for refusal in ["-LOADING Redis is loading", "-MASTERDOWN Link with MASTER is down"] {
        let answer = replica("sync").replace("+PONG", refusal);
        let (reason, role) = unfit_reason_and_role(checked(&answer, &[]).await);
        assert_eq!(reason, "the link of the replica to its primary is down: sync");
        assert_eq!(role, Some(Role::Replica));
        // For a primary, the result is the refusal.
        let answer = PRIMARY.replace("+PONG", refusal);
        match checked(&answer, &[]).await {
            Err(CheckFailure::Refused {
                reason,
                accepts_sessions: false,
            }) => assert_eq!(format!("-{reason}"), refusal),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_refused_ping_shows_whether_sessions_are_accepted_and_a_denied_role_does_not_fail_the_check() {
    for (answer, accepts) in [
        ("-NOAUTH Authentication required.\r\n", true),
        ("-ERR max number of clients reached\r\n", true),
        ("-LOADING Redis is loading the dataset in memory\r\n", false),
        ("-MASTERDOWN Link with MASTER is down\r\n", false),
    ] {
        // Another product than Redis may not know `ROLE` and `INFO`.
        match checked(&format!("{answer}-ERR unknown\r\n-ERR unknown\r\n"), &[]).await {
            Err(CheckFailure::Refused {
                reason,
                accepts_sessions,
            }) => {
                assert_eq!(format!("-{reason}\r\n"), answer);
                assert_eq!(accepts_sessions, accepts, "{answer}");
            }
            other => panic!("{answer}: {other:?}"),
        }
    }
    // A user that may not ask for the role can still be checked.
    let denied = "+PONG\r\n-NOPERM this user has no permissions\r\n-NOPERM\r\n";
    let pass = checked(denied, &[]).await.unwrap();
    let without_numbers = ServerFacts {
        numbering: Numbering::None,
        ..ServerFacts::default()
    };
    assert_eq!(pass.facts, without_numbers);
    assert_eq!(pass.role_denied.as_deref(), Some("NOPERM this user has no permissions"));
}

#[tokio::test]
async fn another_protocol_and_an_endless_answer_fail_the_check() {
    let endless = format!("+PONG\r\n${}\r\n{}", 1 << 30, "x".repeat(128 << 10));
    for answer in ["220 smtp\r\n", "+HELLO\r\n", &endless] {
        let failed = checked(answer, &[]).await;
        assert!(matches!(failed, Err(CheckFailure::Io(_))), "{answer:.20}: {failed:?}");
    }
}

#[tokio::test]
async fn a_reply_byte_by_byte_fails_the_check() {
    let (ours, theirs) = duplex(1);
    let (mut from, mut to) = split(theirs);
    let answer = format!("+PONG\r\n*9999\r\n{}", ":1\r\n".repeat(9999));
    let mut pipeline = Pipeline::new(None);
    pipeline.add(&[b"ROLE"]);
    let server = async {
        let mut unread = sink();
        // Both end when the check closes its end.
        let _ = tokio::join!(copy(&mut from, &mut unread), to.write_all(answer.as_bytes()));
    };
    let (replies, ()) = tokio::join!(pipeline.send(Box::new(ours)), server);
    assert_eq!(replies.unwrap_err().reason(), "the replies came in more than 256 parts");
}

#[tokio::test]
async fn the_sentinel_with_the_highest_epoch_names_the_primary() {
    let (this, other) = (sentinel("PORT", "", 5), sentinel("1", "", 4));
    let named = checked(PRIMARY, &[&other, &this]).await.unwrap().facts;
    assert_eq!((named.role, named.timeline), (Some(Role::Primary), Some(5)));
    assert_eq!(named.numbering, Numbering::Epoch { is_agreed: false }, "they differ");
    let (this, other) = (sentinel("PORT", "", 4), sentinel("1", "", 5));
    let (reason, role) = unfit_reason_and_role(checked(PRIMARY, &[&this, &other]).await);
    assert_eq!(
        reason,
        "not the primary of the Sentinels: they name 127.0.0.1:1, in epoch 5"
    );
    assert_eq!(role, Some(Role::Replica), "lets another server become the primary");
}

#[tokio::test]
async fn a_primary_with_another_address_at_the_sentinels_is_matched_by_run_id() {
    let named = checked(PRIMARY, &[&sentinel("1", "abc", 5)]).await.unwrap().facts;
    let agreed = Numbering::Epoch { is_agreed: true };
    assert_eq!((named.timeline, named.numbering), (Some(5), agreed));
    let reason = unfit_reason(checked(PRIMARY, &[&sentinel("1", "abcd", 5)]).await);
    assert!(reason.starts_with("not the primary of the Sentinels"), "{reason}");
}

#[tokio::test]
async fn during_a_failover_the_promoted_server_is_the_primary() {
    let promoted = sentinel_in_failover("PORT", "1", "abc", 5);
    assert_eq!(checked(PRIMARY, &[&promoted]).await.unwrap().facts.timeline, Some(5));
    let old = sentinel_in_failover("1", "PORT", "abc", 5);
    let reason = unfit_reason(checked(PRIMARY, &[&old]).await);
    assert_eq!(
        reason,
        "not the primary of the Sentinels: they name 127.0.0.1:1, in epoch 5"
    );
}

#[tokio::test]
async fn the_highest_known_epoch_counts_while_a_sentinel_is_silent() {
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap(); // the kernel accepts connections, but nothing answers
    let (earlier, later) = (sentinel("1", "", 5), sentinel("2", "", 4));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let group = SentinelGroup {
        addresses: vec![listener.local_addr().unwrap(), hung.local_addr().unwrap()],
        master: "orders".into(),
        login: None,
    };
    let target = CheckTarget {
        timeout: Duration::from_secs(1),
        ..CheckTarget::for_test("127.0.0.1:3".parse().unwrap())
    };
    let serve = async {
        for answer in [earlier, later] {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    };
    let sentinels = Sentinels::new(group, &target);
    let ask = async {
        for _ in 0..2 {
            let Naming { primary, is_agreed, .. } = sentinels.ask(None, Instant::now()).await.unwrap();
            assert_eq!((primary.port, primary.epoch, is_agreed), (1, 5, false));
        }
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn if_no_sentinel_names_a_primary_no_server_is_the_primary() {
    let reason = unfit_reason(checked(PRIMARY, &["+PONG\r\n*-1\r\n-ERR No such master with that name\r\n"]).await);
    let expected = "no Sentinel has said which server is the primary: 127.0.0.1:";
    assert!(reason.starts_with(expected), "{reason}");
    assert!(reason.ends_with(": ERR No such master with that name"), "{reason}");
    // About a replica, the Sentinels are not asked.
    let follower = checked(&replica("connected"), &["-ERR\r\n"]).await.unwrap().facts;
    assert_eq!(follower.role, Some(Role::Replica));
}

/// A server that a Sentinel names as the primary: its port, and the epoch.
fn named((port, epoch): (u16, u32)) -> NamedPrimary {
    NamedPrimary {
        host: "10.0.0.1".to_owned(),
        port,
        run_id: String::new(),
        epoch,
    }
}

/// What three Sentinels say together after each of these checks. A check: its time in seconds, and for each Sentinel
/// that answers, the port and epoch that it names.
fn naming<const N: usize>(checks: [(u64, &[(u16, u32)]); N]) -> [Option<Naming>; N] {
    let (mut answers, began) = (SentinelAnswers::default(), Instant::now());
    checks.map(|(second, reported)| {
        let reported = reported.iter().copied().map(named).collect();
        answers.update(reported, 3, began + Duration::from_secs(second))
    })
}

/// As `naming`, but returns the port and epoch of the primary that counts, and whether the Sentinels agree on it.
fn primaries<const N: usize>(checks: [(u64, &[(u16, u32)]); N]) -> [Option<(u16, u32, bool)>; N] {
    let summary = |naming: Naming| (naming.primary.port, naming.primary.epoch, naming.is_agreed);
    naming(checks).map(|naming| naming.map(summary))
}

#[test]
fn a_majority_lasts_even_if_only_one_of_its_sentinels_knows_the_run_id() {
    let with_run_id = |named: NamedPrimary, run_id: &str| NamedPrimary {
        run_id: run_id.to_owned(),
        ..named
    };
    let (mut answers, began) = (SentinelAnswers::default(), Instant::now());
    let mut update = |second, reported| {
        let now = began + Duration::from_secs(second);
        answers.update(reported, 3, now).unwrap()
    };
    update(0, vec![named((9, 7)), named((9, 7)), named((9, 7))]);
    // All three were set up anew, and one of them is down. Of the others, only one knows the run id.
    let known = || with_run_id(named((1, 1)), "abc");
    for second in [10, 20, 30] {
        assert_eq!(update(second, vec![known(), named((1, 1))]).primary.port, 9);
    }
    for (second, reported) in [(40, [named((1, 1)), known()]), (50, [known(), named((1, 1))])] {
        let naming = update(second, reported.into());
        assert_eq!((naming.primary, naming.is_agreed), (known(), true));
    }
}

#[test]
fn a_primary_by_majority_stays_fit_while_one_sentinel_is_wrong_and_another_one_is_down() {
    let checks: [(u64, &[(u16, u32)]); 6] = [
        (0, &[(1, 4), (9, 99)]), // the third one does not answer, and no majority has named a primary yet
        (1, &[(1, 4), (9, 99), (1, 4)]),
        (2, &[(1, 4), (9, 99)]),
        (3, &[(1, 4)]),
        (4, &[(9, 99)]), // only the wrong one answers
        (5, &[(2, 5), (2, 5)]),
    ];
    let target = |port: u16| CheckTarget::for_test(format!("10.0.0.1:{port}").parse().unwrap());
    let namings = naming(checks).map(Option::unwrap);
    let epochs_of_1 = namings
        .each_ref()
        .map(|naming| naming.epoch_of(&target(1), "").map(|(epoch, _)| epoch));
    assert_eq!(epochs_of_1, [None, Some(4), Some(4), Some(4), None, None]);
    assert_eq!(namings[5].epoch_of(&target(2), ""), Some((5, false)), "a failover");
}

#[test]
fn a_partitioned_sentinel_does_not_restore_an_old_primary() {
    let checks: [(u64, &[(u16, u32)]); 7] = [
        (0, &[]),
        (1, &[(1, 4), (1, 4), (1, 4)]),
        (2, &[(1, 4), (2, 5)]), // one Sentinel tells of a failover
        (3, &[(1, 4)]),
        (4, &[(1, 4), (1, 4)]), // that one is silent, and the two others have not heard of the failover yet
        (5, &[(1, 4), (2, 5), (2, 5)]),
        (6, &[]),
    ];
    let promoted = Some((2, 5, false));
    let expected = [
        None,
        Some((1, 4, true)),
        promoted,
        promoted,
        promoted,
        promoted,
        promoted,
    ];
    assert_eq!(primaries(checks), expected);
}

#[test]
fn the_majority_of_sentinels_counts_at_once() {
    let checks: [(u64, &[(u16, u32)]); 7] = [
        (0, &[(1, 4), (9, 99), (1, 4)]), // after a start
        (1, &[(1, 4), (9, 99), (1, 4)]),
        (2, &[(2, 5), (9, 99), (2, 5)]), // after a failover
        (3, &[(2, 5), (2, 5)]),          // the third one does not answer
        (4, &[(2, 0), (9, 99), (2, 5)]), // one of them was set up anew
        (33, &[(2, 0), (9, 99), (2, 5)]),
        (34, &[(2, 0), (9, 99), (2, 5)]),
    ];
    let promoted = Some((2, 5, false));
    let expected = [
        Some((1, 4, false)),
        Some((1, 4, false)),
        promoted,
        promoted,
        promoted,
        Some((2, 5, true)), // the majority has named it since second 2
        Some((2, 5, true)),
    ];
    assert_eq!(primaries(checks), expected);
}

#[test]
fn a_lower_epoch_counts_if_all_sentinels_name_it_or_most_of_them_for_30_seconds() {
    let checks: [(u64, &[(u16, u32)]); 11] = [
        (0, &[(2, 5), (2, 5), (2, 5)]),
        (1, &[(2, 0), (2, 0), (2, 0)]), // set up anew
        (2, &[(1, 1), (1, 1), (2, 0)]),
        (10, &[(2, 7), (2, 7), (2, 7)]),
        (11, &[(1, 0), (1, 0)]), // set up anew, and one Sentinel is gone for good
        (39, &[(1, 0)]),         // only one answers
        (40, &[(1, 0), (1, 0)]),
        (41, &[(3, 1), (1, 0)]), // the two name different servers
        (71, &[(3, 1), (3, 1)]),
        (100, &[(3, 1), (3, 1)]),
        (101, &[(3, 1), (3, 1)]),
    ];
    let kept = Some((2, 7, false));
    let expected = [
        Some((2, 5, true)),
        Some((2, 0, true)),
        Some((1, 1, false)),
        Some((2, 7, true)),
        kept,
        kept,
        kept,
        kept,
        kept,
        kept,
        Some((3, 1, true)),
    ];
    assert_eq!(primaries(checks), expected);
}
