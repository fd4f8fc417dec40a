//! nginx without TLS. It answers every request with the HTTP version of the request.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::eventually;
use super::process::{Port, Process};

/// A running nginx. Dropping it kills it.
pub struct Nginx {
    port: Port,
    _process: Process,
    _directory: TempDir,
}

impl Nginx {
    /// Starts it. `words` are the parameters after the address in `listen`, for example `http2`.
    pub fn start(words: &str) -> Self {
        let (port, directory) = (Port::keep(), tempfile::tempdir().unwrap());
        let path = |name: &str| directory.path().join(name).display().to_string();
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid {pid}; error_log {error};\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {body}; proxy_temp_path {body}; fastcgi_temp_path {body};\n\
             uwsgi_temp_path {body}; scgi_temp_path {body}; default_type text/html;\n\
             server {{ listen {address} {words}; location / {{ return 200 $server_protocol; }} }} }}\n",
            pid = path("pid"),
            error = path("error.log"),
            body = path("body"),
            address = port.address,
        );
        std::fs::write(path("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-c", &path("nginx.conf"), "-e", &path("error.log")]);
        let process = Process::start(&mut command);
        eventually("nginx listens", || TcpStream::connect(port.address).is_ok());
        Self {
            port,
            _process: process,
            _directory: directory,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }
}
