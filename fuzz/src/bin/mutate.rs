//! A target over its seeds and mutations of them, for a while, without coverage: `mutate TARGET SECONDS FINDINGS-DIR [FILE…]`, or `mutate --list`.
//!
//! A finding is written to the directory before the program ends with exit code 1; files named are run once instead of mutations.
//! The last line is `executions N corpus N`.
#![deny(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lifeboat_fuzz::mutation::{Numbers, mutate};
use lifeboat_fuzz::{TARGETS, Target, find};

/// An input that takes longer than this is a finding.
const LONGEST: Duration = Duration::from_secs(25);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--list") {
        for target in TARGETS {
            println!("{}\t{}\t{}", target.name, target.max_len, target.covers);
        }
        return ExitCode::SUCCESS;
    }
    let [name, seconds, findings, files @ ..] = args.as_slice() else {
        eprintln!("mutate TARGET SECONDS FINDINGS-DIR [FILE...] | mutate --list");
        return ExitCode::from(2);
    };
    let (Some(target), Ok(seconds)) = (find(name), seconds.parse()) else {
        eprintln!("no target {name:?}, or {seconds:?} is not a number of seconds");
        return ExitCode::from(2);
    };
    let mut run = Run::new(target, PathBuf::from(findings));
    for file in files {
        match std::fs::read(file) {
            Ok(input) => run.one(&input),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    if files.is_empty() {
        run.mutations(Duration::from_secs(seconds));
    }
    run.end()
}

struct Run {
    target: &'static Target,
    findings: PathBuf,
    executions: u64,
    corpus: usize,
    /// What is being tried, for the watch that notices when it takes too long.
    current: Arc<Mutex<(Vec<u8>, Option<Instant>)>>,
    found: Option<PathBuf>,
}

impl Run {
    fn new(target: &'static Target, findings: PathBuf) -> Self {
        let current = Arc::new(Mutex::new((Vec::new(), None)));
        let (watched, directory) = (Arc::clone(&current), findings.clone());
        std::thread::spawn(move || watch(&watched, &directory));
        Self { target, findings, executions: 0, corpus: 0, current, found: None }
    }

    fn one(&mut self, input: &[u8]) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (input.to_vec(), Some(Instant::now()));
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        self.current.lock().unwrap_or_else(PoisonError::into_inner).1 = None;
        self.executions += 1;
        if outcome.is_err() {
            self.found = Some(keep(&self.findings, "crash", input));
        }
    }

    fn mutations(&mut self, limit: Duration) {
        let started = Instant::now();
        let seeds = (self.target.seeds)();
        self.corpus = seeds.len();
        // Another sequence each time; the input itself is what is kept.
        let start = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| now.subsec_nanos());
        let mut numbers = Numbers::new(u64::from(start));
        for seed in &seeds {
            self.one(seed);
        }
        while started.elapsed() < limit && self.found.is_none() {
            let (seed, other) = (&seeds[numbers.below(seeds.len())], &seeds[numbers.below(seeds.len())]);
            let input = mutate(seed, other, self.target.max_len, &mut numbers);
            self.one(&input);
        }
    }

    fn end(self) -> ExitCode {
        println!("executions {} corpus {}", self.executions, self.corpus);
        if self.found.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Ends the program when one input takes too long: nothing else can stop a loop.
fn watch(current: &Mutex<(Vec<u8>, Option<Instant>)>, findings: &Path) {
    let (_never, pause): (_, Receiver<()>) = channel();
    while pause.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        let (input, since) = &*current.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_some_and(|since| since.elapsed() > LONGEST) {
            keep(findings, "timeout", input);
            std::process::exit(1);
        }
    }
}

fn keep(findings: &Path, kind: &str, input: &[u8]) -> PathBuf {
    // FNV-1a: a name that is the same for the same input.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let path = findings.join(format!("{kind}-{hash:016x}"));
    match std::fs::write(&path, input) {
        Ok(()) => println!("finding {}", path.display()),
        Err(error) => eprintln!("{}: {error}", path.display()),
    }
    path
}
