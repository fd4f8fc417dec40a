//! The check `postgres`: the server is PostgreSQL. If the check is configured to log in, it also asks for the server's
//! role, its history and its position in the WAL.

mod clear_text;
mod denials;

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Join, join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::bounded::Bounded;
use super::kind::ROLE_KEYS;
use super::{Check, CheckFailure, CheckKind, CheckTarget, PasswordLogin, Probe, RunningCheck, Service};
use crate::error::chain;
use crate::pool::{Role, ServerFacts, WalPosition};
use crate::sniff::postgres::GSSENC_REQUEST;
use crate::tls::unverified_config;
use clear_text::{CleartextPasswordGuard, LoginRefusal};
use denials::{DeniableQuestion, Denials};

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "postgres",
    health_keys: &["user", "password_file", "database"],
    pool_keys: &ROLE_KEYS,
    service: Some(Service {
        name: "PostgreSQL",
        accepts_proxy_header: false,
        hint_without_hello: Some("no `sni` or `alpn` matches them: add protocol = \"postgres\" to the listener"),
    }),
};

/// The check `postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresCheck {
    /// How to log in; `None`: without a login, the check passes if the server answers GSSENCRequest as PostgreSQL does.
    pub login: Option<PostgresLogin>,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresLogin {
    /// The user and its password.
    pub account: PasswordLogin,
    /// The database to log in to.
    pub database: Box<str>,
}

impl Check for PostgresCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let Some(PostgresLogin { account, database }) = &self.login {
            settings.extend(account.settings());
            settings.push(("health.database", format!("{database:?}")));
        }
        settings
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        let login = self.login.iter();
        login.filter_map(|login| login.account.file()).collect()
    }

    fn learns_role(&self) -> bool {
        self.login.is_some()
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(PostgresProbe::new(self, target))
    }
}

/// The most bytes that a server may send in one check: its certificates, its parameters, one row for each query.
/// Usually it sends less than 8 KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// A connection that fails if the server sends more than [`ANSWER_BYTES_MAX`]. Over TCP without TLS, no password is
/// sent in clear text.
type BoundedStream = Join<CleartextPasswordGuard<Bounded<OwnedReadHalf>>, OwnedWriteHalf>;

/// Whether the server is a replica.
const ROLE: &str = "SELECT pg_is_in_recovery()";

/// The timeline and the WAL position of a primary, or the WAL positions of a replica and whether its WAL receiver runs.
/// By default, every user may ask for them. The timeline is the beginning of the name of the WAL file that is written
/// to: after a promotion, the control data would show the new timeline only after the next checkpoint. The position of
/// a primary is the flushed one, because replicas can receive no more.
const POSITION: &str = "SELECT \
    CASE WHEN NOT replica THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END, \
    pg_wal_lsn_diff(CASE WHEN replica THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END, '0/0'), \
    pg_wal_lsn_diff(CASE WHEN replica THEN pg_last_wal_replay_lsn() END, '0/0'), \
    EXISTS (SELECT FROM pg_stat_wal_receiver) \
    FROM pg_is_in_recovery() AS replica";

/// The identity of the data. A server and its replicas have the same one.
const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";

/// The timeline and the position of the latest point from which the server can start again. On a replica they show
/// which history it follows; a change of the history shows only after the next checkpoint of its primary.
const RESTARTPOINT: &str = "SELECT timeline_id, pg_wal_lsn_diff(checkpoint_lsn, '0/0') FROM pg_control_checkpoint()";

/// SQLSTATEs admin_shutdown and crash_shutdown ("PostgreSQL Error Codes"): the server, or an operator, has ended the
/// session of the check. That means no more than a broken connection.
const ENDED: [&str; 2] = ["57P01", "57P02"];

/// The beginnings of SQLSTATEs that say that a server can serve no session: it starts up, shuts down or recovers from a
/// crash; its operating system, a configuration file, or the server itself has an error. All others except [`ENDED`]
/// count as errors of the check's login, such as too many connections, a wrong password, a rule of `pg_hba.conf`, a
/// database that is missing or does not allow connections.
const NO_SESSIONS: [&str; 4] = ["57P03", "58", "F0", "XX"];

struct PostgresProbe {
    check: Arc<PostgresCheck>,
    target: CheckTarget,
    /// The configuration for logins, which use TLS if the server offers it. No certificate is verified, and over TLS a
    /// server may ask for the password in clear text. So a false server could get the password, and the user should
    /// have no privileges except to log in.
    tls: Arc<ClientConfig>,
    /// The questions that the server denies.
    // A blocking mutex: it is never locked across an await.
    denials: Mutex<Denials>,
}

impl Probe for PostgresProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            let asked = self.connect_and_ask().await;
            if asked.is_err() {
                // The server may have been set up anew meanwhile.
                *self.denials.lock() = Denials::default();
            }
            Ok(asked?.into())
        })
    }
}

impl PostgresProbe {
    fn new(check: Arc<PostgresCheck>, target: CheckTarget) -> Self {
        Self {
            check,
            target,
            tls: unverified_config(),
            denials: Mutex::default(),
        }
    }

    /// Connects. Without a configured login, checks only that the server is PostgreSQL; with one, logs in and asks.
    ///
    /// # Errors
    /// Those of connecting; the password cannot be read; the server speaks another protocol, refuses the login, or does
    /// not say whether it is a replica.
    async fn connect_and_ask(&self) -> Result<ServerFacts, CheckFailure> {
        let mut stream = self.target.connect().await?;
        let Some(login) = &self.check.login else {
            request_gss(&mut stream).await?;
            return Ok(ServerFacts::default());
        };
        let is_unix = self.target.address.unix().is_some();
        let (from, to) = stream.into_split();
        let stream = join(
            CleartextPasswordGuard::new(Bounded::new(from, ANSWER_BYTES_MAX), is_unix),
            to,
        );
        self.log_in_and_ask(login, stream).await
    }

    /// Logs in, and asks for the role of the server, its history and its position.
    async fn log_in_and_ask(&self, login: &PostgresLogin, stream: BoundedStream) -> Result<ServerFacts, CheckFailure> {
        let tls = MakeTlsConnect::<BoundedStream>::make_tls_connect(
            &mut MakeRustlsConnect::new(ClientConfig::clone(&self.tls)),
            &self.target.ip().to_string(),
        );
        let tls = tls.map_err(io::Error::other)?;
        let config = login_config(login).await?;
        let connected = config.connect_raw(stream, tls).await;
        let (client, mut connection) = connected.map_err(server_error)?;
        // Notices are dropped: a server may send one at each login, for example that the version of a collation has
        // changed.
        let connection = async { while let Some(Ok(_)) = poll_fn(|cx| connection.poll_message(cx)).await {} };
        // All queries are sent together: one round trip.
        let ask = async {
            let answers = tokio::join!(
                client.simple_query(ROLE),
                self.ask_if_allowed(&client, DeniableQuestion::Position, POSITION),
                self.ask_if_allowed(&client, DeniableQuestion::System, SYSTEM),
                self.ask_if_allowed(&client, DeniableQuestion::Restartpoint, RESTARTPOINT)
            );
            drop(client); // sends Terminate, and ends `connection`
            answers
        };
        let ((role, position, system, restartpoint), ()) = tokio::join!(ask, connection);
        let role = read_role(Row::first(&role.map_err(server_error)?).text(0))?;
        let mut facts = ServerFacts {
            role: Some(role),
            denied: self.denials.lock().denied_position_function(),
            ..ServerFacts::default()
        };
        if let Some(answer) = position.map_err(server_error)? {
            read_position(&answer, role, &mut facts);
        }
        if let Some(answer) = system.map_err(server_error)? {
            facts.system_identifier = Row::first(&answer).number(0);
        }
        if let Some(answer) = restartpoint.map_err(server_error)?
            && role == Role::Replica
        {
            let row = Row::first(&answer);
            facts.restartpoint = row
                .number(0)
                .and_then(|timeline| timeline.try_into().ok())
                .zip(row.number(1));
        }
        Ok(facts)
    }

    /// Runs a query that may be denied to a user, or that a variety of PostgreSQL may not know. `None`: it is denied or
    /// not known.
    async fn ask_if_allowed(
        &self,
        client: &Client,
        question: DeniableQuestion,
        query: &str,
    ) -> Result<Option<Vec<SimpleQueryMessage>>, tokio_postgres::Error> {
        if !self.denials.lock().may_ask(question) {
            return Ok(None);
        }
        let address = self.target.address;
        match client.simple_query(query).await {
            Ok(answer) => {
                let was_denied = self.denials.lock().record_answer(question);
                if was_denied {
                    tracing::info!(server = %address, query, "the server no longer denies the check this query");
                }
                Ok(Some(answer))
            }
            Err(error) if Denials::is_denial(&error) => {
                let is_first = self.denials.lock().record_denial(question, &error);
                if is_first {
                    let error = chain(&error);
                    tracing::warn!(server = %address, %error, query, "the server denies the check one of its queries: old primaries or lag may stay undetected");
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
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
                "not a PostgreSQL server: it answers GSSENCRequest with '{}'",
                char::from(other).escape_default()
            );
            Err(io::Error::other(what))
        }
    }
}

async fn login_config(login: &PostgresLogin) -> Result<Config, CheckFailure> {
    let mut config = Config::new();
    config
        .user(&*login.account.user)
        .dbname(&*login.database)
        .application_name("acequia")
        .ssl_mode(SslMode::Prefer);
    if let Some(password) = login.account.password().await? {
        config.password(password);
    }
    Ok(config)
}

/// What an error of the connection means for the check; with the server's own message if it sent one. That message
/// contains no secret: it is about the login, or about one of the queries above.
fn server_error(error: tokio_postgres::Error) -> CheckFailure {
    if let Some(sent) = error.as_db_error() {
        let (reason, code) = (sent.message().to_owned(), sent.code().code());
        if ENDED.contains(&code) {
            return io::Error::other(reason).into();
        }
        return CheckFailure::Refused {
            reason,
            accepts_sessions: !NO_SESSIONS.iter().any(|begin| code.starts_with(begin)),
        };
    }
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    let refusal = source
        .and_then(io::Error::get_ref)
        .filter(|source| source.is::<LoginRefusal>());
    if let Some(refusal) = refusal {
        return CheckFailure::Refused {
            reason: refusal.to_string(),
            accepts_sessions: true,
        };
    }
    let kind = source.map_or(io::ErrorKind::Other, io::Error::kind);
    io::Error::new(kind, error).into()
}

/// The first row of an answer. There may be none; a column may be missing, NULL, or not UTF-8.
struct Row<'a>(Option<&'a SimpleQueryRow>);

impl<'a> Row<'a> {
    fn first(answer: &'a [SimpleQueryMessage]) -> Self {
        Self(answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        }))
    }

    fn text(&self, column: usize) -> Option<&'a str> {
        self.0?.try_get(column).ok().flatten()
    }

    fn number(&self, column: usize) -> Option<u64> {
        self.text(column)?.parse().ok()
    }
}

/// Reads the answer to `pg_is_in_recovery()`. Only a clear "no" makes a server a primary, because primaries get writes.
fn read_role(is_replica: Option<&str>) -> io::Result<Role> {
    match is_replica {
        Some("t") => Ok(Role::Replica),
        Some("f") => Ok(Role::Primary),
        _ => Err(io::Error::other(
            "the answer does not say whether the server is a replica",
        )),
    }
}

/// Reads the answer to [`POSITION`]. If a replica has received nothing since it started, the position that it has
/// applied also stands for the received one.
fn read_position(answer: &[SimpleQueryMessage], role: Role, facts: &mut ServerFacts) {
    let row = Row::first(answer);
    facts.timeline = row.text(0).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    facts.wal = match role {
        Role::Primary => row.number(1).map(|written| WalPosition {
            written,
            applied: written,
            is_following: false,
        }),
        Role::Replica => row.number(2).map(|applied| WalPosition {
            written: row.number(1).unwrap_or(applied),
            applied,
            is_following: row.text(3) == Some("t"),
        }),
    };
}

#[cfg(test)]
mod tests;
