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

/// A watch that lasts at least this long is stable: when it fails, earlier failures no longer count. `remote` uses the
/// same time for a store that answers.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The least time between a successful read of the keys and the next read, even if each watch ends or fails at once.
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
    /// The keys cannot be used. Then another member is asked.
    fn take_all(&mut self, keys: Vec<EtcdKeyValue>) -> Result<(), EtcdError>;

    /// Takes changes, in their order; at least one.
    ///
    /// # Errors
    /// Those of [`Self::take_all`].
    fn take_changes(&mut self, changes: Vec<KeyChange>) -> Result<(), EtcdError>;
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
    /// second attempt, because its first failure may only mean that a login has expired. Returns the last error.
    pub async fn follow(&mut self, keys: &FollowedKeys, follower: &mut impl KeyFollower) -> EtcdError {
        let mut failures = 0;
        loop {
            let mut watching_since = None;
            let error = self.follow_one(keys, follower, &mut watching_since).await;
            // Only the time of the watch counts, not that of attempts: they take longest with a member that hangs.
            let was_stable = watching_since.is_some_and(|since: Instant| since.elapsed() >= STABLE_AFTER);
            failures = if was_stable { 1 } else { failures + 1 };
            if failures > self.plan.endpoints.len() {
                return error;
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
    use tokio::net::TcpSocket;

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

    /// The error with which [`Members::follow`] ends, within 100 seconds, for members at these addresses.
    async fn failure_of(members: &[SocketAddr]) -> String {
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
        let failure = timeout(Duration::from_secs(100), members.follow(&keys, &mut Forgetful)).await;
        failure.expect("it fails").to_string()
    }

    /// Answers one request on each connection. A read finds no keys; all other requests fail. Counts the reads.
    async fn serve_reads(listener: tokio::net::TcpListener, reads: &AtomicUsize) {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let (status, body) = if head.starts_with(b"POST /v3/kv/txn") {
                reads.fetch_add(1, Relaxed);
                (
                    "200 OK",
                    r#"{"header":{"revision":"1"},"responses":[{"response_range":{}}]}"#,
                )
            } else {
                ("403 Forbidden", r#"{"message":"permission denied"}"#)
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_whose_watches_fail_at_once_is_read_once_a_second() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let members = [listener.local_addr().unwrap()];
        let (reads, began) = (AtomicUsize::new(0), Instant::now());
        let failure = tokio::select! {
            failure = failure_of(&members) => failure,
            () = serve_reads(listener, &reads) => unreachable!(),
        };
        assert!(failure.contains("permission denied"), "{failure}");
        assert_eq!((reads.load(Relaxed), began.elapsed().as_secs()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn members_that_accept_and_stay_silent_are_a_failure() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listening = TcpListener::bind(any).unwrap(); // the kernel accepts
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind(any).unwrap();
        let (silent, refused) = (listening.local_addr().unwrap(), bound.local_addr().unwrap());
        assert!(failure_of(&[silent]).await.contains("no answer within 10s"));
        for members in [[silent, refused, refused], [refused, refused, silent]] {
            failure_of(&members).await; // it ends in time
        }
    }
}
