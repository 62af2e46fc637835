//! A running `lifeboat agent`, and what it says of itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Finished, Job, Run, Running, net};

/// For what comes at once on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(60);

/// An agent, and where it answers. Its configuration listens on a free port of loopback.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub running: Running,
    port: u16,
}

impl Agent {
    /// Starts `lifeboat agent` with the `lifeboat.yaml` in the job's directory.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self::start(job.lifeboat.cmd(["agent", "--config"]).arg(job.dir().join("lifeboat.yaml")))
    }

    /// Starts it, and waits until it answers.
    #[must_use]
    pub fn start(run: Run) -> Self {
        let mut running = run.timeout(Duration::from_secs(900)).start();
        running.wait_for("at once", LIMIT);
        let said = running.stderr();
        let port = said.split("http://127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next()).unwrap().parse().unwrap();
        assert!(net::listens(running.process().pid(), port), "the listener is the agent's own");
        Self { running, port }
    }

    /// A page: the code, and the body.
    #[must_use]
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The value of a metric, by its name and labels as they are written.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (code, page) = self.get("/metrics");
        assert!(code == 200 && page.ends_with("# EOF\n"), "{page}");
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Whether the cluster `prod` is in a state, by its word.
    #[must_use]
    pub fn is(&self, state: &str) -> bool {
        self.metric(&format!("lifeboat_cluster_state{{cluster=\"prod\",state=\"{state}\"}}")) == Some(1.0)
    }

    /// Waits two minutes at most until something is so.
    pub fn wait(&mut self, what: &str, is_so: impl FnMut(&Self) -> bool) {
        self.wait_within(LIMIT * 2, what, is_so);
    }

    /// Waits until something is so.
    pub fn wait_within(&mut self, limit: Duration, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !is_so(self) {
            assert!(self.running.process().running(), "{what}: the agent ended\n{}", self.running.stderr());
            assert!(Instant::now() < deadline, "{what}\n{}\n{}", self.running.stderr(), self.get("/metrics").1);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks it to end, and takes no less than a clean end.
    pub fn end(self) -> Finished {
        let ended = self.running.signal(Signal::TERM).ok();
        assert!(ended.err().contains("agent: ended") && ended.orphans.is_empty(), "{ended}");
        ended
    }
}
