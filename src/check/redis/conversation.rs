//! One connection to a Redis server or Sentinel: a login, `PING`, some commands, and their replies.

use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::resp::{NoReply, RespValue, read_reply, write_command};
use crate::check::CheckFailure;
use crate::check::bounded::Bounded;
use crate::check::file::read_password;
use crate::check::stream::CheckStream;

/// The most bytes read from a server in one check. Usually the server sends less than 2 KiB, but the reply to
/// `INFO replication` has a line for each replica.
const REPLY_BYTES_MAX: u64 = 64 << 10;

/// The most reads from a server in one check. After each, an incomplete reply is parsed again from its beginning; a
/// server that sends byte by byte must not cause many such parses. 64 KiB in TCP segments of 536 bytes are 123 reads.
const READS_MAX: u32 = 256;

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisLogin {
    /// The user; `None`: the default user.
    pub user: Option<Box<str>>,
    /// Contains the password; a line end after the password is ignored. Read when a check needs it.
    pub password_file: PathBuf,
}

/// A user and its password.
pub(super) struct Credentials {
    user: Option<Box<str>>,
    password: Vec<u8>,
}

impl Credentials {
    /// Reads the password. `key` is the key of the configuration that names its file.
    ///
    /// # Errors
    /// Those of reading the file.
    pub(super) async fn read(login: Option<&RedisLogin>, key: &'static str) -> Result<Option<Self>, CheckFailure> {
        let Some(RedisLogin { user, password_file }) = login else {
            return Ok(None);
        };
        Ok(Some(Self {
            user: user.clone(),
            password: read_password(key, password_file).await?,
        }))
    }
}

/// Commands that are sent together.
pub(super) struct Pipeline {
    bytes: Vec<u8>,
    /// The number of commands before those that were added: `PING`, and `AUTH` if there is a login.
    preliminary_count: usize,
    /// The number of all commands, each of which gets a reply.
    command_count: usize,
}

impl Pipeline {
    /// A login, if there are credentials, and `PING`.
    pub(super) fn new(credentials: Option<&Credentials>) -> Self {
        let mut bytes = Vec::new();
        if let Some(Credentials { user, password }) = credentials {
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(user.as_ref().map(|user| user.as_bytes()));
            words.push(password);
            write_command(&mut bytes, &words);
        }
        write_command(&mut bytes, &[b"PING"]);
        let preliminary_count = 1 + usize::from(credentials.is_some());
        Self {
            bytes,
            preliminary_count,
            command_count: preliminary_count,
        }
    }

    pub(super) fn add(&mut self, command: &[&[u8]]) {
        write_command(&mut self.bytes, command);
        self.command_count += 1;
    }

    /// Sends the commands. Returns the replies to those that were added.
    ///
    /// # Errors
    /// The server refuses the login or `PING` ([`CheckFailure::Refused`]), ends the connection, speaks another
    /// protocol, or sends too much or in too many parts.
    pub(super) async fn send(self, stream: Box<dyn CheckStream>) -> Result<Vec<RespValue>, CheckFailure> {
        let Replies { added, refusal } = self.exchange(stream).await?;
        refusal.map_or(Ok(added), Err)
    }

    /// Sends the commands. A server that is loading its data, or a replica that has lost its primary and is configured
    /// not to serve outdated data, refuses `PING` but answers `ROLE` and `INFO`: then the result has both the refusal
    /// and the replies.
    ///
    /// # Errors
    /// Those of [`Self::send`], except that refusal.
    pub(super) async fn exchange(self, mut stream: Box<dyn CheckStream>) -> Result<Replies, CheckFailure> {
        // A server that has no room for a client says so and closes. Then the write may fail although there is a reply,
        // so the error of the write counts only if replies are missing, and none of the others is a refusal.
        let sent = stream.write_all(&self.bytes).await;
        let mut stream = Bounded::new(stream, REPLY_BYTES_MAX);
        let (mut received, mut parsed_bytes) = (Vec::new(), 0);
        let mut replies = Vec::with_capacity(self.command_count);
        let mut refusal = None;
        let mut reads = 0;
        while replies.len() < self.command_count {
            match read_reply(&received[parsed_bytes..]) {
                Ok((reply, rest)) => {
                    parsed_bytes = received.len() - rest.len();
                    if replies.len() < self.preliminary_count {
                        refusal = refusal.or(judge(&reply)?);
                    }
                    replies.push(reply);
                }
                Err(NoReply::Invalid) => return Err(io::Error::other("not a Redis server").into()),
                Err(NoReply::Incomplete) => {
                    reads += 1;
                    if reads > READS_MAX {
                        return Err(
                            io::Error::other(format!("the replies came in more than {READS_MAX} parts")).into(),
                        );
                    }
                    if stream.read_buf(&mut received).await? == 0 {
                        sent?;
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
            }
        }
        Ok(Replies {
            added: replies.split_off(self.preliminary_count),
            refusal,
        })
    }
}

/// What a server has answered.
pub(super) struct Replies {
    /// The replies to the commands that were added.
    pub(super) added: Vec<RespValue>,
    /// Set if the server refused `PING` but answers `ROLE` and `INFO`.
    pub(super) refusal: Option<CheckFailure>,
}

/// Judges a reply to the login or `PING`. Returns the refusal of a server that accepts no sessions for now but answers
/// other commands.
///
/// # Errors
/// The server refuses for any other reason, or Redis would not answer these commands in this way.
fn judge(reply: &RespValue) -> Result<Option<CheckFailure>, CheckFailure> {
    match reply {
        RespValue::Text(text) if matches!(text.as_str(), "OK" | "PONG") => Ok(None),
        RespValue::Error(reason) => {
            let is_suspended = matches!(reason.split(' ').next(), Some("LOADING" | "MASTERDOWN"));
            let refusal = CheckFailure::Refused {
                accepts_sessions: !is_suspended,
                reason: reason.clone(),
            };
            if is_suspended { Ok(Some(refusal)) } else { Err(refusal) }
        }
        _ => Err(io::Error::other("not a Redis server: unexpected reply to AUTH or PING").into()),
    }
}
