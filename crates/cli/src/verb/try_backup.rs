//! `lifeboat try`.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use engine::place::Which;
use engine::source::SourceOptions;
use engine::try_etcd::{Proof, Request, Scratch, run_tied, start};
use engine::{Code, Failure, Outcome};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{GlobalArgs, IdentityArgs, RepositoryArgs, SourceArgs, SpoolArgs};
use crate::output::{self, Format};
use crate::progress::Teller;
use crate::resolve::Resolved;

/// How often it is looked whether etcd still runs.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a command that was told to end may take.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Where `etcd` is looked for after `PATH`.
const USUAL_PLACES: [&str; 2] = ["/usr/local/bin", "/usr/bin"];
/// What etcdctl would take from the environment and what is wrong for a scratch etcd.
const FOREIGN: [&str; 8] = [
    "ETCDCTL_CACERT",
    "ETCDCTL_CERT",
    "ETCDCTL_KEY",
    "ETCDCTL_USER",
    "ETCDCTL_PASSWORD",
    "ETCDCTL_INSECURE_SKIP_TLS_VERIFY",
    "ETCDCTL_DISCOVERY_SRV",
    "ETCDCTL_CLUSTER",
];

/// Arguments of `lifeboat try`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "While it runs, the backup's content lies unencrypted in a directory that only its owner may enter, and every user of this\nmachine can reach the scratch etcd on 127.0.0.1."
)]
pub(crate) struct Args {
    /// Which backup: id, unique prefix, last six characters, latest, latest~N, @REVISION
    #[arg(value_name = "WHICH", default_value = "latest")]
    which: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// The newest backup not later than this: RFC 3339, local time, or '2 hours ago'
    #[arg(long, value_name = "WHEN", conflicts_with = "which")]
    at: Option<String>,
    /// The etcd to run [default: etcd in PATH, then /usr/local/bin]
    #[arg(long, value_name = "PATH", env = "LIFEBOAT_ETCD")]
    etcd: Option<PathBuf>,
    /// Name of the scratch member
    #[arg(long, value_name = "NAME", default_value = "lifeboat-try", env = "LIFEBOAT_TRY_NAME")]
    name: String,
    /// Directory below which the scratch data goes [default: the spool directory]
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_TRY_DIR")]
    dir: Option<PathBuf>,
    /// User of the backup's own authentication, where that is on
    #[arg(long, value_name = "NAME[:PASSWORD]", env = "LIFEBOAT_USER")]
    user: Option<String>,
    /// File that holds the password for --user
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// Run this with ETCDCTL_ENDPOINTS set, then end with its exit code
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Arguments of the hidden verb that ties a process to its parent.
#[derive(clap::Args, Debug)]
pub(crate) struct TiedArgs {
    /// The parent's process id
    parent: u32,
    /// The program
    program: OsString,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes a program that the kernel ends together with its parent. Not for people: `try` starts etcd through it.
pub(crate) fn tied(args: &TiedArgs) -> Outcome<Code> {
    Err(run_tied(args.parent, &args.program, &args.arguments))
}

/// How it ended.
enum End {
    /// A person said that it is enough.
    Told,
    /// The command ended.
    Command(ExitStatus),
}

/// Runs `lifeboat try`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let command = args.command.clone();
    let request = request(global, args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
    let end = runtime.block_on(session(global, request, &command));
    runtime.shutdown_background();
    match end? {
        End::Told => Ok(Code::Ok),
        End::Command(status) if status.success() => Ok(Code::Ok),
        End::Command(status) => {
            disk::crash::report();
            std::process::exit(exit_code(status))
        }
    }
}

/// As a shell tells it: the command's own code, or 128 and the signal's number.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

fn request(global: &GlobalArgs, args: Args) -> Outcome<Request> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let login = SourceArgs {
        endpoints: vec!["http://127.0.0.1".to_owned()],
        user: args.user,
        password_file: args.password_file,
        ..SourceArgs::default()
    };
    let spool = resolved.spool(&SpoolArgs::default())?;
    let base_named = args.dir.is_some() || spool.directory.is_some();
    Ok(Request {
        place: resolved.place_to_read(global, &args.repository)?,
        cluster: resolved.cluster.clone(),
        which: Which::parse(&args.which, args.at.as_deref())?,
        opening: resolved.opening(&args.identity)?,
        etcd: args.etcd,
        search: search(),
        base: engine::init::keys::absolute(&args.dir.or(spool.directory).unwrap_or_else(engine::spool::default_directory))?,
        base_named,
        name: args.name,
        credentials: crate::source::etcd(SourceOptions::default(), &login)?.credentials,
        tie: tie(),
    })
}

/// Where `etcd` is looked for when none is named.
pub(crate) fn search() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|place| place.is_absolute()).chain(USUAL_PLACES.map(PathBuf::from)).collect()
}

/// The words before a command that ends with this process.
pub(crate) fn tie() -> Vec<OsString> {
    // /proc/self/exe is this very program, even when its file was replaced since.
    vec!["/proc/self/exe".into(), TIED.into(), std::process::id().to_string().into(), "--".into()]
}

/// The hidden verb's name.
pub(crate) const TIED: &str = "run-tied";

async fn session(global: &GlobalArgs, request: Request, command: &[OsString]) -> Outcome<End> {
    let mut told = Told::listen()?;
    let quiet = global.quiet;
    let teller = Arc::new(Teller::new(global));
    let mut scratch = tokio::select! {
        scratch = start(request, teller) => scratch?,
        failure = told.next() => return Err(failure),
    };
    if !quiet {
        introduce(&scratch, command.is_empty());
    }
    let end = if command.is_empty() {
        announce(global, &scratch)?;
        tokio::select! {
            _ = told.next() => Ok(End::Told),
            failure = ended(&mut scratch) => Err(failure),
        }
    } else {
        run_command(&mut scratch, command, &mut told).await.map(End::Command)
    };
    // Whatever happened, it goes; that it could not go is worth saying only where nothing worse happened.
    let stopped = scratch.stop();
    let end = end?;
    stopped.map(|()| end)
}

fn introduce(scratch: &Scratch, stays: bool) {
    let restored = &scratch.restored;
    for warning in &restored.warnings {
        output::say(&format!("warning: {warning}"));
    }
    output::say(&format!(
        "etcd {} serves backup {} of '{}' (revision {}, {} keys) at {}",
        scratch.binary.version, restored.id, restored.cluster, restored.revision, restored.keys, scratch.endpoint
    ));
    match &scratch.proof {
        Proof::Match(words) => output::say(&format!("proof: HashKV {words}")),
        Proof::Inconclusive(words) => output::say(&format!("proof: HashKV inconclusive: {words}")),
    }
    output::say(&format!("data: unencrypted in {}, removed at the end", scratch.directory().display()));
    let foreign: Vec<&str> = FOREIGN.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    if stays {
        if !foreign.is_empty() {
            output::say(&format!("note: this environment has settings of another etcd: unset {}", foreign.join(" ")));
        }
        output::say("Ctrl-C ends it");
    }
}

/// What a shell takes over; nothing else goes to standard output.
fn announce(global: &GlobalArgs, scratch: &Scratch) -> Outcome<()> {
    match global.format() {
        Format::Table | Format::Simple => {
            output::print(&format!("export ETCDCTL_ENDPOINTS={}\nexport ETCDCTL_API=3\n", scratch.endpoint));
            Ok(())
        }
        format => {
            let (hashkv, words) = match &scratch.proof {
                Proof::Match(words) => ("match", words),
                Proof::Inconclusive(words) => ("inconclusive", words),
            };
            let value = json!({
                "id": scratch.restored.id,
                "cluster": scratch.restored.cluster,
                "revision": scratch.restored.revision,
                "keys": scratch.restored.keys,
                "endpoint": scratch.endpoint,
                "etcd": scratch.binary.version.to_string(),
                "hashkv": hashkv,
                "why": words,
                "changes": scratch.restored.changes,
                "warnings": scratch.restored.warnings,
            });
            output::value(format, "lifeboat.try/1", value)
        }
    }
}

/// Resolves when etcd ends by itself.
async fn ended(scratch: &mut Scratch) -> Failure {
    loop {
        if let Some(status) = scratch.ended() {
            return Failure::failed(format!("the scratch etcd ended by itself ({status})"))
                .cause(format!("its last words:\n{}", scratch.log_tail()))
                .again();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Runs a command against the scratch etcd. It has the terminal, so Ctrl-C reaches it without us; what is sent to us alone is passed on.
async fn run_command(scratch: &mut Scratch, command: &[OsString], told: &mut Told) -> Outcome<ExitStatus> {
    let Some((program, arguments)) = command.split_first() else { return Err(Failure::usage("there is no command")) };
    let mut prepared = Command::new(program);
    prepared.args(arguments).env("ETCDCTL_ENDPOINTS", &scratch.endpoint).env("ETCDCTL_API", "3").kill_on_drop(true);
    for name in FOREIGN {
        prepared.env_remove(name);
    }
    let mut child = prepared
        .spawn()
        .map_err(|error| Failure::usage(format!("the command cannot be started: {error}")).object(program.to_string_lossy()).again())?;
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(|error| Failure::failed(format!("the command cannot be waited for: {error}"))),
            failure = ended(scratch) => return Err(failure),
            failure = told.next() => {
                if failure.code != Code::Interrupted || !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
                    return pass_on(&mut child, &failure).await;
                }
            }
        }
    }
}

/// Tells the command to end, and waits for it, but not for ever.
async fn pass_on(child: &mut Child, failure: &Failure) -> Outcome<ExitStatus> {
    if let Some(pid) = child.id() {
        engine::try_etcd::tell(pid, failure.code == Code::Interrupted);
    }
    match tokio::time::timeout(ENDS_WITHIN, child.wait()).await {
        Ok(status) => status.map_err(|error| Failure::failed(format!("the command cannot be waited for: {error}"))),
        Err(_) => Err(failure.clone()),
    }
}

/// The signals that end it. A terminal that is closed ends it too, or the data would stay.
struct Told {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Told {
    fn listen() -> Outcome<Self> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("signals cannot be listened to: {error}")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Failure {
        tokio::select! {
            _ = self.interrupt.recv() => Failure::new(Code::Interrupted, "interrupted; the scratch data were removed"),
            _ = self.terminate.recv() => Failure::new(Code::Terminated, "terminated; the scratch data were removed"),
            _ = self.hang_up.recv() => Failure::new(Code::Terminated, "the terminal is gone; the scratch data were removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_end_is_told_as_a_shell_tells_it() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(15)), 143);
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
    }
}
