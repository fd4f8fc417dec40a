//! Sets TCP keepalive on the connections to servers: not when a relay starts, but within a second, if it still runs.
//!
//! Setting it takes four system calls and a timer of the kernel: 2.5 % of the CPU time of a session that ends at once.
//! Keepalive finds a dead peer after a second of silence at the earliest. So nothing is lost when it is set within the
//! first second of the relay; the steps before the relay have time limits. The connections of clients inherit keepalive
//! from their listening socket, without a call.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use socket2::SockRef;

use crate::ends::Endpoints;
use crate::socket::Keepalive;

thread_local! {
    /// The sessions of this worker whose keepalive is not set yet, by the address of their endpoints in memory. The
    /// `Weak` keeps that memory allocated, so that no later session gets the same address while the entry exists.
    static DUE: RefCell<HashMap<*const Endpoints, (Weak<Endpoints>, Keepalive)>> = RefCell::default();
}

/// Lets the next call of [`set_due`] on this thread set keepalive on the connection to the server.
pub fn set_later(ends: &Arc<Endpoints>, keepalive: Keepalive) {
    let entry = (Arc::downgrade(ends), keepalive);
    DUE.with_borrow_mut(|due| due.insert(Arc::as_ptr(ends), entry));
}

/// Undoes [`set_later`] for a session that is over. This only saves time: otherwise [`set_due`] would free the memory
/// of the endpoints, when that memory is no longer in the CPU's caches. Most sessions are over before [`set_due`].
pub fn forget(ends: &Arc<Endpoints>) {
    DUE.with_borrow_mut(|due| {
        if !due.is_empty() {
            due.remove(&Arc::as_ptr(ends));
        }
    });
}

/// Sets keepalive where [`set_later`] has asked for it. To be called once a second on each thread that has sessions.
pub fn set_due() {
    for (_, (ends, keepalive)) in DUE.take() {
        if let Some(ends) = ends.upgrade() {
            keepalive.apply(&SockRef::from(&ends.server));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::net::sockopt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const KEEPALIVE: Keepalive = Keepalive {
        idle: Duration::from_secs(77),
        interval: Duration::from_secs(3),
        probes: 2,
    };

    async fn endpoints() -> Arc<Endpoints> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = TcpStream::connect(address).await.unwrap();
        let (client, _) = listener.accept().await.unwrap();
        Arc::new(Endpoints { client, server })
    }

    #[tokio::test]
    async fn keepalive_is_set_on_the_connection_to_the_server_when_due_and_not_before() {
        let ends = endpoints().await;
        set_later(&ends, KEEPALIVE);
        assert!(!sockopt::socket_keepalive(&ends.server).unwrap());
        set_due();
        assert!(sockopt::socket_keepalive(&ends.server).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&ends.server).unwrap(), KEEPALIVE.idle);
        assert_eq!(sockopt::tcp_keepintvl(&ends.server).unwrap(), KEEPALIVE.interval);
        assert_eq!(sockopt::tcp_keepcnt(&ends.server).unwrap(), KEEPALIVE.probes);
        assert!(!sockopt::socket_keepalive(&ends.client).unwrap());
    }

    #[tokio::test]
    async fn a_session_that_ends_before_keepalive_is_due_is_forgotten() {
        let (over, open) = (endpoints().await, endpoints().await);
        set_later(&over, KEEPALIVE);
        set_later(&open, KEEPALIVE);
        forget(&over);
        assert_eq!(Arc::weak_count(&over), 0);
        set_due();
        assert!(!sockopt::socket_keepalive(&over.server).unwrap());
        assert!(sockopt::socket_keepalive(&open.server).unwrap());
    }

    #[tokio::test]
    async fn a_session_whose_task_was_dropped_keeps_no_socket_open() {
        let ends = endpoints().await;
        set_later(&ends, KEEPALIVE);
        let weak = Arc::downgrade(&ends);
        drop(ends);
        assert_eq!(weak.strong_count(), 0);
        set_due();
    }
}
