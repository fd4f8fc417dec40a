//! The members of etcd: they are asked one after the other until one answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::EtcdError;
use super::gateway::{Gateway, KeysRead};
use super::messages::{EtcdKeyValue, KeyChange, KeyRange};
use super::plan::EtcdPlan;
use crate::http_client::in_time;

/// After this time without an event, the keys are read again: a connection may be dead without a sign of it.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// A watch that lasts at least this long is stable: when it fails, earlier failures no longer count.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The least time from the beginning of a successful read of the keys to the next read, even if each watch ends or
/// fails at once.
const GAP_MIN: Duration = Duration::from_secs(1);

/// The keys to read and follow.
#[derive(Clone, Debug)]
pub struct FollowedKeys {
    /// The ranges that are read.
    pub read: Vec<KeyRange>,
    /// One range that contains all keys of `read`. If it contains other keys, the follower must ignore their changes.
    pub watched: KeyRange,
    /// More keys than this are an error.
    pub keys_max: usize,
}

/// Receives the values of keys.
pub trait KeyFollower: Send {
    /// Takes all keys that exist now. They replace the keys that were taken before.
    ///
    /// # Errors
    /// The keys cannot be used. This counts as a failure of the member.
    fn take_all(&mut self, keys: Vec<EtcdKeyValue>) -> Result<(), EtcdError>;

    /// Takes changes, in their order; at least one.
    ///
    /// # Errors
    /// Those of [`Self::take_all`].
    fn take_changes(&mut self, changes: Vec<KeyChange>) -> Result<(), EtcdError>;
}

/// How [`Members::follow`] ends.
#[derive(Debug)]
pub struct FollowEnd {
    /// The last error.
    pub error: EtcdError,
    /// Whether a member answered for some time, so that the failures since then are not counted with earlier ones.
    pub was_stable: bool,
}

/// The members of etcd.
#[derive(Debug)]
pub struct Members {
    plan: Arc<EtcdPlan>,
    /// How often a member was asked. The members take turns.
    asked_count: usize,
}

impl Members {
    /// The members of this plan. The first one is asked first.
    #[must_use]
    pub fn new(plan: Arc<EtcdPlan>) -> Self {
        Self { plan, asked_count: 0 }
    }

    /// Follows keys at one member after the other, until all have failed in a row. The member that failed first gets a
    /// second attempt, because its first failure may only mean that a login has expired.
    pub async fn follow(&mut self, keys: &FollowedKeys, follower: &mut impl KeyFollower) -> FollowEnd {
        let mut failures = 0;
        let mut was_stable = false;
        loop {
            let mut watching_since = None;
            let error = self.follow_one(keys, follower, &mut watching_since).await;
            // Only the time of the watch counts, not that of attempts: they take longest with a member that hangs.
            if watching_since.is_some_and(|since: Instant| since.elapsed() >= STABLE_AFTER) {
                (failures, was_stable) = (0, true);
            }
            failures += 1;
            if failures > self.plan.endpoints.len() {
                return FollowEnd { error, was_stable };
            }
        }
    }

    /// Reads keys at the first member that answers. Each member has `time` for that.
    ///
    /// # Errors
    /// The error of the last member, if none answers.
    pub async fn read(&mut self, keys: &FollowedKeys, time: Duration) -> Result<Vec<EtcdKeyValue>, EtcdError> {
        let mut last = EtcdError::from("no member is configured");
        for _ in 0..self.plan.endpoints.len() {
            let asked = in_time(time, "etcd", async {
                let gateway = self.connect().await?;
                gateway.read(&keys.read, keys.keys_max).await
            });
            match asked.await {
                Ok(read) => return Ok(read.keys),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to the next member. A caller whose request fails can call this function again: each call asks another
    /// member, in turn.
    ///
    /// # Errors
    /// A file of the plan cannot be used, or the member does not answer or refuses the login.
    pub async fn connect(&mut self) -> Result<Gateway, EtcdError> {
        let endpoints = &self.plan.endpoints;
        let endpoint = endpoints[self.asked_count % endpoints.len()].clone();
        self.asked_count += 1;
        Gateway::connect(endpoint, Arc::clone(&self.plan)).await
    }

    /// Follows keys at the next member until it fails. Sets `watching_since` when the first watch begins, which is
    /// after the first read of the keys.
    async fn follow_one(
        &mut self,
        keys: &FollowedKeys,
        follower: &mut impl KeyFollower,
        watching_since: &mut Option<Instant>,
    ) -> EtcdError {
        let gateway = match self.connect().await {
            Ok(gateway) => gateway,
            Err(error) => return error,
        };
        loop {
            let next_read = Instant::now() + GAP_MIN;
            let read = match gateway.read(&keys.read, keys.keys_max).await {
                Ok(read) => read,
                Err(error) => return error,
            };
            let watched = take_and_watch(&gateway, read, keys, follower, watching_since).await;
            sleep_until(next_read).await;
            if let Err(error) = watched {
                return error;
            }
        }
    }
}

/// Takes the keys that were read, and watches them until they must be read again: nothing has happened for a long time,
/// or the watch needs revisions that were compacted.
async fn take_and_watch(
    gateway: &Gateway,
    read: KeysRead,
    keys: &FollowedKeys,
    follower: &mut impl KeyFollower,
    watching_since: &mut Option<Instant>,
) -> Result<(), EtcdError> {
    follower.take_all(read.keys)?;
    let mut watch = gateway.watch(&keys.watched, read.revision + 1).await?;
    watching_since.get_or_insert_with(Instant::now);
    while let Ok(message) = timeout(QUIET_MAX, watch.next()).await {
        let response = message?;
        if response.canceled && response.compact_revision > 0 {
            return Ok(());
        }
        if response.canceled {
            return Err(format!("the watch was cancelled: {}", response.cancel_reason).into());
        }
        if response.events.is_empty() {
            continue; // the watch was created
        }
        follower.take_changes(response.events)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::sleep;

    use super::*;

    /// Ignores all keys.
    struct Forgetful;

    impl KeyFollower for Forgetful {
        fn take_all(&mut self, _: Vec<EtcdKeyValue>) -> Result<(), EtcdError> {
            Ok(())
        }

        fn take_changes(&mut self, _: Vec<KeyChange>) -> Result<(), EtcdError> {
            Ok(())
        }
    }

    /// How [`Members::follow`] ends, within 100 seconds, for members at these addresses.
    async fn end_of(members: &[SocketAddr]) -> FollowEnd {
        let endpoints = members
            .iter()
            .map(|address| format!("http://{address}").parse().unwrap());
        let plan = EtcdPlan {
            endpoints: endpoints.collect(),
            login: None,
            ca_file: None,
            identity: None,
        };
        let range = KeyRange::with_prefix("/a/");
        let keys = FollowedKeys {
            read: vec![range.clone()],
            watched: range,
            keys_max: 1,
        };
        let mut members = Members::new(Arc::new(plan));
        let end = timeout(Duration::from_secs(100), members.follow(&keys, &mut Forgetful)).await;
        end.expect("it fails")
    }

    /// An answer to a read: there are no keys.
    const NO_KEYS: &str = r#"{"header":{"revision":"1"},"responses":[{"response_range":{}}]}"#;

    /// Accepts a connection, and reads a request without its body.
    async fn accept(listener: &tokio::net::TcpListener) -> (TcpStream, Vec<u8>) {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        (socket, head)
    }

    async fn answer(socket: &mut TcpStream, status: &str, body: &str) {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        socket.write_all(answer.as_bytes()).await.unwrap();
    }

    /// Answers one request on each connection. A read finds no keys; all other requests fail. Counts the reads.
    async fn serve_reads(listener: tokio::net::TcpListener, reads: &AtomicUsize) {
        loop {
            let (mut socket, head) = accept(&listener).await;
            if head.starts_with(b"POST /v3/kv/txn") {
                reads.fetch_add(1, Relaxed);
                answer(&mut socket, "200 OK", NO_KEYS).await;
            } else {
                answer(&mut socket, "403 Forbidden", r#"{"message":"permission denied"}"#).await;
            }
        }
    }

    /// Answers a read and a watch, and ends the watch after [`STABLE_AFTER`]. Then nothing listens any more.
    async fn serve_a_watch(listener: tokio::net::TcpListener) {
        let (mut socket, _) = accept(&listener).await;
        answer(&mut socket, "200 OK", NO_KEYS).await;
        let (mut socket, _) = accept(&listener).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        drop(listener);
        sleep(STABLE_AFTER).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_held_for_some_time_was_stable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let members = [listener.local_addr().unwrap()];
        let (end, ()) = tokio::join!(end_of(&members), serve_a_watch(listener));
        assert!(end.was_stable, "{}", end.error);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_whose_watches_fail_at_once_is_read_once_a_second() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let members = [listener.local_addr().unwrap()];
        let (reads, began) = (AtomicUsize::new(0), Instant::now());
        let FollowEnd { error, was_stable } = tokio::select! {
            end = end_of(&members) => end,
            () = serve_reads(listener, &reads) => unreachable!(),
        };
        assert!(
            error.to_string().contains("permission denied") && !was_stable,
            "{error}"
        );
        assert_eq!((reads.load(Relaxed), began.elapsed().as_secs()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn members_that_accept_and_stay_silent_are_a_failure() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listening = TcpListener::bind(any).unwrap(); // the kernel accepts
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind(any).unwrap();
        let (silent, refused) = (listening.local_addr().unwrap(), bound.local_addr().unwrap());
        let error = end_of(&[silent]).await.error.to_string();
        assert!(error.contains("no answer within 10s"), "{error}");
        for members in [[silent, refused, refused], [refused, refused, silent]] {
            end_of(&members).await; // it ends in time
        }
    }
}
