//! Sets TCP keepalive on the connections to servers, but not before their sessions have lasted for a moment.
//!
//! Keepalive takes four system calls and a timer of the kernel: 2.5 % of the CPU time of a session that ends at once.
//! It finds a dead peer after a second of silence at the earliest. So nothing is lost when it is set within the first
//! second of the relay; the steps before it have time limits. The connections of clients inherit it from their listening socket, without a call.

use std::cell::RefCell;
use std::mem;
use std::sync::{Arc, Weak};

use slab::Slab;
use socket2::SockRef;

use crate::ends::Endpoints;
use crate::socket::Keepalive;

thread_local! {
    /// The open sessions of this worker whose keepalive is not set yet.
    static DUE: RefCell<Due> = const { RefCell::new(Due { round: 0, sessions: Slab::new() }) };
}

struct Due {
    /// Counts the calls of [`set_due`].
    round: u32,
    sessions: Slab<(Weak<Endpoints>, Keepalive)>,
}

/// Lets the next call of [`set_due`] on this thread set keepalive on the connection to the server, unless what is
/// returned here has been dropped by then. To be dropped on the same thread.
pub fn set_later(ends: &Arc<Endpoints>, keepalive: Keepalive) -> LateKeepalive {
    DUE.with_borrow_mut(|due| LateKeepalive {
        round: due.round,
        key: due.sessions.insert((Arc::downgrade(ends), keepalive)),
    })
}

/// Sets keepalive where [`set_later`] has asked for it. To be called once a second on each thread that has sessions.
pub fn set_due() {
    let sessions = DUE.with_borrow_mut(|due| {
        due.round = due.round.wrapping_add(1);
        mem::take(&mut due.sessions)
    });
    for (_, (ends, keepalive)) in sessions {
        if let Some(ends) = ends.upgrade() {
            keepalive.apply(&SockRef::from(&ends.server));
        }
    }
}

/// A session's place among those whose keepalive is not set yet. Most sessions are over before it is set, and leave
/// nothing behind: memory that stayed in use until the next round would be cold when it is freed.
#[must_use = "dropping it cancels the request"]
pub struct LateKeepalive {
    /// The round in which it was asked for. The key means another session in a later one.
    round: u32,
    key: usize,
}

impl Drop for LateKeepalive {
    fn drop(&mut self) {
        // An error means that the thread ends.
        let _ = DUE.try_with(|due| {
            let mut due = due.borrow_mut();
            if due.round == self.round {
                due.sessions.remove(self.key);
            }
        });
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
    async fn keepalive_is_set_on_the_server_when_it_is_due_and_not_before() {
        let ends = endpoints().await;
        let _later = set_later(&ends, KEEPALIVE);
        assert!(!sockopt::socket_keepalive(&ends.server).unwrap());
        set_due();
        assert!(sockopt::socket_keepalive(&ends.server).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&ends.server).unwrap(), KEEPALIVE.idle);
        assert_eq!(sockopt::tcp_keepintvl(&ends.server).unwrap(), KEEPALIVE.interval);
        assert_eq!(sockopt::tcp_keepcnt(&ends.server).unwrap(), KEEPALIVE.probes);
        assert!(!sockopt::socket_keepalive(&ends.client).unwrap());
    }

    #[tokio::test]
    async fn a_session_that_is_over_before_its_keepalive_is_due_leaves_nothing_behind() {
        let (over, open) = (endpoints().await, endpoints().await);
        let later = set_later(&over, KEEPALIVE);
        let _later = set_later(&open, KEEPALIVE);
        drop(later);
        assert_eq!(Arc::weak_count(&over), 0);
        set_due();
        assert!(!sockopt::socket_keepalive(&over.server).unwrap());
        assert!(sockopt::socket_keepalive(&open.server).unwrap());
    }

    #[tokio::test]
    async fn a_session_that_ends_after_its_keepalive_was_set_does_not_cancel_that_of_another() {
        let (old, new) = (endpoints().await, endpoints().await);
        let later = set_later(&old, KEEPALIVE);
        set_due();
        let _later = set_later(&new, KEEPALIVE); // has the same key
        drop(later);
        set_due();
        assert!(sockopt::socket_keepalive(&new.server).unwrap());
    }
}
