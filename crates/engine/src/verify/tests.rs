#![allow(clippy::unwrap_used)]
use super::*;

fn checked(tried: Rung, reached: Rung) -> Checked {
    Checked {
        id: "20261121T020004Z-7qk2m9".parse().unwrap(),
        tried,
        reached,
        failed_at: None,
        untrusted: false,
        locked: false,
        hashkv: Some(HashKvVerdict::Match),
        findings: Vec::new(),
        notes: Vec::new(),
        bytes: 0,
    }
}

fn damaged(at: Rung) -> Checked {
    let below = if at == Rung::Deep { Rung::Read } else { Rung::None };
    let finding = Finding { object: "prod/snapshots/x/db.zst.age".to_owned(), range: Some(8..16), what: "changed".to_owned() };
    Checked { failed_at: Some(at), findings: vec![finding], ..checked(Rung::Deep, below) }
}

fn report(checked: Vec<Checked>) -> Report {
    Report {
        repository: "file:///r".to_owned(),
        cluster: "prod".parse().unwrap(),
        checked,
        problems: Vec::new(),
        warnings: Vec::new(),
        place: PlaceOptions { url: "file:///r".to_owned(), ..PlaceOptions::default() },
        locked: Some(Sealing { recipients: vec!["00000000000000ab".parse().unwrap()], ..Sealing::default() }),
    }
}

fn mark(checked: &Checked) -> Option<(Rung, Ending)> {
    checked.mark(Timestamp::UNIX_EPOCH).map(|data| (data.rung, data.result))
}

#[test]
fn a_mark_says_the_rung_that_was_passed_or_the_one_that_failed() {
    assert_eq!(mark(&checked(Rung::Read, Rung::Read)), Some((Rung::Read, Ending::Passed)));
    assert_eq!(mark(&damaged(Rung::Deep)), Some((Rung::Deep, Ending::Failed)));
    let locked = Checked { locked: true, ..checked(Rung::Deep, Rung::Read) };
    assert_eq!((locked.result(), mark(&locked)), (Ending::Inconclusive, Some((Rung::Read, Ending::Passed))));
}

#[test]
fn a_missing_signature_is_no_mark() {
    let mut untrusted = Checked { untrusted: true, ..checked(Rung::Read, Rung::None) };
    untrusted.findings.push(Finding { object: "m".to_owned(), range: None, what: "unsigned".to_owned() });
    assert_eq!((untrusted.result(), mark(&untrusted)), (Ending::Failed, None));
    let both = Checked { untrusted: true, ..damaged(Rung::Read) };
    assert_eq!(mark(&both), Some((Rung::Read, Ending::Failed)));
}

#[test]
fn damage_beats_a_dispute_which_beats_a_missing_key() {
    let locked = Checked { locked: true, ..checked(Rung::Deep, Rung::Read) };
    let disputed = Checked { hashkv: Some(HashKvVerdict::Disputed), ..checked(Rung::Deep, Rung::Read) };
    assert!(report(vec![checked(Rung::Deep, Rung::Deep)]).failure().is_none());
    let failure = report(vec![locked.clone()]).failure().unwrap();
    assert!(failure.code == Code::NoKey && failure.cause.unwrap().contains("00000000000000ab"));
    let failure = report(vec![locked.clone(), disputed.clone()]).failure().unwrap();
    assert!(failure.code == Code::Unproven && failure.what.contains("dispute"));
    let failure = report(vec![locked, disputed, damaged(Rung::Read)]).failure().unwrap();
    assert_eq!(failure.object.as_deref(), Some("prod/snapshots/x/db.zst.age, bytes 8 to 16"));
    assert_eq!(failure.next.map(|next| next.to_string()).as_deref(), Some("lifeboat list --repo file:///r --cluster prod"));
}

#[test]
fn a_dispute_counts_only_where_the_content_was_looked_at() {
    let disputed = Checked { hashkv: Some(HashKvVerdict::Disputed), ..checked(Rung::Read, Rung::Read) };
    assert!(report(vec![disputed]).failure().is_none());
}

#[test]
fn what_is_wrong_beside_the_backups_counts_too() {
    let problem = Finding { object: "prod/marks/x.json".to_owned(), range: None, what: "damaged".to_owned() };
    let failing = Report { problems: vec![problem], ..report(vec![checked(Rung::Stored, Rung::Stored)]) };
    assert_eq!(failing.failure().unwrap().object.as_deref(), Some("prod/marks/x.json"));
}
