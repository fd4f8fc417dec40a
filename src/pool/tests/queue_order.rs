//! The order in which waiting clients are served, and which clients get no place in the line.

use std::future::pending;

use tokio::task::yield_now;
use tokio::time::sleep;

use super::queued::{QUEUE, join_or_displace, join_queue_half_closed, limited, live_counts, pick, start_waiting};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_whose_connect_to_a_server_failed_keeps_its_place() {
    let pool = limited(Policy::LeastConn, &[1, 1], Some(QUEUE));
    let (first, second) = (pick(&pool, 0).unwrap(), pick(&pool, 1).unwrap());
    let shared = Arc::clone(&pool);
    let a = tokio::spawn(async move {
        let mut turn = QueueTurn::default();
        let lease = shared
            .wait_for_lease(client(2), &[], &mut turn, pending(), |_| {})
            .await
            .unwrap();
        let tried = [lease.server().id()];
        drop(lease); // the connect failed
        let again = shared.wait_for_lease(client(2), &tried, &mut turn, pending(), |position| {
            assert_eq!(position, 1)
        });
        (again.await, tried[0])
    });
    yield_now().await;
    let (b, c) = (start_waiting(&pool, 3).await, start_waiting(&pool, 4).await);
    drop(first);
    let _b = b.await.unwrap().unwrap();
    assert!(!c.is_finished(), "`a` is before `c`");
    drop(second);
    let (again, tried) = a.await.unwrap();
    assert_ne!(again.unwrap().server().id(), tried);
    let _c = c.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_connect_to_a_server_failed_keeps_its_deadline() {
    let pool = limited(Policy::LeastConn, &[1, 1], Some(QUEUE));
    let (first, _second) = (pick(&pool, 0).unwrap(), pick(&pool, 1).unwrap());
    let (mut turn, began) = (QueueTurn::default(), Instant::now());
    let waiting = pool.wait_for_lease(client(2), &[], &mut turn, pending(), |_| {});
    let (lease, ()) = tokio::join!(waiting, async {
        sleep(QUEUE.timeout / 2).await;
        drop(first);
    });
    let tried = [lease.unwrap().server().id()]; // the connect failed
    let again = pool.wait_for_lease(client(2), &tried, &mut turn, pending(), |_| {});
    assert_eq!(again.await.unwrap_err(), QueueFailure::Timeout);
    assert_eq!(began.elapsed().as_secs(), QUEUE.timeout.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_connect_to_a_server_failed_keeps_its_place_in_a_full_queue() {
    let pool = limited(Policy::LeastConn, &[1, 1], Some(QUEUE));
    let (first, second) = (pick(&pool, 0).unwrap(), pick(&pool, 1).unwrap());
    let mut turn = QueueTurn::default();
    let waiting = pool.wait_for_lease(client(2), &[], &mut turn, pending(), |_| {});
    let (lease, ()) = tokio::join!(waiting, async { drop(first) });
    let lease = lease.unwrap(); // kept, so that the newcomers have to wait
    let mut newcomers = Vec::new();
    for n in 3..6 {
        newcomers.push(start_waiting(&pool, n).await); // until the line is full
    }
    let tried = [lease.server().id()];
    let again = pool.wait_for_lease(client(2), &tried, &mut turn, pending(), |position| {
        assert_eq!(position, 1)
    });
    let (again, ()) = tokio::join!(again, async {
        assert_eq!(pool.queue_len(), 4, "3 newcomers, and the client whose connect failed");
        assert_eq!(
            start_waiting(&pool, 6).await.await.unwrap().unwrap_err(),
            QueueFailure::Full
        );
        drop(second);
    });
    assert_ne!(again.unwrap().server().id(), tried[0]);
    assert_eq!(pool.queue_len(), 3);
}

#[tokio::test(start_paused = true)]
async fn half_closed_clients_are_served_after_the_others() {
    let pool = limited(Policy::LeastConn, &[1], Some(QUEUE));
    let mut lease = pick(&pool, 0).unwrap();
    let (first, second) = (
        join_queue_half_closed(&pool, 1).await,
        join_queue_half_closed(&pool, 2).await,
    );
    let third = join_or_displace(&pool, 3).await;
    for waiting in [third, first, second] {
        drop(lease);
        lease = waiting.await.unwrap().unwrap();
    }
    assert_eq!(pool.queue_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn half_closed_clients_make_room_in_a_full_queue() {
    let pool = limited(Policy::LeastConn, &[1], Some(QUEUE));
    let mut lease = pick(&pool, 0).unwrap();
    let (first, second) = (
        join_queue_half_closed(&pool, 1).await,
        join_queue_half_closed(&pool, 2).await,
    );
    let (third, fourth) = (join_or_displace(&pool, 3).await, join_or_displace(&pool, 4).await);
    assert_eq!(
        second.await.unwrap().unwrap_err(),
        QueueFailure::Full,
        "the last half-closed client"
    );
    let fifth = join_or_displace(&pool, 5).await;
    assert_eq!(first.await.unwrap().unwrap_err(), QueueFailure::Full);
    let sixth = join_or_displace(&pool, 6).await;
    assert_eq!(
        sixth.await.unwrap().unwrap_err(),
        QueueFailure::Full,
        "no half-closed client is left"
    );
    for waiting in [third, fourth, fifth] {
        drop(lease);
        lease = waiting.await.unwrap().unwrap();
    }
}

/// The client gets its answer at once, although another one is before it in the line.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_tried_all_servers_does_not_wait() {
    for policy in POLICIES {
        let pool = limited(policy, &[1, 1], Some(QUEUE));
        let taken: Vec<_> = (0..100).filter_map(|n| pick(&pool, n).ok()).collect();
        assert_eq!(live_counts(&pool), [1, 1]);
        let _waiting = start_waiting(&pool, 1).await;
        let tried: Vec<_> = pool.servers().iter().map(|server| server.id()).collect();
        let mut turn = QueueTurn::default();
        let answer = pool.wait_for_lease(client(2), &tried, &mut turn, pending(), |_| {});
        assert_eq!(answer.await.unwrap_err(), QueueFailure::NoServer, "{policy:?}");
        drop(taken);
    }
}
