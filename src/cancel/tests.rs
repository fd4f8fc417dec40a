use super::*;
use crate::addr::ServerAddr;
use crate::dial::TEST_CONNECT;
use crate::pool::ServerSpec;

fn target(port: u16) -> CancelTarget {
    let address = ServerAddr::new(([127, 0, 0, 1], port).into());
    let label: Arc<str> = address.to_string().into();
    let spec = ServerSpec {
        identity: Arc::clone(&label),
        label,
        address,
        resolved_from: None,
    };
    CancelTarget {
        server: Arc::new(Server::new(spec, false)),
        pool: "p".into(),
        connect: TEST_CONNECT,
    }
}

fn ports(targets: &[CancelTarget]) -> Vec<u16> {
    targets
        .iter()
        .filter_map(|target| target.server.spec().address.port())
        .collect()
}

fn key(number: u8) -> CancelKey {
    CancelKey::new(&[0, 0, 0, number, 1, 2, 3, 4]).unwrap()
}

fn client(number: u8) -> ClientHost {
    ClientHost::Ip([192, 0, 2, number].into())
}

#[test]
fn a_key_finds_its_server_while_the_session_is_open() {
    let table = Arc::<CancelTable>::default();
    let port_for = |number| {
        table
            .server_of(&key(number))
            .and_then(|target| target.server.spec().address.port())
    };
    let (first, second) = (table.enter_key(key(1), target(1)), table.enter_key(key(2), target(2)));
    assert_eq!((port_for(1), port_for(2), port_for(3)), (Some(1), Some(2), None));
    let again = table.enter_key(key(1), target(3));
    drop(first);
    assert_eq!(port_for(1), Some(3), "the entry of the later session stays");
    drop((second, again));
    assert!(table.sessions.lock().by_key.is_empty());
}

#[test]
fn a_client_without_a_key_finds_at_most_eight_servers_of_its_sessions() {
    let (table, listener, other) = (Arc::<CancelTable>::default(), Arc::from("l"), Arc::from("m"));
    let targets: Vec<_> = (1..=9).map(target).collect();
    let enter = |target: &CancelTarget| table.enter_client(&listener, client(1), target.clone());
    let [one, two] = [&targets[0], &targets[1]];
    let mut entries = vec![enter(two), enter(one), enter(two)];
    let found = ports(&table.servers_of(&listener, client(1)));
    assert_eq!(found, [2, 1], "the server with most sessions first");
    assert!(table.servers_of(&listener, client(2)).is_empty());
    assert!(table.servers_of(&other, client(1)).is_empty());
    entries.extend(targets.iter().map(enter));
    assert_eq!(table.servers_of(&listener, client(1)).len(), SERVERS_MAX);
    drop(entries);
    assert!(table.sessions.lock().by_client.is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_known_key_are_limited_per_second() {
    let (table, listener) = (CancelTable::default(), Arc::from("l"));
    let admit = |number| table.admit(&listener, client(number), Instant::now());
    assert!(admit(1) && admit(1) && !admit(1), "two per client");
    assert!((2..6).all(|number| admit(number) && admit(number)));
    assert!(!admit(6), "ten per listener");
    assert!(
        table.admit(&Arc::from("m"), client(1), Instant::now()),
        "each listener has limits of its own"
    );
    tokio::time::advance(RATE_WINDOW).await;
    assert!(admit(6) && admit(1));
}
