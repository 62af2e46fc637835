//! What a process used: memory sampled while it runs, processor time at its end.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause between two samples.
const INTERVAL: Duration = Duration::from_millis(10);

/// Resources one process used, without its children.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Highest RssAnon + RssShmem seen, in bytes: memory that is the process's own, without mapped files.
    pub peak_memory: u64,
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// How many memory samples there were.
    pub samples: u64,
}

impl Usage {
    /// User and system time.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// Samples a process every 10 ms until stopped or until it is gone.
#[derive(Debug)]
pub struct ProcSampler {
    pid: u32,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, u64)>>,
}

impl ProcSampler {
    /// Begins.
    #[must_use]
    pub fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut peak, mut samples) = (0, 0);
            while !flag.load(Ordering::Relaxed) {
                let Some(now) = own_memory(pid) else { break };
                peak = peak.max(now);
                samples += 1;
                std::thread::sleep(INTERVAL);
            }
            (peak, samples)
        });
        Self { pid, stop, thread: Some(thread) }
    }

    /// Ends and reports. Processor time is complete when the process has exited and was not waited for yet.
    #[must_use]
    pub fn stop(mut self) -> Usage {
        self.stop.store(true, Ordering::Relaxed);
        let (peak_memory, samples) = self.thread.take().map_or((0, 0), |thread| thread.join().unwrap());
        let (user, system) = cpu_time(self.pid).unwrap_or_default();
        Usage { peak_memory, user, system, samples }
    }
}

impl Drop for ProcSampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// RssAnon + RssShmem in bytes; `None` when the process is gone or has no memory any more.
#[must_use]
pub fn own_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok())
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")?) * 1024)
}

/// User and system time so far; works on a zombie too.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<(Duration, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let time = |index: usize| -> Option<Duration> {
        let ticks: u64 = fields.get(index)?.parse().ok()?;
        Some(Duration::from_millis(ticks * 1000 / ticks_per_second))
    };
    // Fields 14 and 15 of proc_pid_stat(5); the slice begins with field 3.
    Some((time(11)?, time(12)?))
}
