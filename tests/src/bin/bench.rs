//! Speed and memory beside the tools Lifeboat replaces, interleaved in one run. Run by `cargo xtask bench`.
//!
//! Every timing ends with the data on the disk (`sync` inside both sides). Numbers are medians; ratios are what counts, for machines differ.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark prints, and a panic is how it fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_api::{Client, PutRequest, SnapshotLimits};
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Finished, Job, Options, Run, peer, workload};
use serde_json::{Value, json};

/// What was asked for.
struct Wish {
    megabytes: u64,
    runs: usize,
    out: Option<PathBuf>,
    /// This part only.
    only: Option<String>,
}

impl Wish {
    fn has(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() {
    let wish = wish();
    let Some(missing) = ["etcd-3.6", "etcdctl-3.6", "etcdutl-3.6", "age", "zstd"].into_iter().find(|name| peer(name).is_none()) else {
        let report = block_on(bench(&wish));
        println!("\n{}", report["summary"].as_str().unwrap_or_default());
        if let Some(out) = &wish.out {
            std::fs::write(out, format!("{report:#}\n")).expect("the numbers can be written");
        }
        return;
    };
    println!("the benchmark needs {missing}, which could not be had");
    std::process::exit(1);
}

fn wish() -> Wish {
    let mut wish = Wish { megabytes: 800, runs: 5, out: None, only: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{arg} wants a value"));
        match arg.as_str() {
            "--size" => wish.megabytes = value.parse().expect("--size is in MB"),
            "--runs" => wish.runs = value.parse().expect("--runs is a number"),
            "--out" => wish.out = Some(value.into()),
            "--only" => wish.only = Some(value),
            _ => panic!("unknown argument {arg}: --size MB, --runs N, --out FILE, --only backup|puts|restore|files"),
        }
    }
    wish
}

fn program(name: &str) -> &'static Path {
    &peer(name).expect("checked at the start").path
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Timings of one thing.
#[derive(Default)]
struct Series {
    seconds: Vec<f64>,
    cpu: Vec<f64>,
    memory: u64,
}

impl Series {
    fn add(&mut self, finished: &Finished) {
        self.seconds.push(finished.took.as_secs_f64());
        self.cpu.push(finished.usage.cpu().as_secs_f64());
        self.memory = self.memory.max(finished.usage.peak_memory);
    }

    /// A pipeline: its processor time is its children's.
    fn add_pipeline(&mut self, (finished, cpu): &(Finished, f64)) {
        self.seconds.push(finished.took.as_secs_f64());
        self.cpu.push(*cpu);
    }

    fn json(&self) -> Value {
        json!({"seconds": median(self.seconds.clone()), "all_seconds": self.seconds, "cpu_seconds": median(self.cpu.clone()), "peak_memory_mb": self.memory as f64 / 1e6})
    }

    fn median(&self) -> f64 {
        median(self.seconds.clone())
    }
}

/// A shell pipeline as an operator writes it. Its processor time counts its children too, so it is taken from `bash`'s own `times`.
fn shell(script: &str) -> (Finished, f64) {
    let finished =
        Run::new("bash").args(["-euo", "pipefail", "-c", &format!("{script}\ntimes")]).timeout(Duration::from_secs(600)).run().ok();
    let cpu = finished.out().lines().rev().take(2).flat_map(|line| line.split_whitespace().map(clock).collect::<Vec<_>>()).sum();
    (finished, cpu)
}

/// `0m1.234s` as bash's `times` prints it.
fn clock(text: &str) -> f64 {
    let Some((minutes, seconds)) = text.trim_end_matches('s').split_once('m') else { return 0.0 };
    minutes.parse::<f64>().unwrap_or(0.0) * 60.0 + seconds.parse::<f64>().unwrap_or(0.0)
}

async fn bench(wish: &Wish) -> Value {
    let version = EtcdVersion::V3_6;
    println!("filling etcd {} with {} MB of Kubernetes-like objects ...", version.full(), wish.megabytes);
    let cluster = EtcdCluster::start(version, Options::default().quota(16 << 30).fsync());
    let client = cluster.client(0).await;
    let objects = workload::fill(&client, 41, wish.megabytes * 1_000_000).await;
    let job = Job::new();
    std::fs::create_dir_all(job.dir().join("work")).expect("a directory for the peers");
    let status = client.status().await.expect("status");
    println!("{objects} objects, database of {:.0} MB", status.db_size as f64 / 1e6);
    let size = status.db_size;
    let backup = if wish.has("backup") { backups(wish, &cluster, &client, &job, size).await } else { Value::Null };
    let puts = if wish.has("puts") { latencies(wish, &cluster, &client, &job).await } else { Value::Null };
    if !wish.has("backup") {
        drop(job.backup(&cluster));
    }
    plain_file(&job);
    let restore = if wish.has("restore") { restores(wish, &job, size) } else { Value::Null };
    let files = if wish.has("files") { files(wish, &job) } else { Value::Null };
    let summary =
        [&backup, &puts, &restore, &files].iter().map(|part| part["summary"].as_str().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    json!({
        "schema": "lifeboat.bench/1",
        "machine": machine(),
        "peers": {"etcd": version.full(), "etcdctl": peer("etcdctl-3.6").map(|peer| peer.version.clone()), "etcdutl": peer("etcdutl-3.6").map(|peer| peer.version.clone()),
                  "age": peer("age").map(|peer| peer.version.clone()), "zstd": peer("zstd").map(|peer| peer.version.clone())},
        "size_mb": wish.megabytes, "objects": objects, "runs": wish.runs,
        "backup": backup, "put_latency": puts, "restore": restore, "files": files, "summary": summary,
    })
}

fn machine() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned());
    json!({"cpu": model, "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get), "sha_extensions": cpu.contains("sha_ni")})
}

/// Drains the bare stream to nowhere: the floor of any backup.
async fn drain(client: &Client) -> f64 {
    let begun = Instant::now();
    let mut stream = client.snapshot(SnapshotLimits::default()).await.expect("a stream");
    while stream.next().await.expect("a sound stream").is_some() {}
    begun.elapsed().as_secs_f64()
}

async fn backups(wish: &Wish, cluster: &EtcdCluster, client: &Client, job: &Job, size: u64) -> Value {
    let (mut ours, mut theirs, mut floor, mut hashkv) = (Series::default(), Series::default(), Vec::new(), Vec::new());
    let work = job.dir().join("work");
    let endpoint = cluster.endpoint(0);
    for run in 0..=wish.runs {
        let drained = drain(client).await;
        level(&work, size);
        let finished = job.backup_cmd_within("30s", &cluster.client_flags()).args(["-o", "json"]).run().ok();
        let asked = finished.json()["backups"][0]["seconds"]["hashkv"].as_f64().expect("the report says how long HashKV took");
        let script = format!(
            "cd {work}; ETCDCTL_API=3 {etcdctl} --endpoints {endpoint} snapshot save s.db >/dev/null 2>&1; {etcdutl} snapshot status s.db >/dev/null; \
             {zstd} -q -3 -f s.db -o s.db.zst; {age} -r {recipient} -o s.db.zst.age s.db.zst; sync s.db.zst.age; rm -f s.db s.db.zst",
            work = work.display(),
            etcdctl = program("etcdctl-3.6").display(),
            etcdutl = program("etcdutl-3.6").display(),
            zstd = program("zstd").display(),
            age = program("age").display(),
            recipient = job.recipient(),
        );
        level(&work, size);
        let pipeline = shell(&script);
        // The first round warms the page cache for everybody.
        if run > 0 {
            floor.push(drained);
            hashkv.push(asked);
            ours.add(&finished);
            theirs.add_pipeline(&pipeline);
        }
        println!(
            "backup {run}: lifeboat {:.2} s (of it {asked:.2} s of live HashKV), etcdctl+etcdutl+zstd+age {:.2} s, bare stream {drained:.2} s",
            finished.took.as_secs_f64(),
            pipeline.0.took.as_secs_f64()
        );
    }
    let (a, b, floor, hashkv) = (ours.median(), theirs.median(), median(floor), median(hashkv));
    let summary = format!(
        "backup        {a:.2} s   {:.1}x faster than etcdctl + etcdutl + zstd + age ({b:.2} s); {:.2}x the bare stream ({floor:.2} s); {:.1} CPU seconds; live HashKV {hashkv:.2} s beside it; {:.0} MB of memory",
        b / a,
        a / floor,
        median(ours.cpu.clone()),
        ours.memory as f64 / 1e6
    );
    json!({"lifeboat": ours.json(), "peers": theirs.json(), "bare_stream_seconds": floor, "live_hashkv_seconds": hashkv, "faster": b / a, "against_stream": a / floor, "summary": summary})
}

/// 99th percentile of put latency in milliseconds while `work` runs.
async fn p99_during<F: Future<Output = ()>>(client: &Client, work: F) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let putter = {
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let _ = client.put(PutRequest::new("/registry/leases/kube-system/probe", vec![1_u8; 300])).await;
                took.push(begun.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            took
        })
    };
    work.await;
    stop.store(true, Ordering::Relaxed);
    let mut took = putter.await.expect("the puts end");
    took.sort_by(f64::total_cmp);
    took[(took.len() * 99 / 100).min(took.len() - 1)]
}

async fn latencies(wish: &Wish, cluster: &EtcdCluster, client: &Client, job: &Job) -> Value {
    let (mut bare, mut backup, mut gentle) = (Vec::new(), Vec::new(), Vec::new());
    let other = cluster.client(0).await;
    let in_background = |more: &'static [&'static str]| {
        let run = job.backup_cmd_within("0s", &cluster.client_flags()).args(more);
        async move {
            drop(tokio::task::spawn_blocking(move || run.run()).await);
        }
    };
    for _ in 0..wish.runs {
        bare.push(
            p99_during(client, async {
                let _: f64 = drain(&other).await;
            })
            .await,
        );
        backup.push(p99_during(client, in_background(&[])).await);
        gentle.push(p99_during(client, in_background(&["--gentle"])).await);
    }
    let (a, b, c) = (median(bare), median(backup), median(gentle));
    let summary = format!(
        "p99 of puts   {b:.1} ms during a backup, {:.2}x of {a:.1} ms during the bare stream; --gentle {c:.1} ms, {:.2}x",
        b / a,
        c / a
    );
    json!({"bare_ms": a, "backup_ms": b, "gentle_ms": c, "summary": summary})
}

/// The plain file that the other tools work on.
fn plain_file(job: &Job) {
    drop(job.restore_cmd().args(["latest", "--no-bump", "--snapshot-file"]).arg(plain(job)).run().ok());
}

fn plain(job: &Job) -> PathBuf {
    job.dir().join("work/plain.db")
}

/// Writes a file of the database's size and removes it, before each thing that is measured.
///
/// On a virtual machine whose host takes free memory back, a page that was not used just before costs many times as much as one that was. Who runs
/// after somebody else's large file was removed would win; so everybody does.
fn level(work: &Path, size: u64) {
    let (path, block) = (work.join("level"), vec![1_u8; 4 << 20]);
    let mut file = std::fs::File::create(&path).expect("a file");
    for _ in 0..size * 5 / 4 / block.len() as u64 {
        std::io::Write::write_all(&mut file, &block).expect("room for it");
    }
    drop(file);
    std::fs::remove_file(&path).expect("it was made");
}

fn restores(wish: &Wish, job: &Job, size: u64) -> Value {
    let (mut ours, mut theirs, mut copy) = (Series::default(), Series::default(), Series::default());
    let work = job.dir().join("work");
    let stored = find(&job.repository(), "db.zst.age");
    let plain = plain(job);
    for run in 0..=wish.runs {
        let target = work.join("ours");
        level(&work, size);
        let finished = job.restore_cmd().args(["latest", "--data-dir"]).arg(&target).run().ok();
        std::fs::remove_dir_all(&target).expect("it was made");
        level(&work, size);
        let copied = shell(&format!("cp {plain} {to}; sync {to}; rm {to}", plain = plain.display(), to = work.join("copy.db").display()));
        level(&work, size);
        let pipeline = shell(&format!(
            "cd {work}; {age} -d -i {identity} {stored} | {zstd} -q -d > p.db; {etcdutl} snapshot restore p.db --data-dir theirs >/dev/null 2>&1; sync -f theirs; rm -rf theirs p.db",
            work = work.display(),
            age = program("age").display(),
            zstd = program("zstd").display(),
            etcdutl = program("etcdutl-3.6").display(),
            identity = job.identity().display(),
            stored = stored.display(),
        ));
        if run > 0 {
            ours.add(&finished);
            copy.add_pipeline(&copied);
            theirs.add_pipeline(&pipeline);
        }
        println!(
            "restore {run}: lifeboat {:.2} s, age|zstd+etcdutl {:.2} s, cp+sync {:.2} s",
            finished.took.as_secs_f64(),
            pipeline.0.took.as_secs_f64(),
            copied.0.took.as_secs_f64()
        );
    }
    let (a, b, c) = (ours.median(), theirs.median(), copy.median());
    let cpu_of = |series: &Series| median(series.cpu.clone());
    let summary = format!(
        "restore       {a:.2} s   {:.2}x of cp + sync ({c:.2} s); {:.1}x faster than age | zstd + etcdutl ({b:.2} s), {:.1}x fewer CPU seconds; {:.0} MB of memory",
        a / c,
        b / a,
        cpu_of(&theirs) / cpu_of(&ours),
        ours.memory as f64 / 1e6
    );
    json!({"lifeboat": ours.json(), "peers": theirs.json(), "cp_and_sync": copy.json(), "against_copy": a / c, "summary": summary})
}

fn files(wish: &Wish, job: &Job) -> Value {
    let plain = plain(job);
    let (mut status, mut their_status, mut hash, mut their_hash, mut zstd) =
        (Series::default(), Series::default(), Series::default(), Series::default(), Series::default());
    for run in 0..=wish.runs {
        let a = job.lifeboat.cmd(["snapshot", "status"]).arg(&plain).run().ok();
        let b = Run::new(program("etcdutl-3.6")).args(["snapshot", "status"]).arg(&plain).timeout(Duration::from_secs(300)).run().ok();
        let c = job.lifeboat.cmd(["snapshot", "hashkv"]).arg(&plain).run().ok();
        // etcdutl writes to the file it hashes.
        let scratch = job.dir().join("work/scratch.db");
        std::fs::copy(&plain, &scratch).expect("a copy for etcdutl");
        let d = Run::new(program("etcdutl-3.6")).arg("hashkv").arg(&scratch).timeout(Duration::from_secs(300)).run();
        let e = shell(&format!("{} -q -3 --single-thread -c {} > /dev/null", program("zstd").display(), plain.display()));
        if run > 0 {
            zstd.add_pipeline(&e);
            status.add(&a);
            their_status.add(&b);
            hash.add(&c);
            their_hash.add(&d);
        }
    }
    let summary = format!(
        "status        {:.2} s   {:.1}x faster than etcdutl ({:.2} s); {:.0} MB of memory\nhashkv        {:.2} s   {:.1}x faster than etcdutl ({:.2} s); {:.0} MB of memory\nfloor         {:.2} s   one core of zstd -3 over the same file",
        status.median(),
        their_status.median() / status.median(),
        their_status.median(),
        status.memory as f64 / 1e6,
        hash.median(),
        their_hash.median() / hash.median(),
        their_hash.median(),
        hash.memory as f64 / 1e6,
        zstd.median()
    );
    json!({"one_core_of_zstd_seconds": zstd.median(), "status": status.json(), "etcdutl_status": their_status.json(), "hashkv": hash.json(), "etcdutl_hashkv": their_hash.json(), "summary": summary})
}

fn find(directory: &Path, name: &str) -> PathBuf {
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(&path).expect("a directory").flatten() {
            if entry.file_name() == name {
                return entry.path();
            }
            if entry.path().is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    panic!("no {name} below {}", directory.display());
}
