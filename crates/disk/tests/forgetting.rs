//! The crash points and the model of what a crash forgets: each scenario runs in a process of its own, which is ended at every one
//! of its points in turn.

#![cfg(feature = "crash-points")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use disk::{Dir, File, crash};

type Tree = BTreeMap<String, String>;

/// Names and contents below a directory; temporary names are shown without their random part, directories end in a slash.
fn tree(dir: &Path) -> Tree {
    fn walk(dir: &Path, prefix: &str, into: &mut Tree) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let name = if name.starts_with(disk::TEMP_PREFIX) { "TEMP".to_owned() } else { name };
            if entry.file_type().unwrap().is_dir() {
                into.insert(format!("{prefix}{name}/"), String::new());
                walk(&entry.path(), &format!("{prefix}{name}/"), into);
            } else {
                into.insert(format!("{prefix}{name}"), std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut into = Tree::new();
    walk(dir, "", &mut into);
    into
}

fn expect(entries: &[(&str, &str)]) -> Tree {
    entries.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

/// The body of a scenario; `run_child` finds it by name.
fn scenario(name: &str, dir: &Path) {
    match name {
        "append" => {
            let file = File::create_new(dir.join("f"), 0o600).unwrap(); // 1
            disk::sync_dir(dir).unwrap(); // 2
            file.write_all_at(b"one", 0).unwrap(); // 3
            file.sync().unwrap(); // 4
            file.write_all_at(b"two", 3).unwrap(); // 5
            crash::point("end"); // 6
        }
        "overwrite" => {
            let file = File::open_read_write(dir.join("old")).unwrap();
            file.write_all_at(b"XX", 1).unwrap(); // 1
            file.set_len(2).unwrap(); // 2
            file.write_all_at(b"YYYYYYYYYY", 1).unwrap(); // 3
            file.set_len(4).unwrap(); // 4
            let again = File::open_read_write(dir.join("old")).unwrap();
            again.sync_data().unwrap(); // 5
            crash::point("end"); // 6
        }
        "name" => {
            let file = File::create_new(dir.join("f"), 0o600).unwrap(); // 1
            file.write_all_at(b"x", 0).unwrap(); // 2
            file.sync().unwrap(); // 3
            crash::point("content synced, name not"); // 4
            disk::sync_dir(dir).unwrap(); // 5
            crash::point("end"); // 6
        }
        "replace" => {
            disk::publish_replace(dir.join("old"), b"new", 0o600).unwrap(); // create, write, sync, rename, sync dir
            crash::point("end"); // 6
        }
        "across" => {
            disk::create_dir(dir.join("d"), 0o700).unwrap(); // 1
            disk::sync_dir(dir).unwrap(); // 2
            disk::rename(dir.join("old"), dir.join("d/moved")).unwrap(); // 3
            disk::sync_dir(dir.join("d")).unwrap(); // 4
            crash::point("one of two directories synced"); // 5
            disk::sync_dir(dir).unwrap(); // 6
            crash::point("end"); // 7
        }
        "subtree" => {
            disk::create_dir(dir.join("d"), 0o700).unwrap(); // 1
            let file = File::create_new(dir.join("d/f"), 0o600).unwrap(); // 2
            file.sync().unwrap(); // 3
            disk::sync_dir(dir.join("d")).unwrap(); // 4
            crash::point("the directory's own name is not synced"); // 5
        }
        "exchange" => {
            disk::exchange(dir.join("old"), dir.join("tree")).unwrap(); // 1
            crash::point("exchanged"); // 2
            disk::sync_dir(dir).unwrap(); // 3
            crash::point("end"); // 4
        }
        "remove" => {
            disk::remove_dir_all(dir.join("tree")).unwrap(); // 1 to 4: two files, two directories
            disk::remove_file(dir.join("old")).unwrap(); // 5
            crash::point("removed"); // 6
            disk::sync_dir(dir).unwrap(); // 7
            crash::point("end"); // 8
        }
        "chain" => {
            let dir = Dir::open(dir).unwrap();
            let file = dir.create_file("a", 0o600).unwrap(); // 1
            file.write_all_at(b"a", 0).unwrap(); // 2
            file.sync().unwrap(); // 3
            dir.hard_link("a", &dir, "b").unwrap(); // 4
            dir.rename("b", &dir, "old").unwrap(); // 5
            dir.remove_file("a").unwrap(); // 6
            crash::point("nothing synced"); // 7
            dir.sync().unwrap(); // 8
            crash::point("end"); // 9
        }
        "renamed parent" => {
            let sub = Dir::open(dir.join("tree")).unwrap();
            sub.create_file("new", 0o600).unwrap(); // 1
            disk::rename(dir.join("tree"), dir.join("moved")).unwrap(); // 2
            disk::sync_dir(dir).unwrap(); // 3
            crash::point("the name in the moved directory is not synced"); // 4
        }
        "unnamed" => {
            let file = File::unnamed(dir, 0o600).unwrap();
            file.write_all_at(b"x", 0).unwrap();
            file.sync().unwrap();
            crash::point("end"); // 1
        }
        other => panic!("no scenario {other}"),
    }
}

/// Not a test of its own: what the others start as a process.
#[test]
fn child() {
    if let (Ok(name), Ok(dir)) = (std::env::var("DISK_SCENARIO"), std::env::var("DISK_SCENARIO_DIR")) {
        scenario(&name, Path::new(&dir));
        crash::report();
    }
}

/// Runs a scenario to be ended at point `n`, and returns what is there afterwards, or `None` with the count if it finished.
fn crashed(name: &str, variable: &str, n: u64, forget: &str) -> Result<Tree, u64> {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("work");
    std::fs::create_dir_all(dir.join("tree/sub")).unwrap();
    std::fs::write(dir.join("old"), "0123456789").unwrap();
    std::fs::write(dir.join("tree/leaf"), "leaf").unwrap();
    std::fs::write(dir.join("tree/sub/twig"), "twig").unwrap();
    let count = temp.path().join("count");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("DISK_SCENARIO", name)
        .env("DISK_SCENARIO_DIR", &dir)
        .env(variable, n.to_string())
        .env("LIFEBOAT_CRASH_FORGET", forget)
        .env("LIFEBOAT_CRASH_COUNT_FILE", &count)
        .output()
        .unwrap();
    match output.status.code() {
        Some(crash::EXIT_CODE) => {
            assert!(!count.exists());
            Ok(tree(&dir))
        }
        Some(0) => Err(std::fs::read_to_string(count).unwrap().trim().parse().unwrap()),
        other => panic!("{name} {variable}={n}: {other:?} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// What is left after a crash before point `n`, all that was not durable forgotten; only what differs from the start is compared.
fn left(name: &str, n: u64) -> Tree {
    crashed(name, "LIFEBOAT_CRASH_AT", n, "1").unwrap()
}

const OLD: (&str, &str) = ("old", "0123456789");
const TREE: [(&str, &str); 4] = [("tree/", ""), ("tree/leaf", "leaf"), ("tree/sub/", ""), ("tree/sub/twig", "twig")];

/// The start, with `changed` instead of `old`.
fn with(changed: &[(&str, &str)]) -> Tree {
    expect(&[changed, &TREE].concat())
}

#[test]
fn content_goes_back_to_the_last_sync() {
    assert_eq!(left("append", 2), with(&[OLD]));
    assert_eq!(left("append", 3), with(&[OLD, ("f", "")]));
    assert_eq!(left("append", 4), with(&[OLD, ("f", "")]));
    assert_eq!(left("append", 5), with(&[OLD, ("f", "one")]));
    assert_eq!(left("append", 6), with(&[OLD, ("f", "one")]));
    for n in 1..=5 {
        assert_eq!(left("overwrite", n), with(&[OLD]), "{n}");
    }
    assert_eq!(left("overwrite", 6), with(&[("old", "0YYY")]));
}

#[test]
fn syncing_a_file_does_not_make_its_name_durable() {
    for n in 1..=5 {
        assert_eq!(left("name", n), with(&[OLD]), "{n}");
    }
    assert_eq!(left("name", 6), with(&[OLD, ("f", "x")]));
    assert_eq!(crashed("name", "LIFEBOAT_CRASH_AFTER", 5, "1"), Ok(with(&[OLD, ("f", "x")])));
    assert_eq!(crashed("name", "LIFEBOAT_CRASH_AFTER", 4, "1"), Ok(with(&[OLD])));
}

#[test]
fn replacing_leaves_the_old_or_the_new() {
    for n in 1..=5 {
        assert_eq!(left("replace", n), with(&[OLD]), "{n}");
    }
    assert_eq!(left("replace", 6), with(&[("old", "new")]));
    // Names that reach the disk before the content: safe because the content is synced before the rename.
    let half: Vec<Tree> = (1..=6).map(|n| crashed("replace", "LIFEBOAT_CRASH_AT", n, "content").unwrap()).collect();
    assert_eq!(half[1], with(&[OLD, ("TEMP", "")]));
    assert_eq!(half[2], with(&[OLD, ("TEMP", "")]));
    assert_eq!(half[3], with(&[OLD, ("TEMP", "new")]));
    assert_eq!(half[4], with(&[("old", "new")]));
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    for n in 3..=6 {
        assert_eq!(left("across", n), with(&[OLD, ("d/", "")]), "{n}");
    }
    assert_eq!(left("across", 7), with(&[("d/", ""), ("d/moved", OLD.1)]));
}

#[test]
fn a_directory_whose_name_is_lost_takes_its_content_along() {
    assert_eq!(left("subtree", 5), with(&[OLD]));
    assert_eq!(left("renamed parent", 4), {
        let mut moved = expect(&[OLD]);
        moved.extend(TREE.map(|(name, content)| (name.replace("tree", "moved"), content.to_owned())));
        moved
    });
}

#[test]
fn an_exchange_happens_wholly_or_not_at_all() {
    for n in 1..=3 {
        assert_eq!(left("exchange", n), with(&[OLD]), "{n}");
    }
    let exchanged = left("exchange", 4);
    assert_eq!(exchanged["tree"], OLD.1);
    assert_eq!(exchanged["old/sub/twig"], "twig");
}

#[test]
fn what_was_removed_comes_back() {
    for n in 1..=7 {
        assert_eq!(left("remove", n), with(&[OLD]), "{n}");
    }
    assert_eq!(left("remove", 8), Tree::new());
    for n in 1..=8 {
        assert_eq!(left("chain", n), with(&[OLD]), "{n}");
    }
    assert_eq!(left("chain", 9), with(&[("old", "a")]));
}

#[test]
fn without_forgetting_everything_done_stays() {
    assert_eq!(crashed("name", "LIFEBOAT_CRASH_AT", 3, "0"), Ok(with(&[OLD, ("f", "x")])));
    assert_eq!(crashed("name", "LIFEBOAT_CRASH_AFTER", 1, "0"), Ok(with(&[OLD, ("f", "")])));
}

#[test]
fn a_run_to_the_end_reports_the_count() {
    for (name, points) in [("append", 6), ("replace", 6), ("across", 7), ("remove", 8), ("chain", 9), ("unnamed", 1)] {
        assert_eq!(crashed(name, "LIFEBOAT_CRASH_AT", points + 1, "1"), Err(points), "{name}");
        assert!(crashed(name, "LIFEBOAT_CRASH_AT", points, "1").is_ok(), "{name}");
    }
}
