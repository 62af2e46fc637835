use etcd_api::Alarm;
use etcd_store::id::MemberId;

use super::*;
use crate::care::health::tests::cluster;
use crate::journal::Step as _;

fn wanted() -> Wanted {
    Wanted { backup: BackupTo::Repository("file:///r".to_owned()), compact_anyway: false, quota: None }
}

fn plan(view: &ClusterView, found: Found, wanted: &Wanted) -> Outcome<Option<Plan>> {
    super::plan(view, "1a2b", found, wanted)
}

const PLAIN: Found = Found { revision: 90, is_kubernetes: false };

/// Three members, the second of which raised the alarm.
fn full() -> ClusterView {
    let mut view = cluster(3);
    view.alarms = Some(vec![Alarm { member: MemberId(2), kind: AlarmKind::NoSpace }]);
    view
}

fn names(plan: &Plan) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Defragment { label, .. } => label.clone(),
        other => other.name().to_owned(),
    };
    plan.steps.iter().map(name).collect()
}

#[test]
fn the_plan_is_etcds_advice_with_the_leader_last() {
    let plan = plan(&full(), PLAIN, &wanted()).unwrap().unwrap();
    assert_eq!(names(&plan), ["backup", "compact", "m2", "m3", "m1", "disarm", "verify"]);
    assert_eq!((plan.alarms.as_slice(), plan.revision), (&["m2".to_owned()][..], 90));
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn a_backup_counts_by_its_revision_its_time_and_its_cluster() {
    let mut plan = plan(&full(), PLAIN, &wanted()).unwrap().unwrap();
    let (before, after) = (plan.planned - std::time::Duration::from_secs(1), plan.planned);
    assert!(plan.reaches(90, after) && !plan.reaches(89, after));
    assert!(!plan.reaches(1000, before), "of a cluster that was there before, under the same id");
    plan.cluster_id = "000000000000001a".to_owned();
    assert!(plan.is_of(Some(ClusterId(0x1a)), None) && !plan.is_of(Some(ClusterId(0x1b)), None) && !plan.is_of(None, Some(MemberId(1))));
    plan.cluster_id = "talos-0000000000000001".to_owned();
    assert!(plan.is_of(None, Some(MemberId(1))) && !plan.is_of(None, Some(MemberId(9))) && !plan.is_of(Some(ClusterId(0x1a)), None));
    plan.revision = 0;
    assert!(!plan.reaches(90, before) && plan.reaches(1, after));
}

#[test]
fn kubernetes_compacts_by_itself_unless_told() {
    let kubernetes = Found { is_kubernetes: true, ..PLAIN };
    let left = plan(&full(), kubernetes, &wanted()).unwrap().unwrap();
    assert_eq!(names(&left), ["backup", "m2", "m3", "m1", "disarm", "verify"]);
    assert!(left.remarks()[0].contains("--compact-anyway"));
    let anyway = plan(&full(), kubernetes, &Wanted { compact_anyway: true, ..wanted() }).unwrap().unwrap();
    assert!(anyway.compacts() && anyway.remarks()[0].contains("start anew"));
}

#[test]
fn nothing_is_done_where_nothing_is_wrong() {
    assert_eq!(plan(&cluster(3), PLAIN, &wanted()).unwrap(), None);
    // Near the quota, before the alarm: all but the alarm.
    let near = Wanted { quota: Some(105 << 20), backup: BackupTo::Nowhere, ..wanted() };
    assert_eq!(names(&plan(&cluster(3), PLAIN, &near).unwrap().unwrap()), ["compact", "m2", "m3", "m1", "verify"]);
}

#[test]
fn what_is_unsafe_is_not_begun() {
    let mut corrupt = full();
    corrupt.alarms.as_mut().unwrap().push(Alarm { member: MemberId(3), kind: AlarmKind::Corrupt });
    assert!(plan(&corrupt, PLAIN, &wanted()).unwrap_err().cause.unwrap().contains("CORRUPT"));
    let mut unknown = full();
    unknown.alarms = None;
    assert!(plan(&unknown, PLAIN, &wanted()).unwrap_err().what.contains("cannot be listed"));
}

#[test]
fn a_quota_that_is_not_told_is_concluded_from_the_alarm() {
    let mut view = full();
    for member in &mut view.members {
        member.answer.as_mut().unwrap().status.db_size_quota = None;
    }
    let before = spaces(&view, None, &[]);
    assert_eq!(
        before.iter().map(|space| (space.quota, space.quota_told)).collect::<Vec<_>>(),
        [(None, false), (Some(100 << 20), false), (None, false)]
    );
    assert!(before[1].is_full() && !before[0].is_near());
    // Afterwards the alarm is gone, and the conclusion still holds.
    view.alarms = Some(Vec::new());
    view.members[1].answer.as_mut().unwrap().status.db_size = 95 << 20;
    let after = spaces(&view, None, &before);
    assert!(after[1].is_near() && !after[1].is_full() && after[1].quota == Some(100 << 20));
    let plan = plan(&full(), PLAIN, &wanted()).unwrap().unwrap();
    let outcomes = Outcomes { backup: Some("id".to_owned()), after, alarms: Vec::new() };
    let failure = outcomes.failure(&plan).unwrap();
    assert!(failure.what.contains("takes writes again") && failure.object.unwrap().contains("95 MiB of about 100 MiB"));
    assert!(failure.cause.unwrap().contains("run this again with --quota 104857600"));
    assert_eq!(failure.next.unwrap().to_string(), "lifeboat etcd top id");
}
