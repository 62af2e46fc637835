//! A terminal for a program that asks a person: a pseudoterminal, at which answers are typed when the questions come.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// How long a question or the end may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a command at a terminal of its own, types each answer when its question has come, and gives back the exit code and everything that was shown.
/// Without `setsid`(1) to give a process a terminal: none.
#[must_use]
pub fn at_terminal(command: &[String], answers: &[(&str, &str)]) -> Option<(Option<i32>, String)> {
    Command::new("setsid").arg("--version").output().ok().filter(|output| output.status.success())?;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = || Stdio::from(File::options().read(true).write(true).open(&name).unwrap());
    let mut setsid = Command::new("setsid");
    setsid.args(["--ctty", "--wait"]).args(command).stdin(slave()).stdout(slave()).stderr(slave());
    let mut child = setsid.spawn().unwrap();
    // The command holds the other side's last descriptors, so that the reader below meets the end.
    drop(setsid);
    let (shown, reader) = collect(master.try_clone().unwrap());
    let mut terminal = File::from(master);
    let deadline = Instant::now() + LIMIT;
    let mut seen = 0;
    for (question, answer) in answers {
        loop {
            let text = shown.lock().unwrap().clone();
            if let Some(at) = text[seen..].find(question) {
                seen += at + question.len();
                break;
            }
            assert!(child.try_wait().unwrap().is_none(), "ended before it asked {question:?}\n{text}");
            assert!(Instant::now() < deadline, "did not ask {question:?}\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
        terminal.write_all(answer.as_bytes()).unwrap();
    }
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            // What is still in the terminal is read before its end is met.
            while !reader.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            return Some((status.code(), shown.lock().unwrap().clone()));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("hung\n{}", shown.lock().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn collect(master: OwnedFd) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let shown = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&shown);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut file = File::from(master);
        // Linux says EIO when the last process has left the terminal.
        while let Ok(count @ 1..) = file.read(&mut buffer) {
            sink.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
    (shown, reader)
}
