//! What a server says of itself: whether it takes writes, how far it is behind, and its state in a Galera cluster.

use std::time::Duration;

use super::packet::{MysqlFailure, Packets, malformed};
use super::query::{Rows, query};
use crate::pool::Role;

/// `innodb_read_only` identifies a reader of Amazon Aurora. `version` identifies MariaDB.
const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
    ('read_only', 'super_read_only', 'innodb_read_only', 'wsrep_on', 'server_id', 'version')";

const GALERA_STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN \
    ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state')";

/// `wsrep_local_state` of a donor, and of a member that was desynchronized.
const DONOR: &str = "2";

/// ER_PARSE_ERROR
const PARSE_ERROR: u16 = 1064;

/// ER_SPECIFIC_ACCESS_DENIED_ERROR
const NO_PRIVILEGE: u16 = 1227;

/// The lag of a replica that does not say how far it is behind, because one of its threads has stopped or is not
/// connected.
pub(super) const STOPPED: Duration = Duration::MAX;

/// What a server says of itself.
pub(super) struct MysqlStatus {
    pub(super) role: Role,
    /// How far it is behind, or [`STOPPED`]; `None`: it is a primary, it has no source, or the user of the check may
    /// not ask for the lag.
    pub(super) lag: Option<Duration>,
    /// For a primary, its own `server_id`. For a replica, the `server_id` of its source, if it has only one source and
    /// is connected to it.
    pub(super) source: Option<u32>,
    /// `None`: it is not a member of a Galera cluster.
    pub(super) galera: Option<GaleraMember>,
}

/// A member of a Galera cluster.
pub(super) struct GaleraMember {
    pub(super) is_ready: bool,
    /// "Primary", "non-Primary" or "Disconnected"; "unknown" if the server does not report it.
    pub(super) cluster_status: String,
    pub(super) is_donor: bool,
}

impl MysqlStatus {
    /// Asks the server.
    ///
    /// # Errors
    /// Those of [`query`], and [`malformed`] if the answer does not say whether the server takes writes.
    pub(super) async fn ask(packets: &mut Packets) -> Result<Self, MysqlFailure> {
        let variables = query(packets, VARIABLES).await?;
        variables.variable("read_only").ok_or_else(malformed)?;
        // Since version 12, `read_only` of MariaDB has more values than ON and OFF.
        let is_set = |name| variables.variable(name).is_some_and(|value| value != "OFF");
        let galera = match is_set("wsrep_on") {
            true => Some(GaleraMember::read(&query(packets, GALERA_STATUS).await?)),
            false => None,
        };
        if !["read_only", "super_read_only", "innodb_read_only"]
            .into_iter()
            .any(is_set)
        {
            return Ok(Self {
                role: Role::Primary,
                lag: None,
                source: variables.variable("server_id").and_then(|id| id.parse().ok()),
                galera,
            });
        }
        let is_mariadb = variables
            .variable("version")
            .is_some_and(|version| version.contains("MariaDB"));
        let status = replica_status(packets, is_mariadb).await?;
        Ok(Self {
            role: Role::Replica,
            lag: status.as_ref().and_then(read_lag),
            source: status.as_ref().and_then(read_source),
            galera,
        })
    }
}

impl GaleraMember {
    fn read(status: &Rows) -> Self {
        Self {
            is_ready: status.variable("wsrep_ready") == Some("ON"),
            cluster_status: status.variable("wsrep_cluster_status").unwrap_or("unknown").to_owned(),
            is_donor: status.variable("wsrep_local_state") == Some(DONOR),
        }
    }
}

/// The status of the replica, with a row for each of its sources; `None`: the user of the check may not ask for it.
async fn replica_status(packets: &mut Packets, is_mariadb: bool) -> Result<Option<Rows>, MysqlFailure> {
    // Without `ALL`, MariaDB leaves out connections with a name. MySQL has no `ALL`, and shows all channels.
    let statement = match is_mariadb {
        true => "SHOW ALL SLAVES STATUS",
        false => "SHOW REPLICA STATUS",
    };
    let mut status = query(packets, statement).await;
    // MySQL before 8.0.22 knows only the former name of the statement.
    if let Err(MysqlFailure::Server { code: PARSE_ERROR, .. }) = status {
        status = query(packets, "SHOW SLAVE STATUS").await;
    }
    match status {
        Err(MysqlFailure::Server { code: NO_PRIVILEGE, .. }) => Ok(None),
        status => status.map(Some),
    }
}

/// The column that says whether a replica is connected to its source, by its present and its former name.
const IO_RUNNING: [&str; 2] = ["Replica_IO_Running", "Slave_IO_Running"];

/// `server_id` of a replica's source, if the replica has only one source and is connected to it.
fn read_source(status: &Rows) -> Option<u32> {
    let ids = status.column(&["Source_Server_Id", "Master_Server_Id"]);
    let mut sources = ids.zip(status.column(&IO_RUNNING));
    let (id, io_running) = sources.next()?;
    if sources.next().is_some() || io_running != Some("Yes") {
        return None;
    }
    id?.parse().ok()
}

/// How far a replica is behind; if it has several sources, the largest lag counts. `None` if it has no source.
fn read_lag(status: &Rows) -> Option<Duration> {
    let runs = |names: &[&str]| status.column(names).all(|state| state == Some("Yes"));
    if !runs(&IO_RUNNING) || !runs(&["Replica_SQL_Running", "Slave_SQL_Running"]) {
        return Some(STOPPED);
    }
    let seconds = status.column(&["Seconds_Behind_Source", "Seconds_Behind_Master"]);
    let lags = seconds.map(|seconds| Some(Duration::from_secs(seconds?.parse().ok()?)));
    lags.map(|lag| lag.unwrap_or(STOPPED)).max()
}
