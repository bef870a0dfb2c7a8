//! The command line: argv to command.

use crate::config::{self, Config, Faults, Overrides, Sources};
use crate::control::client::{self, Verdict};
use crate::control::protocol::Request;
use crate::control::watch;
use crate::fleet::SLOTS_MAX;
use crate::manual;
use crate::reactor::State;
use crate::sys::log;
use crate::sys::runtime::{control_socket, look};
use crate::sys::spawn::{Inherited, ignore_write_errors, inherited, reset_dispositions, reset_for_command};
use crate::sys::trust::Distrust;
use crate::sys::user;
use crate::{operator, run};
use boot::Exit;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use toml::de::DeTable;

/// The end of `--help` and of the manual page.
const MORE: &str = "\
Signals of the supervisor: TERM and INT drain and stop, the second one at once; QUIT stops at once; HUP reloads; USR2 \
upgrades; TTIN and TTOU add and remove a slot; USR1 writes the status to the log.

Exit codes: 0 done; 1 refused or failed, with every reason; 64 wrong command line; 69 no supervisor answers; \
70 program error; 78 the configuration, or something that it names, cannot work.

As a service: systemctl enable --now anyworker; systemctl reload anyworker. Its configuration is \
/etc/anyworker/supervisor.toml, its log `journalctl -u anyworker`.";

/// A pre-forking, multi-process Socket.IO server that needs no sticky sessions.
#[derive(Debug, Parser)]
#[command(
    name = "anyworker",
    version = boot::VERSION,
    propagate_version = true,
    arg_required_else_help = false,
    after_long_help = MORE
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// Configuration file [default: ./supervisor.toml, then /etc/anyworker/supervisor.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; may be repeated; overrides listen.address
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Workers to run; overrides workers.count
    #[arg(long, global = true, value_name = "N")]
    workers: Option<u16>,
    /// URL of Redis; overrides redis.url
    #[arg(long, global = true, value_name = "URL")]
    redis: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Run the supervisor and its workers (the default)
    Run,
    /// Check the configuration and print what is in effect, secrets masked
    Check {
        /// Also check whether the state of a supervisor on standard input can be read
        #[arg(long, hide = true)]
        state: bool,
    },
    /// Show supervisor and workers; exits 0 if every slot serves, 1 if not
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Repeat: a live view on a terminal, otherwise lines
        #[arg(long)]
        watch: bool,
        /// Seconds between updates
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = ops::seconds, requires = "watch")]
        every: Duration,
    },
    /// Replace the workers one by one, using the configuration and binary now on disk
    Reload {
        /// Wait for the end; exits 0 when every slot runs the new generation
        #[arg(long)]
        wait: bool,
    },
    /// Continue the supervisor as the binary now on disk, in the same process, and replace the workers
    Upgrade {
        /// Wait for the end; exits 0 when supervisor and every slot run the new binary
        #[arg(long)]
        wait: bool,
    },
    /// Spread live connections evenly over the workers, without a disconnect
    Rebalance,
    #[command(flatten)]
    Operator(ops::Command),
    /// Drain, stop, and wait for the end
    Stop {
        /// Do not drain
        #[arg(long)]
        fast: bool,
    },
    /// Change the number of slots until the next reload
    Scale {
        /// Number of slots
        #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SLOTS_MAX)))]
        slots: u16,
    },
    /// Write manual pages, shell completions and docs/configure.md
    #[command(hide = true)]
    Manual {
        /// Output directory
        directory: PathBuf,
    },
    /// A worker; only the supervisor can start it
    #[command(hide = true)]
    Worker {
        /// Shown in `ps` only
        #[arg(long)]
        slot: u16,
        /// Shown in `ps` only
        #[arg(long)]
        generation: u64,
    },
}

/// Runs a worker with its inherited descriptors, until it exits.
pub type Worker = fn(Inherited) -> Exit;

/// The whole program; `worker` is what runs in the processes that serve clients.
#[must_use]
pub fn main(worker: Worker) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no error.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return match error.print() {
                Err(failed) if !error.use_stderr() && failed.kind() != ErrorKind::BrokenPipe => Exit::Internal.into(),
                _ => code.into(),
            };
        }
    };
    match cli.command {
        // The supervisor has set all others; one of an earlier build not these.
        Some(Command::Worker { .. }) => ignore_write_errors(),
        None | Some(Command::Run) => reset_dispositions(),
        Some(_) => reset_for_command(),
    }
    let executed = execute(cli, worker);
    // What was logged last may still wait.
    log::flush();
    match executed {
        Ok(code) => code,
        // The reader of the output has closed its end.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Done.into(),
        Err(error) => {
            // The reason is all that can be given; without standard error there is only the code.
            writeln!(io::stderr(), "anyworker: {error}").ok();
            Exit::Internal.into()
        }
    }
}

fn execute(cli: Cli, worker: Worker) -> io::Result<ExitCode> {
    let Cli { options, command } = cli;
    let sources = sources(&options);
    let (request, json) = match command.unwrap_or(Command::Run) {
        Command::Run => return Ok(run::run(sources).into()),
        Command::Check { state } => return check(&sources, state),
        Command::Manual { directory } => {
            manual::write(Cli::command(), &directory)?;
            return Ok(Exit::Done.into());
        }
        Command::Worker { .. } => return work(worker),
        Command::Operator(command) => {
            return match config::load(&sources) {
                Ok(config) => operator::run(&command, config),
                Err(faults) => complain(&faults),
            };
        }
        Command::Rebalance => (Request::Rebalance, false),
        Command::Reload { wait } => (Request::Reload { wait }, false),
        Command::Scale { slots } => (Request::Scale { workers: slots }, false),
        Command::Upgrade { wait } => (Request::Upgrade { wait }, false),
        Command::Status {
            json,
            watch: true,
            every,
            ..
        } => {
            return match runtime_directory(&sources) {
                Ok(directory) => Ok(watch::watch(&control_socket(&directory), json, every)?.into()),
                Err(faults) => complain_of_place(&faults),
            };
        }
        Command::Status { json, .. } => (Request::Status, json),
        Command::Stop { fast } => (Request::Stop { fast }, false),
    };
    match runtime_directory(&sources) {
        Ok(directory) => Ok(client::run(&control_socket(&directory), request, json)?.into()),
        Err(faults) => complain_of_place(&faults),
    }
}

fn sources(options: &Options) -> Sources {
    let overrides = Overrides {
        listen: options.listen.clone(),
        redis: options.redis.clone(),
        workers: options.workers,
    };
    // A name that is not UTF-8 cannot be one of ours; a value of ours is refused for its replacement characters.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    Sources {
        file: options.config.clone(),
        env: env.collect(),
        overrides,
    }
}

fn check(sources: &Sources, state: bool) -> io::Result<ExitCode> {
    if state && let Err(error) = State::read(io::stdin().lock()) {
        writeln!(io::stderr(), "state of the supervisor not usable: {error}").ok();
        return Ok(Exit::Config.into());
    }
    match config::load(sources) {
        Ok(config) => {
            if let Err(error) = user::resolve(config.workers.user.as_deref()) {
                writeln!(io::stderr(), "{error}").ok();
                return Ok(Exit::Config.into());
            }
            if let Err(distrust) = look(&config.runtime_directory)
                && is_fault(&distrust, nix::unistd::geteuid().is_root())
            {
                writeln!(io::stderr(), "runtime.directory: {distrust}").ok();
                return Ok(Exit::Config.into());
            }
            io::stdout().write_all(config.masked_toml().as_bytes())?;
            for notice in &config.notices {
                writeln!(io::stderr(), "notice: {notice}").ok();
            }
            Ok(Verdict::Good.into())
        }
        Err(faults) => complain(&faults),
    }
}

/// Whether `run` would refuse the runtime directory for this. Root may ask for a fleet of another user that is not running:
/// then nothing says that the owner of the directory is the wrong one.
const fn is_fault(distrust: &Distrust, is_root: bool) -> bool {
    match distrust {
        Distrust::Kind { .. } | Distrust::Writable { .. } => true,
        Distrust::Link { .. } | Distrust::Owner { .. } => !is_root,
        // This user may not look there; it is another one's fleet.
        Distrust::Io { .. } => false,
    }
}

/// Nothing says where the supervisor is: the file may have gone after it was started. No other place is tried, where
/// another supervisor might get what is meant for this one.
fn complain_of_place(faults: &Faults) -> io::Result<ExitCode> {
    let code = complain(faults)?;
    writeln!(
        io::stderr(),
        "a running supervisor is found without the file by its runtime directory: set ANYWORKER_RUNTIME__DIRECTORY to it; \
         the line \"serving\" of its log, and /proc/PID/environ or the unit, name it"
    )
    .ok();
    Ok(code)
}

/// The code is the verdict of a command. Standard error only explains it, and may be closed.
fn complain(faults: &Faults) -> io::Result<ExitCode> {
    writeln!(io::stderr(), "{faults}").ok();
    Ok(Exit::Config.into())
}

fn work(worker: Worker) -> io::Result<ExitCode> {
    match inherited() {
        Ok(inherited) => {
            log::start(&inherited.setup.settings.logging);
            Ok(worker(inherited).into())
        }
        Err(error) => {
            writeln!(io::stderr(), "anyworker: {error}").ok();
            Ok(Exit::Usage.into())
        }
    }
}

/// Where the supervisor of this configuration is. A configuration that has become bad since it was
/// started must not prevent commands from reaching it, so then the one key that matters is enough.
fn runtime_directory(sources: &Sources) -> Result<PathBuf, Faults> {
    let faults = match config::load(sources) {
        Ok(Config { runtime_directory, .. }) => return Ok(runtime_directory),
        Err(faults) => faults,
    };
    let from_env = sources.env.get("ANYWORKER_RUNTIME__DIRECTORY").cloned();
    let directory = from_env.or_else(|| {
        let file = sources.file.clone().unwrap_or_else(|| PathBuf::from("supervisor.toml"));
        directory_line(&config::text_of(&file)?)
    });
    directory
        .map(PathBuf::from)
        .and_then(|path| std::path::absolute(path).ok())
        .ok_or(faults)
}

/// `[runtime] directory`, even of a file of which another part is no TOML any more.
fn directory_line(text: &str) -> Option<String> {
    let (document, _) = DeTable::parse_recoverable(text);
    let runtime = document.get_ref().get("runtime")?.get_ref();
    Some(runtime.get("directory")?.get_ref().as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from([
            "anyworker",
            "--config",
            "a.toml",
            "reload",
            "--wait",
            "--listen",
            "[::1]:80",
        ]);
        let cli = cli.unwrap();
        assert!(matches!(cli.command, Some(Command::Reload { wait: true })));
        assert_eq!(cli.options.listen, ["[::1]:80"]);
        for slots in ["0", "1025", "100000"] {
            let error = Cli::try_parse_from(["anyworker", "scale", slots]).unwrap_err();
            assert!(error.to_string().contains("1..=1024"), "{error}");
        }
        assert!(Cli::try_parse_from(["anyworker"]).unwrap().command.is_none());
    }

    #[test]
    fn an_id_may_begin_with_a_hyphen() {
        for words in [
            &["kick", "-ZiP_9gi_"][..],
            &["kick", "-ZiP_9gi_", "abcdef", "--config", "a.toml"],
            &["kick", "--config", "a.toml", "--", "abcdef", "-ZiP_9gi_"],
            &["show", "-ZiP_9gi_", "--json", "--config", "a.toml"],
        ] {
            let cli = Cli::try_parse_from([&["anyworker", "sessions"], words].concat());
            let config = cli.map(|cli| cli.options.config);
            assert_eq!(
                config.is_ok_and(|config| config.is_some()),
                words.contains(&"--config"),
                "{words:?}"
            );
        }
        assert!(Cli::try_parse_from(["anyworker", "sessions", "kick"]).is_err());
    }

    #[test]
    fn a_broken_file_still_says_where_the_supervisor_is() {
        let text = "[listen]\ndirectory = \"no\"\n[runtime]\n# x\ndirectory = \"/run/a b\" # y\n[redis\nurl = 3 3";
        assert_eq!(directory_line(text).as_deref(), Some("/run/a b"));
        assert_eq!(directory_line("[runtime]\n[x]\ndirectory = 'a'"), None);
    }
}
