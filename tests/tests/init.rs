//! `lifeboat init` from nothing on real etcd: what it makes works at once, what is there is never overwritten, and a run that ended anywhere is gone on from.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_tests::{EtcdCluster, EtcdVersion, Lifeboat, Options, Run, Tls, etcd_matrix, matrix, peers};
use tempfile::TempDir;

/// What a crashed run ends with.
const CRASHED: i32 = 137;

/// A place for everything that `init` makes.
struct Place {
    lifeboat: Lifeboat,
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { lifeboat: Lifeboat::new(), dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("etc/lifeboat.yaml")
    }

    fn url(&self) -> String {
        format!("file://{}", self.path("backups").display())
    }

    /// A verb with nothing but the configuration named.
    fn cmd(&self, words: &[&str]) -> Run {
        let run = self.lifeboat.cmd(words).arg("--config").arg(self.config());
        run.env("LIFEBOAT_SPOOL_DIR", self.path("spool")).env("LIFEBOAT_SPOOL_RESERVE", "0")
    }

    /// `init` for a cluster with everything that must be said.
    fn init(&self, flags: &[String]) -> Run {
        self.cmd(&["init", "--repo", &self.url(), "--cluster", "prod"]).arg("--identity-out").arg(self.path("identity.txt")).args(flags)
    }

    /// Everything that was made, but for what tests put there.
    fn made(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "spool")
            .collect();
        names.sort();
        names
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The value of `key: "value"` in the configuration.
fn recipient(config: &Path) -> String {
    let text = std::fs::read_to_string(config).unwrap();
    let line = text.lines().find(|line| line.contains("- \"age1")).unwrap();
    line.trim().trim_start_matches("- ").trim_matches('"').to_owned()
}

etcd_matrix! {
    /// Flags only: keys, repository, configuration, kit; then a backup needs nothing but the configuration. A second run finds it all and changes nothing.
    fn from_nothing_to_a_backup(etcd: EtcdVersion) {
        let place = Place::new();
        let cluster = EtcdCluster::single(etcd);
        drop(cluster.etcdctl(["put", "a", "1"]));
        let flags = [cluster.client_flags(), vec!["--kit".to_owned(), place.path("kit.txt").display().to_string()]].concat();
        let made = place.init(&flags).arg("--json").run().ok().json();
        assert_eq!(made["schema"], "lifeboat.init/1", "{made}");
        assert_eq!(made["cluster"], "prod");
        assert_eq!(made["store"]["made"], true);
        assert_eq!(made["store"]["abilities"]["create-only"], "yes", "{made}");
        // A store and the only identity on the machine that etcd runs on.
        let warnings = made["warnings"].to_string();
        assert!(warnings.contains("own machine") && warnings.contains("only identity"), "{warnings}");
        for secret in ["identity.txt", "etc/sign.key"] {
            assert_eq!(mode(&place.path(secret)), 0o600, "{secret}");
        }
        drop(place.cmd(&["config", "check"]).run().ok());
        let kit = std::fs::read_to_string(place.path("kit.txt")).unwrap();
        let identity = std::fs::read_to_string(place.path("identity.txt")).unwrap();
        let secret = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap();
        assert!(kit.contains(made["store"]["repository"].as_str().unwrap()) && kit.contains(made["signing"]["public"].as_str().unwrap()), "{kit}");
        let config = std::fs::read_to_string(place.config()).unwrap();
        assert!(!kit.contains(secret) && !config.contains(secret));

        let next = made["next"].as_str().unwrap();
        assert!(next.starts_with("lifeboat backup --config "), "{next}");
        let backup = place.cmd(&["backup", "--hashkv-budget", "60s"]).run().ok();
        assert!(backup.out().contains("hashkv match") && backup.out().contains("signed by"), "{backup}");
        let listed = place.cmd(&["list", "--json"]).run().ok().json();
        let backups = listed["clusters"][0]["backups"].as_array().unwrap();
        assert_eq!(backups.len(), 1);
        assert_eq!((&backups[0]["sealed"], &backups[0]["counts"]), (&true.into(), &true.into()), "{listed}");

        // The kit alone leads there from another machine.
        let line = kit.lines().find(|line| line.trim().starts_with("lifeboat list ")).unwrap();
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let elsewhere = Lifeboat::new().run(words).ok();
        assert!(elsewhere.out().contains("trusted"), "{elsewhere}");

        let again = place.init(&flags).run().ok();
        assert!(again.out().contains("was there") && again.out().contains("next      lifeboat backup"), "{again}");
        assert_eq!(std::fs::read_to_string(place.config()).unwrap(), config);
        assert_eq!(std::fs::read_to_string(place.path("identity.txt")).unwrap(), identity);
        assert_eq!(std::fs::read_to_string(place.path("kit.txt")).unwrap(), kit);

        let other = place.cmd(&["init", "--repo", "file:///elsewhere", "--cluster", "edge"]).run().exit(2);
        assert!(other.err().contains("says otherwise") && other.err().contains("edge"), "{other}");
        assert_eq!(std::fs::read_to_string(place.config()).unwrap(), config);
    }

    /// Certificates and a password by file are in the configuration; a password that only a flag holds is refused.
    fn with_certificates_and_a_password(etcd: EtcdVersion) {
        let place = Place::new();
        let cluster = EtcdCluster::start(etcd, Options::default().tls(Tls::ClientAuth).auth("secret"));
        let flags: Vec<String> = cluster.client_flags().into_iter().filter(|flag| !flag.starts_with("--user")).collect();
        let refused = place.init(&cluster.client_flags()).run().exit(2);
        assert!(refused.err().contains("--password-file"), "{refused}");
        assert_eq!(place.made(), Vec::<String>::new());
        std::fs::write(place.path("password"), "secret\n").unwrap();
        let login = ["--user".to_owned(), "root".to_owned(), "--password-file".to_owned(), place.path("password").display().to_string()];
        drop(place.init(&[flags, login.to_vec()].concat()).run().ok());
        let backup = place.cmd(&["backup", "--hashkv-budget", "60s"]).run().ok();
        assert!(backup.out().contains("hashkv match"), "{backup}");
    }
}

/// Whoever begins with any other verb is sent to `init`, not from one missing flag to the next.
#[test]
fn whoever_has_set_nothing_up_is_sent_here() {
    for words in [&["backup"][..], &["list"], &["verify"], &["show", "latest"]] {
        let refused = Lifeboat::new().cmd(words).run().exit(2);
        assert!(refused.err().trim_end().ends_with("next:   lifeboat init"), "{refused}");
    }
}

/// What is wrong is refused with its cause, before anything is made.
#[test]
fn wrong_inputs_change_nothing() {
    matrix::each("wrong_inputs_change_nothing", &[EtcdVersion::V3_6], |etcd| {
        let cluster = EtcdCluster::single(etcd);
        let flags = cluster.client_flags();
        let url = |place: &Place| place.url();
        type Case = (&'static str, Vec<&'static str>, i32, &'static str);
        let cases: [Case; 9] = [
            ("no place", vec!["--identity-out", "ID"], 2, "--repo"),
            ("nobody to open", vec!["--repo", "URL"], 2, "--identity-out"),
            ("no recipient", vec!["--repo", "URL", "--recipient", "age1nonsense"], 2, "age1nonsense"),
            ("no name", vec!["--repo", "URL", "--identity-out", "ID", "--cluster", "Prod Cluster"], 2, "Prod Cluster"),
            ("no store", vec!["--repo", "ftp://x", "--identity-out", "ID"], 1, "not a store"),
            ("unchecked", vec!["--repo", "URL", "--identity-out", "ID", "--insecure-skip-tls-verify"], 2, "--insecure-skip-tls-verify"),
            ("no directory", vec!["--repo", "URL", "--identity-out", "ID", "--signing-out", "/proc/version/sign.key"], 2, "signing key"),
            ("no directory for the identity", vec!["--repo", "URL", "--identity-out", "/nonexistent/identity.txt"], 2, "/nonexistent"),
            ("unreachable", vec!["--repo", "URL", "--identity-out", "ID", "--endpoints", "http://127.0.0.1:1"], 30, "127.0.0.1:1"),
        ];
        for (what, words, code, says) in cases {
            let place = Place::new();
            let words: Vec<String> = words
                .iter()
                .map(|word| word.replace("URL", &url(&place)).replace("ID", &place.path("identity.txt").display().to_string()))
                .collect();
            let mut run = place.cmd(&["init"]).args(&words);
            if !words.iter().any(|word| word == "--endpoints") {
                run = run.args(&flags);
            }
            let refused = run.run().exit(code);
            assert!(refused.err().contains(says), "{what}: {refused}");
            assert_eq!(place.made(), Vec::<String>::new(), "{what}: {refused}");
        }
    });
}

/// Files that are there: one that is no identity, no key, no kit is left as it is; a sound one is used.
#[test]
fn what_is_there_is_never_overwritten() {
    matrix::each("what_is_there_is_never_overwritten", &[EtcdVersion::V3_6], |etcd| {
        let cluster = EtcdCluster::single(etcd);
        for name in ["identity.txt", "etc/sign.key", "kit.txt", "etc/lifeboat.yaml"] {
            let place = Place::new();
            std::fs::create_dir_all(place.path("etc")).unwrap();
            std::fs::write(place.path(name), "mine").unwrap();
            let refused = place.init(&cluster.client_flags()).arg("--kit").arg(place.path("kit.txt")).run().exit(2);
            assert!(refused.err().contains(name), "{refused}");
            assert_eq!(std::fs::read_to_string(place.path(name)).unwrap(), "mine");
            assert!(!place.path("backups").exists(), "{refused}");
        }
        // Somebody else's directory is no place for a repository.
        let place = Place::new();
        std::fs::create_dir(place.path("backups")).unwrap();
        std::fs::write(place.path("backups/photo.jpg"), "x").unwrap();
        let refused = place.init(&cluster.client_flags()).run().exit(10);
        assert!(refused.err().contains("other things"), "{refused}");
        assert_eq!(place.made(), ["backups"]);
        assert_eq!(std::fs::read_dir(place.path("backups")).unwrap().count(), 1);

        // A run that ended before the configuration is gone on from with the same keys and the same repository.
        let place = Place::new();
        let first = place.init(&cluster.client_flags()).arg("--json").run().ok().json();
        let opened_by = recipient(&place.config());
        std::fs::remove_file(place.config()).unwrap();
        let second = place.init(&cluster.client_flags()).arg("--json").run().ok().json();
        assert_eq!(recipient(&place.config()), opened_by);
        for same in ["/store/repository", "/signing/public"] {
            assert_eq!(first.pointer(same), second.pointer(same), "{second}");
        }
        assert_eq!(
            (&second["identity"]["made"], &second["signing"]["made"], &second["store"]["made"]),
            (&false.into(), &false.into(), &false.into())
        );
    });
}

/// Ended before and after every durable step: the next run goes on, and what it makes backs up.
#[test]
fn a_run_that_ends_anywhere_is_gone_on_from() {
    matrix::each("a_run_that_ends_anywhere_is_gone_on_from", &[EtcdVersion::V3_6], |etcd| {
        let cluster = EtcdCluster::single(etcd);
        let mut crashes = 0;
        for point in 1.. {
            let mut place = Place::new();
            place.lifeboat = Lifeboat::with_crash_points();
            let crashed =
                place.init(&cluster.client_flags()).env("LIFEBOAT_CRASH_AFTER", point.to_string()).env("LIFEBOAT_CRASH_FORGET", "1").run();
            if crashed.code() != Some(CRASHED) {
                drop(crashed.ok());
                break;
            }
            crashes += 1;
            let had_config = place.config().exists();
            let second = place.init(&cluster.client_flags()).run().ok();
            assert!(second.out().contains(if had_config { "was there, and is not changed" } else { "(made)" }), "point {point}: {second}");
            drop(place.cmd(&["config", "check"]).run().ok());
            // Once for each kind of leftover is enough for the slow part.
            if point % 10 == 1 {
                drop(place.cmd(&["backup"]).run().ok());
                drop(place.cmd(&["key", "check"]).arg("-i").arg(place.path("identity.txt")).run().ok());
            }
        }
        println!("init: ended at each of {crashes} durable steps");
        assert!(crashes > 20, "only {crashes} steps");
    });
}

/// Without a name, the cluster is called after its id or this machine, and never plainly kubernetes.
#[test]
fn a_name_is_proposed() {
    matrix::each("a_name_is_proposed", &[EtcdVersion::V3_6], |etcd| {
        let cluster = EtcdCluster::single(etcd);
        let place = Place::new();
        let run = place.cmd(&["init", "--json", "--repo", &place.url()]).arg("--identity-out").arg(place.path("identity.txt"));
        let made = run.args(cluster.client_flags()).run().ok().json();
        let (name, id) = (made["cluster"].as_str().unwrap(), made["cluster_id"].as_str().unwrap());
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().to_lowercase();
        assert!(name == format!("etcd-{}", &id[..8]) || host.starts_with(name.split('-').next().unwrap()), "{name} on {host}");
        assert_ne!(name, "kubernetes");
        drop(place.cmd(&["backup"]).run().ok());
    });
}

/// At a terminal: the place and the name are asked for, the identity is shown once and must be given back; nothing keeps it.
#[test]
fn a_person_is_asked() {
    let Ok(true) = std::process::Command::new("script").arg("--version").output().map(|output| output.status.success()) else {
        peers::skipped("a_person_is_asked: no script(1) to make a terminal");
        return;
    };
    matrix::each("a_person_is_asked", &[EtcdVersion::V3_6], |etcd| {
        let cluster = EtcdCluster::single(etcd);
        let place = Place::new();
        let fifo = place.path("typed");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let command =
            format!("{} init --config {} {}", place.lifeboat.path().display(), place.config().display(), cluster.client_flags().join(" "));
        let line = format!("exec script -qefc '{command}' /dev/null < {}", fifo.display());
        let mut running = Run::new("sh").args(["-c", &line]).start();
        let mut typed = std::fs::File::options().write(true).open(&fifo).unwrap();
        let limit = Duration::from_secs(60);
        running.wait_for("Where shall backups go", limit);
        typed.write_all(format!("{}\n", place.url()).as_bytes()).unwrap();
        running.wait_for("Name of the cluster", limit);
        typed.write_all(b"prod\n").unwrap();
        running.wait_for("give it back", limit);
        let shown = running.stdout();
        let secret = shown.split_whitespace().find(|word| word.starts_with("AGE-SECRET-KEY-1")).unwrap().to_owned();
        typed.write_all(b"AGE-SECRET-KEY-1WRONG\n").unwrap();
        running.wait_for("not the identity that was shown", limit);
        assert!(!place.config().exists());
        typed.write_all(format!("{secret}\n").as_bytes()).unwrap();
        let done = running.finish().ok();
        drop(typed);
        assert!(done.out().contains("next      lifeboat backup"), "{done}");
        drop(place.cmd(&["backup"]).run().ok());
        std::fs::write(place.path("kept.txt"), format!("{secret}\n")).unwrap();
        drop(place.cmd(&["key", "check"]).arg("-i").arg(place.path("kept.txt")).run().ok());
        let holds = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&secret));
        assert!(!holds(&place.config()) && !holds(&place.path("etc/sign.key")));
    });
}

/// Bare `lifeboat`: five lines and exit 0, whatever is there.
#[test]
fn five_lines() {
    matrix::each("five_lines", &[EtcdVersion::V3_6], |etcd| {
        let cluster = EtcdCluster::single(etcd);
        let place = Place::new();
        let bare = |place: &Place| place.cmd(&[]).run().ok().out();
        let lines = |text: &str, last: &str| {
            assert_eq!(text.lines().count(), 5, "{text}");
            assert!(text.lines().last().unwrap().contains(last), "{text}");
        };
        drop(place.init(&cluster.client_flags()).run().ok());
        lines(&bare(&place), "lifeboat backup --config");
        drop(place.cmd(&["backup", "--hashkv-budget", "60s"]).run().ok());
        let text = bare(&place);
        lines(&text, "lifeboat verify latest --read --config");
        assert!(
            text.contains("'prod'") && text.contains("hashkv match") && text.contains("no identity is configured on this machine"),
            "{text}"
        );
        std::fs::rename(place.path("backups"), place.path("gone")).unwrap();
        let text = bare(&place);
        lines(&text, "lifeboat ");
        assert!(text.contains("unknown"), "{text}");
        std::fs::write(place.config(), "nonsense: [").unwrap();
        lines(&bare(&place), "lifeboat config check");
    });
}

/// The same without any configuration: it says what to do.
#[test]
fn five_lines_from_nothing() {
    let lifeboat = Lifeboat::new();
    if Path::new("/etc/lifeboat/lifeboat.yaml").exists() {
        peers::skipped("five_lines_from_nothing: this machine has a configuration");
        return;
    }
    let text = lifeboat.run::<&str>([]).ok().out();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().last().unwrap().ends_with("lifeboat init"), "{text}");
}
