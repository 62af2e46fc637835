//! The etcd process: its arguments, waiting until it serves, and its certain end.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use etcd_api::{Client, ConnectOptions, Endpoint, ErrorKind, LinkFault};

use super::directory::Directory;
use super::{Binary, NotServed, Request};
use crate::failure::{Code, Failure, Outcome};
use crate::limits::{TRY_BOOT_WITHIN, TRY_QUOTA_LEAST};
use crate::progress::Progress;
use crate::{restore, source_failure};

/// How often other ports are tried when somebody else was faster on one.
const PORT_TRIES: usize = 5;
/// How often it is looked whether etcd serves yet.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// After this time of waiting a person is told what is waited for.
const SAY_AFTER: Duration = Duration::from_secs(5);
/// Bytes at the end of the log that are looked at.
const LOG_TAIL: u64 = 16 << 10;
/// Lines of it that are shown, and characters of each.
const LOG_LINES: usize = 5;
const LOG_WIDTH: usize = 300;
/// What a line begins with that etcd logs once its flags are read.
const LOGS_SO: &str = "{\"level\"";
/// What etcd says when the machine lacks something.
const OF_THE_MACHINE: [&str; 6] =
    ["no space left on device", "cannot allocate memory", "too many open files", "input/output error", "verifying flags", "verify flags"];
/// etcd 3.4 does not know the flag.
const NO_FSYNC_SINCE: u32 = 5;

/// A running etcd. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub(super) struct Etcd {
    child: Child,
    log: PathBuf,
    _starter: Starter,
}

/// The thread that started etcd. It lives until this is dropped: the kernel ends what is tied to a process when the thread that started it ends, and
/// threads of a runtime come and go.
#[derive(Debug)]
struct Starter(#[allow(dead_code, reason = "what counts is when it is dropped")] mpsc::Sender<()>);

impl Starter {
    fn start(mut command: Command) -> std::io::Result<(Child, Self)> {
        let (tell, told) = mpsc::channel();
        let (keep, kept) = mpsc::channel::<()>();
        std::thread::Builder::new().name("etcd".to_owned()).spawn(move || {
            // Nobody waits any more only when everything ends.
            let _ = tell.send(command.spawn());
            let _ = kept.recv();
        })?;
        let child = told.recv().map_err(std::io::Error::other)??;
        Ok((child, Self(keep)))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Its data are thrown away, so there is nothing to end gently. One that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Etcd {
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(super) fn log_tail(&self) -> String {
        let text = tail(&self.log);
        let lines: Vec<String> = text.lines().map(|line| line.chars().take(LOG_WIDTH).collect()).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

fn tail(log: &Path) -> String {
    let Ok(file) = disk::File::open_read(log) else { return String::new() };
    let length = file.len().unwrap_or(0);
    let from = length.saturating_sub(LOG_TAIL);
    let mut bytes = vec![0; usize::try_from(length - from).unwrap_or(0)];
    let read = file.read_at(&mut bytes, from).unwrap_or(0);
    bytes.truncate(read);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An etcd that serves.
pub(super) enum Ready {
    /// It answers us.
    Open(Client),
    /// It wants a user, and none was given.
    Closed,
}

/// Why it does not serve.
enum Trouble {
    /// Somebody else has the port.
    PortTaken,
    /// It never will, and that says nothing of the data.
    Failed(Failure),
    /// etcd does not run on these data.
    Refused(Failure),
}

/// Starts etcd on what was restored and waits until it serves.
pub(super) async fn boot(
    request: &Request,
    binary: &Binary,
    directory: &Directory,
    restored: &restore::Report,
    progress: &dyn Progress,
) -> Result<(Etcd, String, Ready), NotServed> {
    let size = std::fs::metadata(directory.database()).map_or(0, |metadata| metadata.len());
    for _ in 0..PORT_TRIES {
        let [client, peer] = free_ports()?;
        let words = arguments(&request.name, &directory.data(), client, peer, size, binary);
        let mut etcd = spawn(request, binary, &words, &directory.log())?;
        let endpoint = format!("http://{}:{client}", Ipv4Addr::LOCALHOST);
        match wait(&mut etcd, &endpoint, request, restored, progress).await {
            Ok(ready) => return Ok((etcd, endpoint, ready)),
            Err(Trouble::PortTaken) => {}
            Err(Trouble::Failed(failure)) => return Err(NotServed::Hindered(failure)),
            Err(Trouble::Refused(failure)) => return Err(NotServed::Refused(failure)),
        }
    }
    Err(Failure::failed(format!("no free port on 127.0.0.1 could be kept for etcd in {PORT_TRIES} tries")).again().into())
}

/// Two ports that nobody has at this moment. Somebody may be faster than etcd; then others are tried.
fn free_ports() -> Outcome<[u16; 2]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let ports = || -> std::io::Result<[u16; 2]> {
        // Both at once, so that they differ.
        let (first, second) = (listen()?, listen()?);
        Ok([first.local_addr()?.port(), second.local_addr()?.port()])
    };
    ports().map_err(|error| Failure::failed(format!("there is no free port on 127.0.0.1: {error}")).again())
}

fn arguments(name: &str, data: &Path, client: u16, peer: u16, size: u64, binary: &Binary) -> Vec<OsString> {
    let url = |port: u16| format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
    let mut words: Vec<OsString> = [
        ("name", name.to_owned()),
        ("listen-client-urls", url(client)),
        ("advertise-client-urls", url(client)),
        ("listen-peer-urls", url(peer)),
        ("initial-advertise-peer-urls", url(peer)),
        ("initial-cluster", format!("{name}={}", url(peer))),
        ("quota-backend-bytes", size.saturating_mul(2).max(TRY_QUOTA_LEAST).to_string()),
        // 3.4 still has another logger by default.
        ("logger", "zap".to_owned()),
        ("log-outputs", "stderr".to_owned()),
    ]
    .iter()
    .map(|(flag, value)| format!("--{flag}={value}").into())
    .collect();
    let mut data_dir = OsString::from("--data-dir=");
    data_dir.push(data);
    words.push(data_dir);
    if binary.version.minor >= NO_FSYNC_SINCE {
        words.push("--unsafe-no-fsync".into());
    }
    words
}

/// What etcd gets of this process's environment: nothing that configures it.
pub(super) fn kept_environment() -> Vec<(OsString, OsString)> {
    // Releases before 3.5 refuse to start on arm64 without the first.
    ["ETCD_UNSUPPORTED_ARCH", "PATH"].iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?))).collect()
}

fn spawn(request: &Request, binary: &Binary, words: &[OsString], log: &Path) -> Outcome<Etcd> {
    let failed = |error: std::io::Error| Failure::failed(format!("etcd cannot be started: {error}")).object(binary.path.display()).again();
    // Another try begins another log, so that what the last one said is not taken for this one's.
    let _ = disk::remove_file(log);
    drop(disk::File::create_new(log, 0o600).map_err(failed)?);
    let open = || std::fs::File::options().append(true).open(log).map_err(failed);
    let mut whole: Vec<&OsStr> = request.tie.iter().map(OsString::as_os_str).collect();
    whole.push(binary.path.as_os_str());
    whole.extend(words.iter().map(OsString::as_os_str));
    let (program, arguments) = whole.split_first().ok_or_else(|| Failure::failed("there is nothing to start"))?;
    let mut command = Command::new(program);
    let _ = command
        .args(arguments)
        .env_clear()
        .envs(kept_environment())
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?)
        // Ctrl-C is for us alone: etcd ends when we are done with it.
        .process_group(0);
    let (child, starter) = Starter::start(command).map_err(failed)?;
    Ok(Etcd { child, log: log.to_owned(), _starter: starter })
}

async fn wait(
    etcd: &mut Etcd,
    endpoint: &str,
    request: &Request,
    restored: &restore::Report,
    progress: &dyn Progress,
) -> Result<Ready, Trouble> {
    let begun = Instant::now();
    let mut said = false;
    loop {
        if let Some(status) = etcd.ended() {
            return Err(ended(etcd, status));
        }
        match look(endpoint, request, restored).await {
            Ok(Some(ready)) => return Ok(ready),
            Ok(None) => {}
            Err(trouble) => {
                // Whoever answered may be another process, because of which ours is about to end.
                tokio::time::sleep(LOOK_EVERY).await;
                return Err(match etcd.ended() {
                    Some(status) => ended(etcd, status),
                    None => trouble,
                });
            }
        }
        if begun.elapsed() > TRY_BOOT_WITHIN {
            let what = format!("the restored etcd does not serve after {} s", TRY_BOOT_WITHIN.as_secs());
            return Err(Trouble::Failed(Failure::failed(what).object(endpoint).cause(etcd.log_tail()).again()));
        }
        if !said && begun.elapsed() > SAY_AFTER {
            progress.say("etcd reads its data; this takes longer the more keys there are");
            said = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn ended(etcd: &Etcd, status: ExitStatus) -> Trouble {
    if tail(&etcd.log).contains("address already in use") {
        return Trouble::PortTaken;
    }
    let failure = Failure::failed(format!("the restored etcd ended by itself ({status})"))
        .cause(format!("its last words:\n{}", etcd.log_tail()))
        .again();
    if is_about_the_data(status, &tail(&etcd.log)) { Trouble::Refused(failure) } else { Trouble::Failed(failure) }
}

/// Whether an etcd that ended by itself ended because of its data: what the machine lacks, whoever kills, and a program that never came to its data say
/// nothing of them.
fn is_about_the_data(status: ExitStatus, log: &str) -> bool {
    status.signal().is_none() && log.contains(LOGS_SO) && !OF_THE_MACHINE.iter().any(|lack| log.contains(lack))
}

/// One look. `None` while it does not serve yet.
async fn look(endpoint: &str, request: &Request, restored: &restore::Report) -> Result<Option<Ready>, Trouble> {
    let parsed = Endpoint::parse(endpoint, false)
        .map_err(|error| Trouble::Failed(Failure::failed(format!("'{endpoint}' is not an endpoint: {error}"))))?;
    let options = ConnectOptions {
        credentials: request.credentials.clone(),
        dial_timeout: LOOK_WITHIN,
        request_timeout: LOOK_WITHIN,
        ..ConnectOptions::default()
    };
    let client = match Client::connect(parsed, &options).await {
        Ok(client) => client,
        Err(error) => return not_yet(&error, request),
    };
    match client.linearizable_read().await {
        // Another process may have been faster on the port, and may be an etcd as well.
        Ok(header) if restored.new_cluster.as_ref().is_some_and(|(id, _)| *id != header.cluster_id.to_string()) => Err(Trouble::PortTaken),
        Ok(_) => Ok(Some(Ready::Open(client))),
        Err(error) => not_yet(&error, request),
    }
}

fn not_yet(error: &etcd_api::Error, request: &Request) -> Result<Option<Ready>, Trouble> {
    match error.kind() {
        ErrorKind::Link(LinkFault::Unreachable(_))
        | ErrorKind::Link(LinkFault::ConnectionLost(_))
        | ErrorKind::Timeout(_)
        | ErrorKind::NoLeader
        | ErrorKind::Unavailable(_) => Ok(None),
        ErrorKind::Unauthenticated(_) | ErrorKind::PermissionDenied(_) if request.credentials.is_none() => Ok(Some(Ready::Closed)),
        // Not root: it serves, and says so again when it is asked for its hash.
        _ => Err(Trouble::Failed(source_failure::failure("the restored etcd does not answer as it should", error))),
    }
}

/// Becomes `program`, which the kernel kills when the process `parent` dies. Returns only when that fails.
///
/// The kernel watches the thread that started this process, so that must be one that lives as long as its process.
#[must_use]
pub fn run_tied(parent: u32, program: &OsStr, arguments: &[OsString]) -> Failure {
    let tied = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if let Err(error) = tied {
        return Failure::failed(format!("the process cannot be tied to its parent: {error}"));
    }
    // It may have died before the kernel was told to watch.
    let alive = rustix::process::getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    if !alive {
        return Failure::new(Code::Failed, "the parent process is gone");
    }
    let error = Command::new(program).args(arguments).exec();
    Failure::failed(format!("the program cannot be started: {error}")).object(program.to_string_lossy())
}

/// Tells a child of ours to end: by SIGINT, or by SIGTERM. One that has ended already is no error.
pub fn tell(pid: u32, interrupt: bool) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = if interrupt { Signal::INT } else { Signal::TERM };
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(minor: u32, size: u64) -> Vec<String> {
        let binary = Binary { path: PathBuf::from("/usr/bin/etcd"), version: etcd_store::version::Version::minor(minor) };
        let words = arguments("try", Path::new("/d/data"), 1001, 1002, size, &binary);
        words.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn it_listens_on_loopback_only() {
        let words = words(6, 1);
        let listens: Vec<&String> = words.iter().filter(|word| word.contains("listen-")).collect();
        assert_eq!(listens, ["--listen-client-urls=http://127.0.0.1:1001", "--listen-peer-urls=http://127.0.0.1:1002"]);
        assert!(words.contains(&"--data-dir=/d/data".to_owned()));
    }

    #[test]
    fn the_quota_fits_the_file_and_each_version_gets_flags_it_knows() {
        assert!(words(6, 1).contains(&"--quota-backend-bytes=2147483648".to_owned()));
        assert!(words(6, 5 << 30).contains(&"--quota-backend-bytes=10737418240".to_owned()));
        assert!(words(5, 1).contains(&"--unsafe-no-fsync".to_owned()));
        assert!(!words(4, 1).contains(&"--unsafe-no-fsync".to_owned()));
    }

    #[test]
    fn only_an_etcd_that_came_to_its_data_speaks_of_them() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        let line = r#"{"level":"fatal","msg":"discovery failed","error":"cannot commit tx: no space left on device"}"#;
        assert!(is_about_the_data(exit(1), r#"{"level":"panic","msg":"failed to recover v3 backend from snapshot"}"#));
        assert!(!is_about_the_data(exit(1), line));
        assert!(!is_about_the_data(exit(2), "flag provided but not defined: -unsafe-no-fsync"));
        assert!(!is_about_the_data(exit(1), r#"{"level":"error","msg":"failed to verify flags"}"#));
        assert!(!is_about_the_data(ExitStatus::from_raw(9), r#"{"level":"info"}"#));
    }

    #[test]
    fn two_free_ports_differ() {
        let [one, other] = free_ports().unwrap();
        assert_ne!(one, other);
    }
}
