//! The check `postgres`: it is a PostgreSQL server and, if somebody is named to log in as, of the right role.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Join, Take, join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Failure, of_file, tls};
use crate::addr::ServerAddr;
use crate::dial::{ConnectOptions, connect_for_ourselves};
use crate::plan::{PostgresCheck, PostgresLogin, Role};

/// SSLRequest: its length and its code ("Message Formats" in the chapter "Frontend/Backend Protocol").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Longer is no password, but a file named by mistake.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// What a server may say in one check: its certificates, its parameters, one row. A usual one says less than 8 KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// To a server, and so much from it.
type Stream = Join<Take<OwnedReadHalf>, OwnedWriteHalf>;

const ROLE: &str = "SELECT pg_is_in_recovery()";

/// How far behind a replica is, in seconds. While a receiver runs and all it has got is replayed it is not behind: an
/// idle primary sends nothing to replay, however long ago the last transaction was. Without a receiver it falls behind
/// although nothing is left to replay. Whether one runs is all that a user without privileges may know of it.
const LAG: &str = "SELECT pg_is_in_recovery(), CASE \
    WHEN NOT pg_is_in_recovery() THEN 0 \
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() \
        AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0 \
    ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END";

/// How the servers of a pool are checked, and what was made ready for that.
pub(super) struct PostgresProbe {
    pub(super) check: Arc<PostgresCheck>,
    /// Of a login: TLS where the server offers it. No certificate is verified, and whoever answers may ask for the
    /// password itself instead of a proof (SCRAM) that we know it: it is to be of a user who may do nothing else.
    tls: io::Result<ClientConfig>,
}

impl PostgresProbe {
    pub(super) fn new(check: Arc<PostgresCheck>) -> Self {
        Self {
            check,
            tls: tls::unverified(),
        }
    }

    /// Connects, and asks.
    ///
    /// # Errors
    /// Those of connecting; that it speaks otherwise, does not let us in, or is of another role or too far behind.
    pub(super) async fn check(&self, server: ServerAddr, options: &ConnectOptions) -> Result<(), Failure> {
        let mut stream = connect_for_ourselves(server, options).await?;
        let Some(login) = &self.check.login else {
            return Ok(ask_for_tls(&mut stream).await?);
        };
        let (from, to) = stream.into_split();
        let stream = join(from.take(ANSWER_BYTES_MAX), to);
        let (is_replica, lag) = self.ask(login, stream, server).await?;
        self.judge(is_replica, lag)
    }

    /// What it says of itself: whether it is a replica, and how far behind.
    async fn ask(&self, login: &PostgresLogin, stream: Stream, server: ServerAddr) -> io::Result<(bool, Option<f64>)> {
        let tls = self.tls.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
        let tls = MakeTlsConnect::<Stream>::make_tls_connect(
            &mut MakeRustlsConnect::new(tls.clone()),
            &server.ip().to_string(),
        );
        let tls = tls.map_err(io::Error::other)?;
        let config = of_login(login).await?;
        let (client, connection) = config.connect_raw(stream, tls).await.map_err(|error| told(&error))?;
        let asked = async {
            let answer = client
                .simple_query(if self.check.max_lag.is_some() { LAG } else { ROLE })
                .await;
            drop(client); // which says farewell
            answer
        };
        let (answer, _) = tokio::join!(asked, connection);
        read(&answer.map_err(|error| told(&error))?)
    }

    fn judge(&self, is_replica: bool, lag: Option<f64>) -> Result<(), Failure> {
        match (self.check.role, is_replica) {
            (Role::Primary, true) => return Err(Failure::Unfit("a replica, and a primary is wanted".into())),
            (Role::Replica, false) => return Err(Failure::Unfit("a primary, and a replica is wanted".into())),
            _ => {}
        }
        let Some(most) = self.check.max_lag.filter(|_| is_replica) else {
            return Ok(());
        };
        // Clocks that differ make it negative. What is no number, or no time that can be, says nothing.
        let lag = lag.map(|lag| if lag < 0.0 { 0.0 } else { lag });
        match lag.and_then(|lag| Duration::try_from_secs_f64(lag).ok()) {
            Some(lag) if lag <= most => Ok(()),
            Some(lag) => Err(Failure::Unfit(format!(
                "{:.1}s behind its primary, and {most:?} is the most",
                lag.as_secs_f64()
            ))),
            None => Err(Failure::Unfit("how far it is behind its primary is not known".into())),
        }
    }
}

/// Any PostgreSQL server answers this with one letter, and no session begins. With TLS on, it logs that none came.
async fn ask_for_tls(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&SSL_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' | b'N' => Ok(()),
        other => {
            let what = format!(
                "no PostgreSQL server: it answers SSLRequest with {:?}",
                char::from(other)
            );
            Err(io::Error::other(what))
        }
    }
}

async fn of_login(login: &PostgresLogin) -> io::Result<Config> {
    let mut config = Config::new();
    config
        .user(&*login.user)
        .dbname(&*login.database)
        .application_name("acequia")
        .ssl_mode(SslMode::Prefer);
    if let Some(file) = &login.password_file {
        let password = password(file).await.map_err(|error| of_file("password_file", error))?;
        config.password(password);
    }
    Ok(config)
}

/// Without its last line feed.
async fn password(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(file).await?.take(PASSWORD_BYTES_MAX + 1);
    file.read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(io::Error::other("it is too long for a password"));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

/// What the server said, where it said something: no more than it would say to anybody.
fn told(error: &tokio_postgres::Error) -> io::Error {
    if let Some(said) = error.as_db_error() {
        return io::Error::other(said.message().to_owned());
    }
    let kind = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let kind = kind.map_or(io::ErrorKind::Other, io::Error::kind);
    io::Error::new(kind, error.to_string())
}

fn read(answer: &[SimpleQueryMessage]) -> io::Result<(bool, Option<f64>)> {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    // A server may answer what was not asked: with too few columns, or with what is no text.
    let column = |number| row.and_then(|row| row.try_get(number).ok().flatten());
    let is_replica = column(0).ok_or_else(|| io::Error::other("it does not say whether it is a replica"))?;
    Ok((is_replica == "t", column(1).and_then(|lag| lag.parse().ok())))
}

#[cfg(test)]
mod tests;
