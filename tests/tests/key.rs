//! `lifeboat key`: keys are made once, readable by their owner alone, and it can be told what they open before it matters.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt as _;

use lifeboat_tests::{EtcdCluster, EtcdVersion, Job, Lifeboat, Run, matrix, peer, peers};

/// Both keys are made, work with the tools that own their formats, and are never overwritten.
#[test]
fn keys_are_made_once() {
    let lifeboat = Lifeboat::new();
    let (identity, signing) = (lifeboat.home().join("identity.txt"), lifeboat.home().join("sign.key"));
    let make = || lifeboat.cmd(["key", "new", "--json", "--identity-out"]).arg(&identity).arg("--signing-out").arg(&signing);
    let made = make().run().ok().json();
    assert_eq!(made["schema"], "lifeboat.key-new/1", "{made}");
    let recipient = made["recipient"].as_str().unwrap();
    for file in [&identity, &signing] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(made["next"].as_str().unwrap().contains(&format!("lifeboat init --recipient {recipient}")), "{made}");
    let before = (std::fs::read(&identity).unwrap(), std::fs::read(&signing).unwrap());
    let refused = make().run().exit(2);
    assert!(refused.err().contains("identity.txt"), "{refused}");
    // The second file is there, so the first is not made either.
    let other = lifeboat.home().join("other.txt");
    drop(lifeboat.cmd(["key", "new", "--identity-out"]).arg(&other).arg("--signing-out").arg(&signing).run().exit(2));
    assert!(!other.exists());
    assert_eq!((std::fs::read(&identity).unwrap(), std::fs::read(&signing).unwrap()), before);

    match peer("age-keygen") {
        Some(keygen) => {
            let public = Run::new(&keygen.path).arg("-y").arg(&identity).run().ok();
            assert_eq!(public.out().trim(), recipient);
        }
        None => peers::skipped("keys_are_made_once: no age-keygen"),
    }
    match peer("minisign") {
        Some(minisign) => {
            let file = lifeboat.home().join("file");
            std::fs::write(&file, "content").unwrap();
            drop(Run::new(&minisign.path).args(["-S", "-s"]).arg(&signing).arg("-m").arg(&file).stdin("\n").run().ok());
            let public = made["public_key"].as_str().unwrap();
            drop(Run::new(&minisign.path).args(["-V", "-P", public, "-m"]).arg(&file).run().ok());
        }
        None => peers::skipped("keys_are_made_once: no minisign"),
    }
}

/// Without a file an identity is shown at a terminal and nowhere else.
#[test]
fn an_identity_is_shown_at_a_terminal_only() {
    let lifeboat = Lifeboat::new();
    let refused = lifeboat.run(["key", "new"]).exit(2);
    assert!(refused.err().contains("--identity-out") && !refused.out().contains("AGE-SECRET-KEY"), "{refused}");
    let at_terminal = Run::new("script").args(["-qec", &format!("{} key new", lifeboat.path().display()), "/dev/null"]);
    match std::process::Command::new("script").arg("--version").output() {
        Ok(output) if output.status.success() => {
            let shown = at_terminal.run().ok();
            assert!(shown.out().contains("AGE-SECRET-KEY-1") && shown.out().contains("age1"), "{shown}");
        }
        _ => peers::skipped("an_identity_is_shown_at_a_terminal_only: no script(1) to make a terminal"),
    }
    let nowhere = lifeboat.cmd(["key", "new", "--identity-out"]).arg(lifeboat.home().join("no/such/dir/identity.txt")).run();
    assert_ne!(nowhere.code(), Some(0), "{nowhere}");
    assert!(nowhere.err().contains("no/such/dir"), "{nowhere}");
}

/// Which backups an identity opens, by really opening them; and whether this machine's signature counts.
#[test]
fn what_opens_what() {
    matrix::each("what_opens_what", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        let check = || job.lifeboat.cmd(["key", "check", "--json", "--repo", job.url(), "--cluster", "prod"]);
        drop(check().run().exit(10));
        drop(job.backup(&cluster));
        let own = check().arg("-i").arg(job.identity()).run().ok().json();
        assert_eq!(own.pointer("/clusters/0/sealed/0/opened").unwrap(), "yes", "{own}");
        assert!(own["signing"].is_null());

        let (other, signing) = (job.dir().join("other.txt"), job.dir().join("sign.key"));
        let made =
            job.lifeboat.cmd(["key", "new", "--json", "--identity-out"]).arg(&other).arg("--signing-out").arg(&signing).run().ok().json();
        let stranger = check().arg("-i").arg(&other).run().exit(12).json();
        assert_eq!(stranger.pointer("/clusters/0/sealed/0/opened").unwrap(), "no", "{stranger}");
        assert_eq!(check().run().exit(12).json().pointer("/clusters/0/sealed/0/opened").unwrap(), "not-tried");

        // Ids tell seconds apart, and within one nobody is the newer one.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        // A newer backup for another recipient: the newest decides, and the older ones are still told.
        let recipient = made["recipient"].as_str().unwrap();
        let spool = job.dir().join("spool");
        let newer = job.cmd("backup").args(["--recipient", recipient, "--spool-reserve", "0", "--signing-key"]).arg(&signing);
        drop(newer.arg("--spool-dir").arg(spool).args(cluster.client_flags()).run().ok());
        let both = check().arg("-i").arg(&other).run().ok().json();
        assert_eq!(both.pointer("/clusters/0/sealed/0/opened").unwrap(), "yes", "{both}");
        assert_eq!(both.pointer("/clusters/0/sealed/1/opened").unwrap(), "no", "{both}");
        let words = check().arg("-o").arg("table").arg("-i").arg(job.identity());
        assert_eq!(words.run().code(), Some(12));

        let public = made["public_key"].as_str().unwrap();
        let trusted = check().arg("-i").arg(&other).arg("--signing-key").arg(&signing).args(["--trusted-signer", public]).run().ok().json();
        assert_eq!(trusted["signing"]["trusted"], true, "{trusted}");
        let foreign = job.dir().join("foreign.key");
        drop(job.lifeboat.cmd(["key", "new", "--signing-out"]).arg(&foreign).run().ok());
        let untrusted =
            check().arg("-i").arg(&other).arg("--signing-key").arg(&foreign).args(["--trusted-signer", public]).run().exit(1).json();
        assert_eq!(untrusted["signing"]["trusted"], false, "{untrusted}");
    });
}
