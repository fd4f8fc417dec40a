//! MariaDB servers, and their replicas.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::eventually;
use super::process::{Port, Process, finished, must};

/// A MariaDB server with a binary log. `root` needs no password at the Unix socket; over TCP there are `app`, without a
/// password and with all privileges but SUPER and READ_ONLY ADMIN, and `checker`, which may only watch the replication
/// and needs [`PASSWORD`].
pub struct MariaDb {
    port: Port,
    process: Process,
    directory: TempDir,
    /// As a node of a Galera cluster it listens on these ports: for the other nodes, for incremental state transfers,
    /// and for full ones.
    cluster: [Port; 3],
}

/// The Galera library, where the Debian package `galera-4` installs it.
const GALERA: &str = "/usr/lib/galera/libgalera_smm.so";

/// The password of `checker`.
pub const PASSWORD: &str = "correct horse battery";

/// Creates the accounts, without writing this to the binary log: a replica creates its own accounts.
const ACCOUNTS: &str = "SET sql_log_bin = 0; \
    CREATE USER app@'127.0.0.1'; GRANT ALL ON *.* TO app@'127.0.0.1'; REVOKE READ_ONLY ADMIN, SUPER ON *.* FROM app@'127.0.0.1'; \
    CREATE USER checker@'127.0.0.1' IDENTIFIED BY 'correct horse battery'; \
    GRANT SLAVE MONITOR ON *.* TO checker@'127.0.0.1'";

impl MariaDb {
    /// A server with this `server_id`, and these settings.
    pub fn start(server_id: u32, settings: &[&str]) -> Self {
        let server = Self::start_without_accounts(server_id, settings, [Port::keep(), Port::keep(), Port::keep()]);
        server.run(ACCOUNTS);
        server
    }

    /// A node of a Galera cluster. It joins the node `first`; without that, it is the first node of a new cluster.
    pub fn galera_node(server_id: u32, first: Option<&Self>) -> Self {
        let cluster = [Port::keep(), Port::keep(), Port::keep()];
        let [own, incremental, full] = cluster.each_ref().map(|port| port.address);
        let peers = first.map_or_else(String::new, |first| first.cluster[0].address.to_string());
        let mut settings = vec![
            "--binlog-format=ROW".to_owned(),
            "--innodb-autoinc-lock-mode=2".to_owned(),
            "--wsrep-on=ON".to_owned(),
            format!("--wsrep-provider={GALERA}"),
            format!("--wsrep-node-address={own}"),
            format!("--wsrep-provider-options=gmcast.listen_addr=tcp://{own};ist.recv_addr={incremental}"),
            format!("--wsrep-sst-receive-address={full}"),
            "--wsrep-sst-method=rsync".to_owned(),
            format!("--wsrep-cluster-address=gcomm://{peers}"),
        ];
        settings.extend(first.is_none().then(|| "--wsrep-new-cluster".to_owned()));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let node = Self::start_without_accounts(server_id, &settings, cluster);
        if first.is_none() {
            node.run(ACCOUNTS); // the other nodes copy them from this one
        }
        eventually("the node is ready", || {
            node.run("SHOW STATUS LIKE 'wsrep_ready'").contains("ON")
        });
        node
    }

    fn start_without_accounts(server_id: u32, settings: &[&str], cluster: [Port; 3]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        must(Command::new("chown").arg("mysql").arg(directory.path()));
        let mut install = as_mysql("mariadb-install-db");
        install.args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        install.arg(format!("--datadir={}", directory.path().join("data").display()));
        install.arg(format!("--tmpdir={}", directory.path().display()));
        must(&mut install);
        let port = Port::keep();
        let mut command = as_mysql("mariadbd");
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", directory.path().join("data").display()))
            // Not shared: at its start, a server removes all temporary tables in this directory.
            .arg(format!("--tmpdir={}", directory.path().display()))
            .arg(format!("--socket={}", directory.path().join("socket").display()))
            .arg(format!("--pid-file={}", directory.path().join("pid").display()))
            .arg(format!("--port={}", port.number()))
            .arg(format!("--server-id={server_id}"))
            .args(["--bind-address=127.0.0.1", "--log-bin=log", "--gtid-strict-mode=ON"])
            .args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"])
            .args(settings);
        let process = Process::start(&mut command);
        let server = Self {
            port,
            process,
            directory,
            cluster,
        };
        eventually("MariaDB answers", || {
            finished(&mut server.client("SELECT 1")).code == Some(0)
        });
        server
    }

    /// A server that follows another one by GTID, and is read-only.
    pub fn replica_of(primary: &Self, server_id: u32) -> Self {
        let replica = Self::start(server_id, &["--read-only=ON"]);
        replica.run(&format!(
            "CHANGE MASTER TO master_host = '127.0.0.1', master_port = {}, master_user = 'app', \
             master_connect_retry = 1, master_use_gtid = slave_pos; START SLAVE",
            primary.port.number()
        ));
        eventually("the replica follows", || {
            let status = replica.run("SHOW SLAVE STATUS\\G");
            status.contains("Slave_IO_Running: Yes") && status.contains("Slave_SQL_Running: Yes")
        });
        replica
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Runs statements as root, and returns their answers.
    pub fn run(&self, statements: &str) -> String {
        must(&mut self.client(statements))
    }

    fn client(&self, statements: &str) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-u", "root", "-B", "-S"]);
        command
            .arg(self.directory.path().join("socket"))
            .args(["-e", statements]);
        command
    }

    /// Suspends it with SIGSTOP, as if the machine hung, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Its log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.process.stderr.lines()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The client program with statements for the server at this address, as `app`; prints only values.
pub fn mariadb(address: SocketAddr, statements: &str) -> Command {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "-u", "app", "-N", "-B", "--connect-timeout=5", "-h"]);
    command.arg(address.ip().to_string());
    command.args(["-P", &address.port().to_string(), "-e", statements]);
    command
}

/// MariaDB refuses to run as root.
fn as_mysql(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=mysql", "--regid=mysql", "--clear-groups", program]);
    command
}
