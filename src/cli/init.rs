//! `acequia init`: writes a first configuration, from flags or from answers to three questions.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use toml::Value;

use super::exit::EXIT_CONFIG;
use super::terminal::{print, print_message};
use crate::config::{self, address};

/// The arguments of `acequia init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The address on which clients are accepted, as in 0.0.0.0:5432.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address)]
    listen: Option<String>,
    /// The servers, separated by commas.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = server_address)]
    servers: Vec<String>,
    /// What the servers speak: it decides how they are checked.
    #[arg(long)]
    service: Option<ServiceKind>,
    /// The file to write, or `-` for standard output; an existing file is not replaced.
    #[arg(long, short = 'o', value_name = "FILE", default_value = "acequia.toml")]
    output: PathBuf,
}

/// What the servers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServiceKind {
    Tcp,
    Tls,
    Postgres,
    Mysql,
    Redis,
}

impl ServiceKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
        }
    }
}

/// Asks for what the flags do not say, checks the answers and writes the file.
#[must_use]
pub fn run(args: &InitArgs) -> ExitCode {
    match write(args) {
        Ok(text) => print(&text),
        Err(error) => {
            print_message("error", &error);
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Returns the text for standard output: the configuration if `--output` is `-`, otherwise a message.
fn write(args: &InitArgs) -> Result<String, String> {
    let file = args.output.display().to_string();
    let is_stdout = file == "-";
    if !is_stdout && args.output.exists() {
        return Err(format!("{file} exists: name another file with --output"));
    }
    let answers = InitAnswers::complete(args, &mut io::stdin().lock())?;
    let text = answers.configuration();
    config::read("acequia.toml", &text).map_err(|report| format!("these answers are not valid\n{report}"))?;
    if is_stdout {
        return Ok(text);
    }
    let created = OpenOptions::new().write(true).create_new(true).open(&args.output);
    created
        .and_then(|created| write_or_remove(created, &args.output, &text))
        .map_err(|error| format!("cannot write {file}: {error}"))?;
    Ok(format!(
        "wrote {file}\nnext: acequia check -c {file} && acequia run -c {file}\n"
    ))
}

/// Writes the text to a new file. If that fails, the file is removed: an unfinished file would be in the way of the
/// next attempt, and might be a valid configuration.
fn write_or_remove(mut created: impl Write, file: &Path, text: &str) -> io::Result<()> {
    created.write_all(text.as_bytes()).inspect_err(|_| {
        let _ = fs::remove_file(file); // the error of writing is the one that counts
    })
}

/// The answers on which the configuration depends.
struct InitAnswers {
    listen: String,
    servers: Vec<String>,
    service: ServiceKind,
}

impl InitAnswers {
    /// The flags, and answers to questions for those that are missing.
    fn complete(args: &InitArgs, input: &mut impl BufRead) -> Result<Self, String> {
        let listen = match &args.listen {
            Some(listen) => listen.clone(),
            None => ask(input, "Accept clients on (ADDRESS:PORT)", listen_address)?,
        };
        let servers = match args.servers.as_slice() {
            [] => ask(input, "Servers (HOST:PORT, separated by commas)", |answer| {
                answer.split(',').map(server_address).collect()
            })?,
            servers => servers.to_vec(),
        };
        let service = match args.service {
            Some(service) => service,
            None => ask(
                input,
                "The servers speak (tcp, tls, postgres, mysql, redis)",
                |answer| {
                    let ignore_case = true;
                    ServiceKind::from_str(answer, ignore_case).map_err(|_| format!("`{answer}` is none of these"))
                },
            )?,
        };
        Ok(Self {
            listen,
            servers,
            service,
        })
    }

    fn configuration(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let service = self.service.as_str();
        let (name, protocol_line, roles_comment) = match self.service {
            ServiceKind::Tcp | ServiceKind::Tls => ("service", String::new(), ""),
            ServiceKind::Postgres | ServiceKind::Mysql | ServiceKind::Redis => (
                service,
                // 44: the column in which the comments of the other lines begin.
                format!(
                    "{:44}# Refused clients get an error that they can show.\n",
                    format!("protocol = \"{service}\"")
                ),
                "# With `user` and `password_file` in [pools.NAME.health], role = \"primary\" or \"replica\" uses only such \
                 servers.\n",
            ),
        };
        let servers: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("  {},\n", quoted(server)))
            .collect();
        format!(
            "# Written by `acequia init`. All keys: conf/full.toml, or /usr/share/doc/acequia/examples/full.toml.\n\
             \n\
             [listeners.{name}]\n\
             bind = {listen}\n\
             pool = \"{name}\"\n\
             {protocol_line}\
             # max_connections = 10000                   # Further clients wait in the kernel.\n\
             # guards = \"fair\"                           # Limits: see [guards.NAME].\n\
             \n\
             [pools.{name}]\n\
             # balance = \"least-conn\"                    # Or \"source-hash\", \"round-robin\", \"random-two\".\n\
             {roles_comment}\
             servers = [\n{servers}]\n\
             \n\
             [pools.{name}.health]\n\
             check = \"{service}\"\n\
             # interval = \"2s\"\n\
             \n\
             [admin]\n\
             bind = \"127.0.0.1:9090\"                     # /live, /ready, /metrics and the API.\n",
            listen = quoted(&self.listen),
            servers = servers.concat(),
        )
    }
}

/// The address to listen on, as text.
fn listen_address(text: &str) -> Result<String, String> {
    address::listen(text).map(|_| text.to_owned()).map_err(in_one_line)
}

/// The address of a server, as text without white space around it.
fn server_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    address::server(text).map(|_| text.to_owned()).map_err(in_one_line)
}

fn in_one_line((message, hint): (String, String)) -> String {
    format!("{message}: {hint}")
}

/// Asks on standard error, and again after each invalid answer.
fn ask<T>(input: &mut impl BufRead, question: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    let mut err = io::stderr();
    loop {
        let _ = write!(err, "{question}: ").and_then(|()| err.flush());
        let mut answer = String::new();
        match input.read_line(&mut answer) {
            Ok(0) => return Err(String::from("no answer: use --listen, --servers and --service")),
            Ok(_) => match parse(answer.trim()) {
                Ok(answer) => return Ok(answer),
                Err(why) => drop(writeln!(err, "{why}")),
            },
            Err(error) => return Err(format!("cannot read the answer: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_gets_a_valid_configuration_from_three_answers() {
        for service in ServiceKind::value_variants() {
            let args = InitArgs {
                listen: None,
                servers: Vec::new(),
                service: None,
                output: PathBuf::new(),
            };
            let input = format!("127.0.0.1:6432\n10.0.0.1:1, db.internal:2\n{}\n", service.as_str());
            let answers = InitAnswers::complete(&args, &mut input.as_bytes()).unwrap();
            let text = answers.configuration();
            let loaded = config::read("acequia.toml", &text).unwrap_or_else(|report| panic!("{report}\n{text}"));
            assert_eq!(loaded.plan.pools.iter().next().unwrap().entries.len(), 2);
            assert_eq!(loaded.warnings.to_string(), "", "{text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_whole_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("acequia.toml");
        fs::write(&file, "").unwrap();
        // No room is left after the first bytes.
        assert!(write_or_remove(&mut [0; 4][..], &file, "[listeners]").is_err());
        assert!(!file.exists());
    }

    #[test]
    fn the_end_of_the_input_before_a_valid_answer_is_an_error() {
        let args = InitArgs {
            listen: Some(String::from("127.0.0.1:1")),
            servers: vec![String::from("10.0.0.1:1")],
            service: None,
            output: PathBuf::new(),
        };
        for input in ["", "smtp\n"] {
            assert!(InitAnswers::complete(&args, &mut input.as_bytes()).is_err());
        }
    }
}
