//! `recover talos` stopped anywhere: killed at every durable step, and machines that reboot between Bootstrap's OK and the restore.

use std::time::Duration;

use lifeboat_tests::{Job, Lifeboat, Random};
use talos_double::{Options, TalosDouble};

use crate::common::Talos;

/// What a process that was killed at a crash point exits with.
const CRASHED: i32 = 137;

#[test]
fn killed_at_every_durable_step_it_goes_on_and_ends_well() {
    let Some(mut talos) = Talos::start(Options::default().control_planes(2)) else { return };
    talos.fill(71);
    let before = talos.backed_up();
    talos.double.wipe_data(1);
    talos.double.stop_etcd(0);
    talos.job.lifeboat = Lifeboat::with_crash_points();
    let mut kills = 0;
    loop {
        // Each run may go a few durable steps further than the one before.
        let run =
            talos.recovering(&["latest"]).env("LIFEBOAT_CRASH_AFTER", (5 + 2 * kills).to_string()).env("LIFEBOAT_CRASH_FORGET", "1").run();
        if run.code() != Some(CRASHED) {
            assert_eq!(run.code(), Some(0), "after {kills} kills: {run}");
            break;
        }
        kills += 1;
        assert!(kills < 150, "it does not come to its end: {run}");
    }
    println!("killed {kills} times");
    assert!(kills > 6, "nothing was tried");
    assert!(talos.resets() <= 6 && talos.double.count("Bootstrap") <= 8, "{} {}", talos.resets(), talos.double.count("Bootstrap"));
    talos.job.lifeboat = Lifeboat::new();
    talos.assert_back(&before, &[0, 1]);
}

#[test]
fn a_plan_that_is_given_up_says_where_things_are() {
    let Some(mut talos) = Talos::start(Options::default()) else { return };
    talos.fill(72);
    let before = talos.backed_up();
    talos.double.stop_etcd(0);
    drop(talos.recover(&["--abandon"]).run().ok());
    talos.double.switch(0, |switches| drop(switches.fail.insert("Bootstrap".to_owned(), talos_double::Failure::new(3, "no etcd CA"))));
    let failed = talos.recovering(&["latest"]).run().exit(1);
    assert!(failed.err().contains("no etcd CA") && failed.err().contains("goes on from there"), "{failed}");
    // Something else is another plan.
    let other = talos.recovering(&["--replace", "cp-1"]).run().exit(2);
    assert!(other.err().contains("another recovery") && other.err().contains("--abandon"), "{other}");
    let shown = talos.recover(&["latest", "--dry-run"]).run().ok();
    assert!(shown.out().contains("done     3. wipe") || shown.out().contains("done     3."), "{shown}");
    let found = talos.recover(&[]).run().ok();
    assert!(found.out().contains("a recovery is under way"), "{found}");
    let given_up = talos.recover(&["--abandon"]).run().ok();
    assert!(given_up.out().contains("given up here") && given_up.out().contains("was told to restore"), "{given_up}");
    // A new one ends well.
    talos.double.switch(0, |switches| switches.fail.clear());
    drop(talos.recovering(&["latest"]).run().ok());
    talos.assert_back(&before, &[0]);
    talos.job = Job::new();
}

/// What came back by itself since the plan was made is not wiped.
#[test]
fn a_cluster_that_came_back_meanwhile_is_left_alone() {
    let Some(talos) = Talos::start(Options::default()) else { return };
    talos.fill(74);
    drop(talos.backed_up());
    talos.double.stop_etcd(0);
    talos.double.switch(0, |switches| drop(switches.fail.insert("Reset".to_owned(), talos_double::Failure::new(3, "not now"))));
    drop(talos.recovering(&["latest"]).run().exit(1));
    talos.double.switch(0, |switches| switches.fail.clear());
    talos.double.start_etcd(0);
    talos.double.wait_healthy(0);
    talos.write_more();
    let now = talos.dump(0);
    let refused = talos.recovering(&["latest"]).run().exit(1);
    assert!(refused.err().contains("etcd works on cp-1") && talos.resets() == 1, "{refused}");
    // Stopped again, with what it holds now in no rescue yet: that is saved before it is wiped.
    talos.double.stop_etcd(0);
    talos.double.reboot(0);
    talos.double.wait_healthy(0);
    talos.double.stop_etcd(0);
    let done = talos.recovering(&["latest"]).run().ok();
    assert!(done.err().contains("it holds data that no rescue has yet"), "{done}");
    let directory = std::path::PathBuf::from(done.json()["directory"].as_str().unwrap());
    let again = directory.join("cp-1-again-0-1.dirty.db");
    let shown = talos.job.lifeboat.cmd(["snapshot", "status", "-o", "json"]).arg(&again).run();
    assert!(shown.out().contains(&now.revision.to_string()), "{shown}");
}

/// A reboot at a random moment between the answer to Bootstrap and the running etcd, on one node after the other recovery.
fn rebooted(seeds: std::ops::Range<u64>) {
    let Some(talos) = Talos::start(Options::default()) else { return };
    talos.fill(73);
    let before = talos.backed_up();
    let mut lost = 0;
    for seed in seeds {
        talos.double.wipe_data(0);
        let mut random = Random::new(seed);
        // A restore takes about half a second here: before it, in the middle of it, right behind it.
        let pause = Duration::from_millis(20 + random.below(1_500));
        talos.double.switch(0, |switches| {
            switches.restore_takes = Duration::from_millis(300);
            switches.reboot_after_bootstrap = Some((1 + u32::try_from(random.below(2)).unwrap(), pause));
        });
        let asked = talos.double.count("Bootstrap");
        let done = talos.recovering(&["latest"]).run();
        assert_eq!(done.code(), Some(0), "seed {seed}, {pause:?}: {done}");
        lost += usize::from(talos.double.count("Bootstrap") > asked + 1);
        talos.double.switch(0, |switches| switches.reboot_after_bootstrap = None);
        // One may still be on its way.
        std::thread::sleep(Duration::from_millis(1_800));
        talos.double.wait_healthy(0);
        before.assert_same_live(&talos.dump(0));
    }
    println!("{lost} times the order was lost and given anew");
    assert!(lost > 0, "no reboot struck before the restore");
    settle(&talos.double);
}

/// A reboot may still be on its way.
fn settle(double: &TalosDouble) {
    double.wait_healthy(0);
}

#[test]
fn a_reboot_between_bootstrap_and_the_restore_is_noticed_and_mended_seeds_0_to_9() {
    rebooted(0..10);
}

#[test]
fn a_reboot_between_bootstrap_and_the_restore_is_noticed_and_mended_seeds_10_to_19() {
    rebooted(10..20);
}
