//! The check `postgres`: the server is PostgreSQL and, if a user to log in as is configured, has the right role.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Join, Take, join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::file::read_password;
use super::kind::ROLE_KEYS;
use super::{Check, CheckFailure, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck, Service, tls};
use crate::error::chain;
use crate::pool::{Role, ServerFacts};

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "postgres",
    health_keys: &["user", "password_file", "database"],
    pool_keys: &ROLE_KEYS,
    service: Some(Service {
        name: "PostgreSQL",
        accepts_proxy_header: false,
        without_hello: Some("no `sni` or `alpn` matches them: add protocol = \"postgres\" to the listener"),
    }),
};

/// The check `postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresCheck {
    /// How to log in; `None`: no login, any answer to GSSENCRequest passes.
    pub login: Option<PostgresLogin>,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresLogin {
    /// The user.
    pub user: Box<str>,
    /// Contains the password; a line feed at its end is left out. Read when a check needs it.
    pub password_file: Option<PathBuf>,
    /// The database.
    pub database: Box<str>,
}

impl Check for PostgresCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let Some(PostgresLogin {
            user,
            password_file,
            database,
        }) = &self.login
        {
            settings.push(("health.user", format!("{user:?}")));
            settings.push(("health.password_file", format!("{password_file:?}")));
            settings.push(("health.database", format!("{database:?}")));
        }
        settings
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        let file = self.login.as_ref().and_then(|login| login.password_file.as_deref());
        file.map(|path| ("password_file", path)).into_iter().collect()
    }

    fn learns_role(&self) -> bool {
        self.login.is_some()
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(PostgresProbe::new(self, target))
    }
}

/// GSSENCRequest: its length and its code ("Message Formats" in the chapter "Frontend/Backend Protocol").
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// Bytes read from a server in one check: its certificates, its parameters, one row. Usually it sends less than 8 KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// A connection from which no more than [`ANSWER_BYTES_MAX`] are read.
type BoundedStream = Join<Take<OwnedReadHalf>, OwnedWriteHalf>;

/// Whether it is a replica, and how many seconds behind. While a receiver runs and all it has received is replayed, a
/// replica is not behind: an idle primary sends nothing to replay, however long ago the last transaction was. Without a
/// receiver it falls behind although nothing is left to replay. A user without privileges may see that a receiver runs,
/// but nothing else of it.
const ROLE_QUERY: &str = "SELECT pg_is_in_recovery(), CASE \
    WHEN NOT pg_is_in_recovery() THEN 0 \
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() \
        AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0 \
    ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END";

/// How SQLSTATEs begin by which a server that works refuses the check ("PostgreSQL Error Codes"): too many connections,
/// another limit, rejected authorization (also by `pg_hba.conf`), no such database, no privilege.
const REFUSALS: [&str; 5] = ["53300", "53400", "28", "3D000", "42501"];

/// SQLSTATE cannot_connect_now: the server starts up, shuts down, or recovers from a crash.
const STARTING_OR_STOPPING: &str = "57P03";

struct PostgresProbe {
    check: Arc<PostgresCheck>,
    target: CheckTarget,
    /// For a login: TLS where the server offers it. No certificate is verified, and a server may ask for the password
    /// itself instead of a proof (SCRAM) that the client knows it: the user should have no other privileges.
    tls: io::Result<ClientConfig>,
}

impl Probe for PostgresProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            let facts = self.connect_and_ask().await?;
            Ok(CheckPass {
                facts,
                ..CheckPass::default()
            })
        })
    }
}

impl PostgresProbe {
    fn new(check: Arc<PostgresCheck>, target: CheckTarget) -> Self {
        Self {
            check,
            target,
            tls: tls::unverified(),
        }
    }

    /// Connects, and asks whether it is PostgreSQL or, with a login, what its role is.
    ///
    /// # Errors
    /// Those of connecting; that the server speaks another protocol, or refuses the login.
    async fn connect_and_ask(&self) -> Result<ServerFacts, CheckFailure> {
        let mut stream = self.target.connect().await?;
        let Some(login) = &self.check.login else {
            request_gss(&mut stream).await?;
            return Ok(ServerFacts::default());
        };
        let (from, to) = stream.into_split();
        let stream = join(from.take(ANSWER_BYTES_MAX), to);
        self.query_role(login, stream).await
    }

    /// Logs in, and asks for the role of the server.
    async fn query_role(&self, login: &PostgresLogin, stream: BoundedStream) -> Result<ServerFacts, CheckFailure> {
        let tls = self.tls.as_ref().map_err(|error| io::Error::other(chain(error)))?;
        let tls = MakeTlsConnect::<BoundedStream>::make_tls_connect(
            &mut MakeRustlsConnect::new(tls.clone()),
            &self.target.address.ip().to_string(),
        );
        let tls = tls.map_err(io::Error::other)?;
        let config = login_config(login).await?;
        let connected = config.connect_raw(stream, tls).await;
        let (client, connection) = connected.map_err(server_error)?;
        let ask = async {
            let answer = client.simple_query(ROLE_QUERY).await;
            drop(client); // sends Terminate, and ends `connection`
            answer
        };
        let (answer, _) = tokio::join!(ask, connection);
        Ok(read_role(&answer.map_err(server_error)?)?)
    }
}

/// Sends GSSENCRequest. PostgreSQL since version 12 answers it with one letter, whether or not it has GSSAPI, begins no
/// session, and logs nothing if the client then leaves. After an SSLRequest it would log that the client sent no hello.
async fn request_gss(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&GSSENC_REQUEST).await?;
    match stream.read_u8().await? {
        b'G' | b'N' | b'E' => Ok(()), // E: ErrorResponse of an older server, which does not know the request
        other => {
            let what = format!(
                "not a PostgreSQL server: it answers GSSENCRequest with {:?}",
                char::from(other)
            );
            Err(io::Error::other(what))
        }
    }
}

async fn login_config(login: &PostgresLogin) -> io::Result<Config> {
    let mut config = Config::new();
    config
        .user(&*login.user)
        .dbname(&*login.database)
        .application_name("acequia")
        .ssl_mode(SslMode::Prefer);
    if let Some(file) = &login.password_file {
        config.password(read_password("password_file", file).await?);
    }
    Ok(config)
}

/// The server's own message if it sent one. It contains no secret: the server sends it to a client that is not logged in.
fn server_error(error: tokio_postgres::Error) -> CheckFailure {
    if let Some(sent) = error.as_db_error() {
        let reason = sent.message().to_owned();
        return match sent.code().code() {
            STARTING_OR_STOPPING => CheckFailure::Refused {
                reason,
                accepts_sessions: false,
            },
            code if REFUSALS.iter().any(|refusal| code.starts_with(refusal)) => CheckFailure::Refused {
                reason,
                accepts_sessions: true,
            },
            _ => io::Error::other(reason).into(),
        };
    }
    let kind = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    let kind = kind.map_or(io::ErrorKind::Other, io::Error::kind);
    io::Error::new(kind, error).into()
}

fn read_role(answer: &[SimpleQueryMessage]) -> io::Result<ServerFacts> {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    // The answer may have too few columns, or a value that is not text.
    let column = |number| row.and_then(|row| row.try_get(number).ok().flatten());
    let is_replica =
        column(0).ok_or_else(|| io::Error::other("the answer does not say whether the server is a replica"))?;
    let role = if is_replica == "t" {
        Role::Replica
    } else {
        Role::Primary
    };
    Ok(ServerFacts {
        role: Some(role),
        lag: column(1).and_then(|lag| lag.parse().ok()).and_then(read_lag),
        ..ServerFacts::default()
    })
}

/// The lag in seconds. Clocks that differ make it negative. NaN, infinity and what no `Duration` can hold are not known.
fn read_lag(seconds: f64) -> Option<Duration> {
    let seconds = if seconds < 0.0 { 0.0 } else { seconds };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests;
