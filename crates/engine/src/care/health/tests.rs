use std::time::Duration;

use etcd_api::{Alarm, AlarmKind, Header, Member, MemberStatus};
use etcd_store::id::{ClusterId, MemberId, Revision};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::care::view::{MemberAnswer, MemberView, Silence};

fn listed(id: u64) -> Member {
    Member {
        id: MemberId(id),
        name: format!("m{id}"),
        peer_urls: vec![format!("http://10.0.0.{id}:2380")],
        client_urls: vec![format!("http://10.0.0.{id}:2379")],
        is_learner: false,
    }
}

fn member(id: u64, of: u64) -> MemberView {
    let header = Header { cluster_id: ClusterId(7), member_id: MemberId(id), revision: Revision(90), raft_term: 3 };
    let status = MemberStatus {
        header,
        version: "3.6.16".to_owned(),
        db_size: 100 << 20,
        db_size_in_use: 90 << 20,
        leader: Some(MemberId(1)),
        raft_index: 10_000,
        raft_term: 3,
        raft_applied_index: 10_000,
        errors: Vec::new(),
        is_learner: false,
        storage_version: Some("3.6.0".to_owned()),
        db_size_quota: Some(2 << 30),
        downgrade: None,
    };
    let answer =
        MemberAnswer { status, cluster_id: Some(ClusterId(7)), listed: Ok((1..=of).map(listed).collect()), took: Duration::from_millis(2) };
    let Member { id, name, peer_urls, client_urls, is_learner } = listed(id);
    MemberView { endpoint: client_urls[0].clone(), id, name, peer_urls, client_urls, is_learner, is_listed: true, answer: Ok(answer) }
}

pub(crate) fn cluster(of: u64) -> ClusterView {
    ClusterView {
        taken: Timestamp::UNIX_EPOCH,
        members: (1..=of).map(|id| member(id, of)).collect(),
        strangers: Vec::new(),
        over_talos: false,
        alarms: Some(Vec::new()),
        notes: Vec::new(),
    }
}

fn status(view: &mut ClusterView, at: usize) -> &mut MemberStatus {
    &mut view.members[at].answer.as_mut().unwrap().status
}

/// Check, severity and member of everything that is not healthy.
fn odd(view: &ClusterView) -> Vec<(&'static str, Severity, String)> {
    let findings = examine(view, None, &Certificates::default());
    for finding in &findings {
        assert_eq!(finding.means.is_some(), finding.severity > Severity::Unknown, "what is not well says what it means: {finding:?}");
    }
    let odd = findings.into_iter().filter(|finding| finding.severity != Severity::Healthy);
    odd.map(|finding| (finding.check, finding.severity, finding.member.unwrap_or_default())).collect()
}

#[test]
fn a_healthy_cluster_is_healthy_in_every_check() {
    let view = cluster(3);
    assert_eq!(odd(&view), []);
    let findings = examine(
        &view,
        Some(&view),
        &Certificates { ends: vec![("client".into(), Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 300))] },
    );
    let checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(
        checks,
        [
            "quorum",
            "answers",
            "cluster-id",
            "leader",
            "member-lists",
            "peer-addresses",
            "learners",
            "leader-changes",
            "raft-lag",
            "alarms",
            "quota",
            "in-use",
            "versions",
            "certificates",
            "latency"
        ]
    );
    assert_eq!(verdict(&findings), Severity::Healthy);
}

#[test]
fn one_member_is_no_cluster_and_two_are_no_better() {
    assert_eq!(odd(&cluster(1)), [("quorum", Severity::Advice, String::new())]);
    assert_eq!(odd(&cluster(2)), [("quorum", Severity::Advice, String::new())]);
    assert_eq!(odd(&cluster(5)), []);
}

#[test]
fn a_silent_member_of_three_is_an_alert_and_two_are_the_end() {
    let silence = Silence { reason: "refused".to_owned(), connected: false, is_denied: false };
    let mut view = cluster(3);
    view.members[2].answer = Err(silence.clone());
    assert_eq!(odd(&view), [("quorum", Severity::Alert, String::new()), ("answers", Severity::Alert, "m3".to_owned())]);
    let mut five = cluster(5);
    five.members[2].answer = Err(silence.clone());
    assert_eq!(odd(&five), [("answers", Severity::Alert, "m3".to_owned())], "five survive one more");
    view.members[1].answer = Err(silence);
    status(&mut view, 0).leader = None;
    let findings = examine(&view, None, &Certificates::default());
    assert!(findings[0].says.ends_with("NO QUORUM") && findings[0].mend.is_some(), "{:?}", findings[0]);
}

#[test]
fn a_split_is_named() {
    let mut view = cluster(3);
    view.members[2].answer.as_mut().unwrap().cluster_id = Some(ClusterId(8));
    status(&mut view, 2).leader = Some(MemberId(3));
    let said = odd(&view);
    assert_eq!(said[0], ("quorum", Severity::Unknown, String::new()), "votes of two clusters are not added up");
    assert!(
        said.contains(&("cluster-id", Severity::Alert, String::new())) && said.contains(&("leader", Severity::Alert, String::new())),
        "{said:?}"
    );
}

#[test]
fn lists_that_differ_and_members_that_are_in_none() {
    let mut view = cluster(3);
    view.members[1].answer.as_mut().unwrap().listed.as_mut().unwrap().pop();
    view.members[2].is_listed = false;
    let said = odd(&view);
    let expected = [("quorum", Severity::Advice, ""), ("member-lists", Severity::Alert, "m3"), ("member-lists", Severity::Alert, "")];
    assert_eq!(
        said,
        expected.map(|(check, severity, member)| (check, severity, member.to_owned())),
        "two have a vote, and two are no better than one"
    );
}

#[test]
fn a_peer_that_only_reaches_itself() {
    let mut view = cluster(3);
    view.members[0].peer_urls = vec!["http://127.0.0.1:2380".to_owned()];
    assert_eq!(odd(&view), [("peer-addresses", Severity::Alert, "m1".to_owned())]);
    for member in &mut view.members {
        member.peer_urls = vec![format!("http://localhost:{}", member.id.0)];
    }
    assert_eq!(odd(&view), [], "all on one machine, as tests have it");
}

#[test]
fn learners_lag_and_elections() {
    let mut view = cluster(4);
    view.members[3].is_learner = true;
    status(&mut view, 3).raft_applied_index = 8_999;
    let findings = examine(&view, None, &Certificates::default());
    let learner = findings.iter().find(|finding| finding.check == "learners").unwrap();
    assert!(learner.severity == Severity::Advice && learner.mend.is_none(), "{learner:?}");
    status(&mut view, 3).raft_applied_index = 9_000;
    let findings = examine(&view, None, &Certificates::default());
    assert_eq!(findings.iter().find(|finding| finding.check == "learners").unwrap().mend.as_deref(), Some("lifeboat etcd promote m4"));

    let mut behind = cluster(3);
    status(&mut behind, 1).raft_applied_index = 9_000;
    status(&mut behind, 2).raft_applied_index = 5_000;
    assert_eq!(odd(&behind), [("raft-lag", Severity::Advice, "m2".to_owned()), ("raft-lag", Severity::Alert, "m3".to_owned())]);

    let mut later = cluster(3);
    (0..3).for_each(|at| status(&mut later, at).raft_term = 5);
    let findings = examine(&later, Some(&cluster(3)), &Certificates::default());
    let changes = findings.iter().find(|finding| finding.check == "leader-changes").unwrap();
    assert!(changes.severity == Severity::Alert && changes.says.starts_with("2 election(s)"), "{changes:?}");
}

#[test]
fn alarms_quota_and_free_pages() {
    let mut view = cluster(3);
    view.alarms =
        Some(vec![Alarm { member: MemberId(2), kind: AlarmKind::NoSpace }, Alarm { member: MemberId(0), kind: AlarmKind::Corrupt }]);
    status(&mut view, 0).db_size = 1_900 << 20;
    status(&mut view, 0).db_size_in_use = 800 << 20;
    status(&mut view, 1).db_size_in_use = 55 << 20;
    let said = odd(&view);
    let expected: [(&str, Severity, &str); 5] = [
        ("alarms", Severity::Alert, "m2"),
        ("alarms", Severity::Alert, "nobody in particular"),
        ("quota", Severity::Alert, "m1"),
        ("in-use", Severity::Alert, "m1"),
        ("in-use", Severity::Advice, "m2"),
    ];
    assert_eq!(said, expected.map(|(check, severity, member)| (check, severity, member.to_owned())));
    view.alarms = None;
    assert!(odd(&view).contains(&("alarms", Severity::Unknown, String::new())));
    status(&mut view, 1).errors = vec!["etcdserver: no leader".to_owned(), "memberID:2 alarm:CORRUPT ".to_owned()];
    assert!(odd(&view).contains(&("alarms", Severity::Alert, "m2".to_owned())), "without a quorum the status still tells");
    // A member before 3.6 does not tell its quota: what is only assumed is never an alert.
    status(&mut view, 0).db_size_quota = None;
    assert!(odd(&view).contains(&("quota", Severity::Advice, "m1".to_owned())));
    status(&mut view, 2).db_size = 9 << 30;
    status(&mut view, 2).db_size_in_use = 9 << 30;
    status(&mut view, 2).db_size_quota = Some(16 << 30);
    assert!(odd(&view).contains(&("quota", Severity::Advice, "m3".to_owned())), "beyond 8 GiB");
}

#[test]
fn versions_certificates_and_latency() {
    let mut view = cluster(3);
    status(&mut view, 0).version = "3.5.4".to_owned();
    let said = odd(&view);
    assert_eq!(said.iter().filter(|(check, ..)| *check == "versions").count(), 2, "mixed, and one with a known fault: {said:?}");
    view.members[1].answer.as_mut().unwrap().took = Duration::from_secs(1);
    assert!(odd(&view).contains(&("latency", Severity::Advice, "m2".to_owned())));

    let ends = |days: i64| ("client".to_owned(), Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * days));
    let severity = |days: i64| {
        let findings = examine(&cluster(3), None, &Certificates { ends: vec![ends(days)] });
        findings.into_iter().find(|finding| finding.check == "certificates").unwrap().severity
    };
    assert_eq!(
        (severity(100), severity(29), severity(6), severity(-1)),
        (Severity::Healthy, Severity::Advice, Severity::Alert, Severity::Alert)
    );
}

#[test]
fn a_member_is_meant_by_name_id_and_address() {
    let view = cluster(3);
    for text in ["m2", "2", "0000000000000002", "http://10.0.0.2:2379", "http://10.0.0.2:2379/", "10.0.0.2:2379"] {
        assert_eq!(view.find(text).unwrap().id, MemberId(2), "{text}");
    }
    assert!(view.find("m4").is_none() && view.find("").is_none());
}

/// The page that explains every finding says what the code does: each check has its row, and the thresholds in it are these.
#[test]
fn the_page_about_care_names_every_check_and_its_thresholds() {
    use crate::limits::*;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/care.md")).unwrap();
    let row = |check: &str| {
        let start = format!("| `{check}` |");
        page.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("docs/care.md has no row for {check}")).to_owned()
    };
    let view = cluster(3);
    let certificates = Certificates { ends: vec![("client".into(), Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 300))] };
    for finding in examine(&view, Some(&view), &certificates) {
        assert!(!row(finding.check).is_empty());
    }
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let days = |time: SignedDuration| format!("{} days", time.as_hours() / 24);
    for (check, thresholds) in [
        ("raft-lag", vec![format!("| {LAG_ADVICE} entries behind |"), format!("| {LAG_ALERT} entries behind |")]),
        (
            "quota",
            vec![
                percent(QUOTA_ADVICE),
                percent(QUOTA_ALERT),
                format!("{} GiB", ADVISED_SIZE >> 30),
                format!("{} GiB is assumed", DEFAULT_QUOTA >> 30),
            ],
        ),
        ("in-use", vec![percent(IN_USE_ADVICE), percent(IN_USE_ALERT), format!("below {} MiB", IN_USE_FROM >> 20)]),
        ("certificates", vec![days(CERTIFICATE_ADVICE), days(CERTIFICATE_ALERT)]),
        ("latency", vec![format!("{} ms", LATENCY_ADVICE.as_millis())]),
    ] {
        for threshold in thresholds {
            assert!(row(check).contains(&threshold), "docs/care.md: {check} does not say {threshold:?}");
        }
    }
    for said in [
        format!("a file of {} of the quota", percent(QUOTA_ALERT)),
        format!("less than {} is in use", percent(DEFRAG_IN_USE_BELOW)),
        format!("more than {} MiB is free", DEFRAG_FREE_ABOVE >> 20),
        format!("with {} s between two", DEFRAG_PAUSE.as_secs()),
        format!("waits up to {} s for a defragmentation", BACKUP_WAITS_FOR_DEFRAG.as_secs()),
        format!("younger than {} h", BACKUP_BEFORE_DEFRAG.as_hours()),
        format!("for up to {} s", EFFECT_WITHIN.as_secs()),
        format!("(`{}s`)", HASHKV_BUDGET.as_secs()),
    ] {
        assert!(page.contains(&said), "docs/care.md does not say {said:?}");
    }
}

fn alerts(view: &ClusterView, alert: &crate::config::Alert, growth: Option<&Growth>) -> Vec<(&'static str, Severity, String)> {
    let findings = examine_thresholds(view, alert, growth, Timestamp::UNIX_EPOCH);
    findings.into_iter().map(|finding| (finding.check, finding.severity, finding.member.unwrap_or_default())).collect()
}

#[test]
fn a_threshold_that_is_configured_is_an_alert_and_others_are_silent() {
    let mut view = cluster(2);
    status(&mut view, 1).db_size = 300 << 20;
    let alert = crate::config::Alert::default();
    assert_eq!(alerts(&view, &alert, None), []);
    let alert = crate::config::Alert { db_size_above: Some("200MiB".to_owned()), in_use_below: Some("50%".to_owned()), ..alert };
    let of_second = |check| (check, Severity::Alert, "m2".to_owned());
    assert_eq!(alerts(&view, &alert, None), [of_second("db-size-above"), of_second("in-use-below")]);
}

#[test]
fn a_quota_that_comes_near_is_told_by_the_day() {
    let view = cluster(1);
    let alert = crate::config::Alert::default();
    let grows = |days: u64| Growth { bytes_per_day: ((1 << 30) / days) as f64, in_use: 1 << 30, at: Timestamp::UNIX_EPOCH };
    let of = |days| alerts(&view, &alert, Some(&grows(days))).first().map(|(check, severity, _)| (*check, *severity));
    assert_eq!(of(3), Some(("growth", Severity::Alert)));
    assert_eq!(of(20), Some(("growth", Severity::Advice)));
    assert_eq!(of(90), None);
    assert_eq!(quota_reached(&view, &grows(10)).unwrap().0.strftime("%Y-%m-%d").to_string(), "1970-01-11");
}
