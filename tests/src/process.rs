//! Child processes that cannot outlive their test.
//!
//! Two nets: dropping a [`Process`] kills its whole process group, and the kernel kills the child when the test process dies
//! (`setpriv --pdeathsig`, so that no unsafe code is needed here). The kernel's net hangs on the *thread* that spawned the child, therefore one thread
//! that lives as long as the program spawns all of them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

/// How often waiting loops look.
const POLL: Duration = Duration::from_millis(10);

/// Longest piece of a log line that is worth showing.
const LOG_LINE: usize = 600;
/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// A running (or ended) child with its log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` (made by [`guarded`]) with its output and errors appended to the file `log`.
    #[must_use]
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        command.stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = spawn(command).unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name: name.to_owned(), child, log: Some(log.to_owned()), ended: None }
    }

    /// Starts `command` (made by [`guarded`]) with the streams it asks for; the caller takes their ends from [`Process::child`].
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_with_streams(name: &str, command: Command) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), child: spawn(command)?, log: None, ended: None })
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id, which is also the id of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn rustix_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to the process itself; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // It may have ended just now.
            let _gone = kill_process(self.rustix_pid(), signal);
        }
    }

    /// SIGSTOP: it stays, and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it has not ended yet.
    pub fn running(&mut self) -> bool {
        !self.exited()
    }

    /// True once it has exited, without collecting it: its entry in `/proc` still tells what it used.
    fn exited(&mut self) -> bool {
        if self.ended.is_some() {
            return true;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.rustix_pid()), options), Ok(Some(_)))
    }

    /// Waits for its end; false when the time is over first. The process is not collected yet.
    pub fn wait_exited(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self.exited() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Processes of its group other than itself: what it started and left behind.
    #[must_use]
    pub fn companions(&self) -> Vec<u32> {
        let group = self.pid();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|&pid| pid != group && alive_in_group(pid, group))
            .collect()
    }

    /// Collects a process that has exited, after killing whatever is left of its group.
    fn collect(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        // Before the wait: afterwards the group's id could belong to somebody else.
        let _gone = kill_process_group(self.rustix_pid(), Signal::KILL);
        let deadline = Instant::now() + DYING;
        while !self.companions().is_empty() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let status = self.child.wait().unwrap_or_else(|error| panic!("waiting for {}: {error}", self.name));
        self.ended = Some(status);
        status
    }

    /// SIGTERM, then SIGKILL when it does not end within `grace`. Returns how it ended.
    pub fn terminate(&mut self, grace: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        self.wait_exited(grace);
        self.collect()
    }

    /// SIGKILL, at once, to it and everything it started.
    pub fn kill(&mut self) -> ExitStatus {
        self.collect()
    }

    /// Waits for its end up to `limit`, then kills it. `None` when it had to be killed.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let ended = self.wait_exited(limit);
        let status = self.collect();
        ended.then_some(status)
    }

    /// The whole log.
    #[must_use]
    pub fn log(&self) -> String {
        let Some(path) = &self.log else { return String::new() };
        fs::read(path).map_or_else(|error| format!("(no log: {error})"), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last `lines` of the log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        let last = &all[all.len().saturating_sub(lines)..];
        last.iter().map(|line| line.chars().take(LOG_LINE).collect::<String>()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() && self.log.is_some() {
            println!("--- end of the log of {} (pid {})\n{}", self.name, self.pid(), self.log_tail(15));
        }
        self.collect();
    }
}

fn alive_in_group(pid: u32, group: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    // state ppid pgrp
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields.first() != Some(&"Z") && fields.get(2).and_then(|field| field.parse().ok()) == Some(group)
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns in a process group of its own, on the thread that never ends.
fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, orders) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, reply) in orders {
                    drop(reply.send(command.spawn()));
                }
            })
            .unwrap();
        Mutex::new(send)
    });
    let (reply, answer) = mpsc::channel();
    command.process_group(0);
    spawner.lock().unwrap().send((command, reply)).unwrap();
    answer.recv().unwrap()
}

/// A command for `program` that dies with the test process: `setpriv --pdeathsig KILL program`, which replaces itself by the program, so the process id stays.
/// Without a working setpriv only the program itself. Arguments and environment are added by the caller.
#[must_use]
pub fn guarded(program: impl AsRef<OsStr>) -> Command {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    let setpriv = SETPRIV.get_or_init(|| {
        let path = std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("setpriv")).find(|file| file.is_file())?;
        let probe = Command::new(&path).args(["--pdeathsig", "KILL", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success()).then_some(path)
    });
    match setpriv {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = guarded("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn dropping_kills_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::start("sh", shell("sleep 600 & echo $!; wait"), &dir.path().join("log"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while process.companions().is_empty() || process.log().trim().is_empty() {
            assert!(Instant::now() < deadline, "{}", process.log());
            std::thread::sleep(POLL);
        }
        let [child] = process.companions().try_into().unwrap();
        assert_eq!(process.log().trim(), child.to_string());
        let pid = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!alive_in_group(child, pid));
    }

    #[test]
    fn ends_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start("sh", shell("exit 7"), &dir.path().join("log"));
        assert_eq!(process.wait(Duration::from_secs(20)).unwrap().code(), Some(7));
        let mut process = Process::start("sh", shell("sleep 600"), &dir.path().join("log"));
        assert!(process.running());
        assert!(process.wait(Duration::from_millis(50)).is_none());
        assert!(!process.running());
    }

    #[test]
    fn a_paused_process_can_still_be_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start("sh", shell("sleep 600"), &dir.path().join("log"));
        process.pause();
        assert_eq!(process.terminate(Duration::from_secs(20)).code(), None);
    }
}
