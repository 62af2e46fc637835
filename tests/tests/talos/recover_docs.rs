//! The worst day in docs/talos.md is a real run: what it shows is held against one here. `LIFEBOAT_UPDATE_DOCS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use talos_double::Options;

use crate::common::Talos;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/talos.md");
const BEGIN: &str = "<!-- the worst day: a run of tests/tests/talos/recover_docs.rs -->\n```\n";
const END: &str = "```\n<!-- end of the run -->\n";

/// What differs from run to run, by something that does not.
struct Plain {
    replace: Vec<(String, String)>,
}

impl Plain {
    fn of(&self, text: &str) -> String {
        let text = self.replace.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        // Who leads, and what a busy machine is advised, is chance.
        let lines = text.lines().filter(|text| !text.starts_with("advice ")).map(line);
        lines.map(|text| if text.starts_with("cp-") { text.replace(" yes ", " - ") } else { text }).collect::<Vec<_>>().join("\n")
    }
}

/// Numbers of four and more digits, times and ids are anybody's; columns are as wide as what stands in them.
fn line(line: &str) -> String {
    let words = line.split(' ').filter(|word| !word.is_empty()).map(|word| {
        let bare = word.trim_end_matches([',', ';', ':', ')', '.']).trim_start_matches('(');
        let digits = bare.bytes().filter(u8::is_ascii_digit).count();
        let is_id = bare.len() == 16 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_backup = bare.len() == 23 && bare.as_bytes()[8] == b'T' && digits >= 14;
        let is_time = bare.contains("T") && bare.ends_with('Z') && digits >= 14 && !bare.contains('/');
        let is_number = !bare.is_empty() && (bare.bytes().all(|byte| byte.is_ascii_digit()) || bare.parse::<f64>().is_ok()) && digits >= 2;
        let mark = match () {
            () if is_id => "8e9e05c52164694d",
            () if is_backup => "20261121T020004Z-7qk2m9",
            () if is_time => "2026-11-21T02:00:04Z",
            () if is_number => "N",
            () => return word.to_owned(),
        };
        word.replace(bare, mark)
    });
    let indent = line.len() - line.trim_start().len();
    format!("{}{}", " ".repeat(indent), words.collect::<Vec<_>>().join(" "))
}

#[test]
fn the_worst_day_in_the_documentation_is_a_real_run() {
    let Some(talos) = Talos::start(Options::default().control_planes(3).workers(1)) else { return };
    talos.fill(81);
    let taken = talos.backup_cmd("admin").args(["--extra", "machine-config", "-o", "json", "-n", &talos.ip(0)]).run().ok().json();
    let id = taken["backups"][0]["manifest"]["id"].as_str().unwrap().to_owned();
    let before = talos.dump(0);
    // Two disks are gone, and the third machine's etcd has stopped.
    talos.double.stop_etcd(0);
    talos.wipe_data([1, 2]);
    let found = talos.recover(&[]).run().ok();
    let planned = talos.recover(&["latest", "--dry-run"]).arg("-i").arg(talos.job.identity()).run().ok();
    let done = talos.recover(&["latest", "--confirm", "prod"]).arg("-i").arg(talos.job.identity()).run().ok();
    talos.assert_back(&before, &[0, 1, 2]);

    let mut replace: Vec<(String, String)> = (0..4).map(|node| (talos.ip(node), format!("10.0.0.{}", node + 2))).collect();
    let stamp =
        done.out().lines().find_map(|line| line.split("/recover/").nth(1).map(|rest| rest.split('/').next().unwrap().to_owned())).unwrap();
    let planned_stamp =
        planned.out().lines().find_map(|line| line.split("/recover/").nth(1).map(|rest| rest.split('/').next().unwrap().to_owned()));
    for stamp in planned_stamp.into_iter().chain([stamp.split_whitespace().next().unwrap().to_owned()]) {
        replace.push((stamp, "20261121T020900Z-prod".to_owned()));
    }
    let flags = talos.flags("admin").join(" ");
    replace.extend([
        (format!(" --repo {} --cluster prod", talos.job.url()), String::new()),
        (format!(" {flags}"), String::new()),
        (talos.job.dir().join("state").display().to_string(), "/var/lib/lifeboat".to_owned()),
        (talos.job.identity().display().to_string(), "recovery.key".to_owned()),
        (id.clone(), "20261121T020004Z-7qk2m9".to_owned()),
        (id[17..].to_owned(), "7qk2m9".to_owned()),
        (lifeboat_tests::EtcdVersion::V3_6.full().to_owned(), "3.6.12".to_owned()),
    ]);
    let plain = Plain { replace };
    let mut text = String::new();
    // What is said on the way depends on how fast the machines are; the steps do not.
    let told =
        |text: &str| text.lines().filter(|line| line.starts_with("step ") || line.starts_with("rescued ")).collect::<Vec<_>>().join("\n");
    for (command, said, out) in [
        ("lifeboat recover talos", String::new(), found.out()),
        ("lifeboat recover talos latest -i recovery.key --dry-run", String::new(), planned.out()),
        ("lifeboat recover talos latest -i recovery.key", told(&done.err()), done.out()),
    ] {
        let said = if said.is_empty() { said } else { format!("{}\n", plain.of(&said)) };
        let _ = writeln!(text, "$ {command}\n{said}{}\n", plain.of(out.trim_end()));
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("the page has a place for the run");
    let (shown, tail) = rest.split_once(END).expect("the run has an end");
    if std::env::var_os("LIFEBOAT_UPDATE_DOCS").is_some() {
        std::fs::write(Path::new(PAGE), format!("{head}{BEGIN}{text}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(shown, text, "docs/talos.md shows another run; LIFEBOAT_UPDATE_DOCS=1 writes this one");
}

/// Of a cluster that works: whether it could be brought back, and nothing is changed by the question.
#[test]
fn a_rehearsal_says_what_a_recovery_would_lack_and_changes_nothing() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(53);
    drop(talos.backup_cmd("admin").args(["--extra", "machine-config"]).run().ok());
    let rehearse = |more: &[&str]| talos.recover(&["--rehearse"]).args(more).arg("-i").arg(talos.job.identity());
    let text = rehearse(&[]).run().ok();
    assert!(text.out().ends_with("a recovery has all it needs\n") && text.out().contains("3 of 3 control plane nodes answer"), "{text}");
    let report = rehearse(&["-o", "json"]).run().ok().json();
    assert_eq!((&report["schema"], &report["answering"]), (&"lifeboat.rehearsal/1".into(), &3.into()), "{report}");
    let items: Vec<&str> = report["items"].as_array().unwrap().iter().map(|item| item["item"].as_str().unwrap()).collect();
    assert_eq!(items, ["backup", "proof", "objects", "key", "room", "time"], "{report}");
    assert!(
        report["checks"].as_array().unwrap().iter().any(|check| check["check"] == "secrets" && check["verdict"] == "passed"),
        "{report}"
    );
    // The wrong key is what it would fail for.
    let (secret, _) = vault::seal::recipients::generate_identity();
    let wrong = talos.job.dir().join("wrong.txt");
    std::fs::write(&wrong, format!("{}\n", secrecy::ExposeSecret::expose_secret(&secret))).unwrap();
    let locked = talos.recover(&["--rehearse"]).arg("-i").arg(&wrong).run().exit(12);
    assert!(locked.out().contains("a recovery would fail"), "{locked}");
    assert_eq!((talos.resets(), talos.double.count("Bootstrap"), talos.double.count("EtcdRecover")), (0, 0, 0));
    assert!(!talos.job.dir().join("state/journals").exists(), "it needs no journal");
}
