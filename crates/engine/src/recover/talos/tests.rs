//! What is concluded and planned from what was found out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use etcd_store::id::MemberId;
use etcd_store::version::Version;
use talos_api::{MachineStage, MachineType, Member, ServiceHealth};
use vault::digest::Sha256;

use super::checks::{Backup, Verdict};
use super::diagnosis::{State, diagnose};
use super::evidence::{Data, Etcd, Evidence, Facts, MemberFacts, Node};
use super::plan::{self, Source, Step, Wanted};
use crate::failure::Code;

const THERE: Data = Data::There { database: Some(30 << 20) };

fn member(number: u64) -> Member {
    let url = |port: u16| vec![format!("https://10.0.0.{}:{port}", number + 1)];
    Member { id: MemberId(number), name: format!("cp-{number}"), peer_urls: url(2380), client_urls: url(2379), is_learner: false }
}

fn facts() -> Facts {
    Facts {
        talos: "v1.13.9".to_owned(),
        mode: "metal".to_owned(),
        machine_type: MachineType::ControlPlane,
        stage: MachineStage::Running,
        boot_id: "boot".to_owned(),
        clock_ahead: Some(0),
        time_synced: Some(true),
        etcd: Some(Etcd {
            name: "cp".to_owned(),
            advertised: vec!["10.0.0.2".parse().unwrap()],
            version: Some(Version { major: 3, minor: 6, patch: 12 }),
        }),
        service: Some(("Preparing".to_owned(), ServiceHealth::Unknown, "Running pre state".to_owned())),
        ephemeral: 20 << 30,
        etcd_partition: None,
        available: Some(10 << 30),
        data: Data::None,
        member: None,
        secrets: Ok(BTreeMap::new()),
    }
}

/// A node, changed as a test needs it.
fn node(number: u64, change: impl FnOnce(&mut Facts)) -> Node {
    let mut facts = facts();
    change(&mut facts);
    let address = format!("10.0.0.{}", number + 1);
    Node { name: format!("cp-{number}"), address: address.clone(), addresses: [address.parse().unwrap()].into(), facts: Ok(facts) }
}

fn dead(number: u64) -> Node {
    Node { facts: Err("the node may be down".to_owned()), ..node(number, |_| {}) }
}

/// A node whose member follows a leader, or none.
fn running(number: u64, leader: Option<u64>, members: &[u64]) -> Node {
    node(number, |facts| {
        facts.data = THERE;
        facts.service = Some(("Running".to_owned(), ServiceHealth::Healthy, "Health check successful".to_owned()));
        facts.member = Some(MemberFacts {
            id: MemberId(number),
            leader: leader.map(MemberId),
            applied: 100 + number,
            db_size: 30 << 20,
            is_learner: false,
            members: leader.map(|_| members.iter().map(|number| member(*number)).collect()),
        });
    })
}

fn evidence(nodes: Vec<Node>) -> Evidence {
    Evidence { context: "prod".to_owned(), nodes, workers: vec![("worker-1".to_owned(), "10.0.0.9".to_owned())], ..Evidence::default() }
}

fn backup() -> Backup {
    Backup {
        source: Source::Backup { repository: "file:///r".to_owned(), cluster: "prod".to_owned(), id: "x".to_owned() },
        size: 30 << 20,
        etcd: Some(Version::minor(6)),
        secrets: BTreeMap::new(),
        members: vec![member(1)],
        warnings: Vec::new(),
    }
}

fn wanted() -> Wanted {
    Wanted { directory: "/state/recover/x".into(), free: Some(1 << 40), ..Wanted::default() }
}

/// The texts of what was refused.
fn refused(evidence: &Evidence, backup: &Backup, wanted: &Wanted) -> (Code, String) {
    let failure = plan::restore(evidence, backup, wanted).unwrap_err();
    (failure.code, format!("{failure}"))
}

#[test]
fn the_state_is_told_from_what_the_nodes_say() {
    let all = [1, 2, 3];
    let well = |number| running(number, Some(1), &all);
    for (nodes, state) in [
        (vec![well(1), well(2), well(3)], State::Healthy),
        (vec![well(1), well(2), dead(3)], State::Degraded),
        (vec![well(1), well(2), node(3, |_| {})], State::Degraded),
        (vec![running(1, None, &all), dead(2), dead(3)], State::NoQuorum),
        (vec![node(1, |facts| facts.data = THERE), dead(2), dead(3)], State::NoQuorum),
        (vec![node(1, |_| {}), node(2, |_| {}), dead(3)], State::Lost),
        (vec![running(1, Some(1), &[1]), running(2, Some(2), &[2, 3]), running(3, Some(2), &[2, 3])], State::Split),
        // An election at this moment: two leaders of one membership.
        (vec![running(1, Some(1), &all), running(2, Some(2), &all), running(3, Some(2), &all)], State::Healthy),
    ] {
        let found = diagnose(&evidence(nodes), Some(("abc123", "noon")));
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.ways.iter().all(|way| !way.loses.is_empty()) && !found.ways.is_empty(), "{found:?}");
    }
}

#[test]
fn ways_out_name_what_they_lose_and_the_command() {
    let all = [1, 2, 3];
    let ways = |nodes| diagnose(&evidence(nodes), Some(("abc123", "noon"))).ways;
    let commands = |nodes| ways(nodes).into_iter().filter_map(|way| way.command).map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(
        commands(vec![running(1, None, &all), dead(2), node(3, |facts| facts.data = THERE)]),
        [
            "lifeboat recover talos --from-node cp-1 --node-gone cp-2",
            "lifeboat recover talos --from-node cp-3 --node-gone cp-2",
            "lifeboat recover talos abc123 --node-gone cp-2",
        ]
    );
    let degraded = vec![running(1, Some(1), &all), running(2, Some(1), &all), dead(3)];
    assert_eq!(commands(degraded), ["lifeboat recover talos --replace cp-3 --node-gone cp-3"]);
    let lost = ways(vec![node(1, |_| {})]);
    assert!(lost[0].loses.contains("noon"), "{lost:?}");
}

#[test]
fn a_plan_saves_then_wipes_then_bootstraps_one_and_waits_for_the_others() {
    let nodes = vec![running(1, None, &[]), node(2, |facts| facts.data = THERE), node(3, |_| {})];
    let plan = plan::restore(&evidence(nodes), &backup(), &wanted()).unwrap();
    let names: Vec<&str> = plan.steps.iter().map(crate::journal::Step::name).collect();
    assert_eq!(names, ["rescue", "rescue", "prepare", "reset", "upload", "bootstrap", "join", "join", "verify"]);
    assert_eq!((plan.point_of_no_return(), plan.nodes[0].name.as_str()), (3, "cp-3"), "one that is empty already comes first");
    let Step::Reset { nodes } = &plan.steps[3] else { panic!("{plan:?}") };
    assert_eq!(nodes.len(), 3, "one that is empty is looked at too: it may not stay so");
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<plan::Plan>(&text).unwrap(), plan);
    let named = Wanted { node: Some("10.0.0.2".to_owned()), ..wanted() };
    let nodes = vec![node(1, |_| {}), node(2, |_| {})];
    assert_eq!(plan::restore(&evidence(nodes), &backup(), &named).unwrap().nodes[0].name, "cp-1");
}

#[test]
fn a_living_cluster_is_not_restored_unless_it_is_given_up_by_name() {
    let all = [1, 2, 3];
    let nodes = || vec![running(1, Some(1), &all), running(2, Some(1), &all), dead(3)];
    let (_, text) = refused(&evidence(nodes()), &backup(), &wanted());
    assert!(text.contains("quorum") && text.contains("--roll-back") && text.contains("--replace cp-3"), "{text}");
    let rolled = Wanted { roll_back: true, gone: vec!["cp-3".to_owned()], ..wanted() };
    let plan = plan::restore(&evidence(nodes()), &backup(), &rolled).unwrap();
    assert_eq!(plan.steps.iter().filter(|step| matches!(step, Step::Rescue { .. })).count(), 2);
}

#[test]
fn every_trap_is_refused_by_name() {
    type Change = fn(&mut Evidence, &mut Backup, &mut Wanted);
    let cases: [(&str, Change); 14] = [
        ("--node-gone cp-2", |evidence, _, _| evidence.nodes[1] = dead(2)),
        ("was said to be gone, and it answers", |_, _, wanted| wanted.gone.push("cp-2".to_owned())),
        ("machine type init", |evidence, _, _| evidence.nodes[0] = node(1, |facts| facts.machine_type = MachineType::Init)),
        ("runs in a container", |evidence, _, _| evidence.nodes[0] = node(1, |facts| facts.mode = "container".to_owned())),
        ("which is older", |_, backup, _| backup.etcd = Some(Version::minor(7))),
        ("advertises", |evidence, _, _| {
            for node in &mut evidence.nodes {
                let facts = node.facts.as_mut().unwrap();
                facts.talos = "v1.10.4".to_owned();
                facts.etcd.as_mut().unwrap().advertised.push("192.168.0.2".parse().unwrap());
            }
        }),
        ("other secrets", |evidence, backup, _| {
            backup.secrets.insert("etcd-ca-key".to_owned(), Sha256::of(b"theirs"));
            evidence.nodes[0] = node(1, |facts| facts.secrets = Ok([("etcd-ca-key".to_owned(), Sha256::of(b"ours"))].into()));
        }),
        ("none of them is a node here", |_, backup, _| backup.members = vec![Member { name: "other".to_owned(), ..member(99) }]),
        ("are needed", |evidence, _, _| evidence.nodes[0] = node(1, |facts| facts.available = Some(1 << 20))),
        ("the volume EPHEMERAL", |evidence, _, _| {
            evidence.nodes = vec![node(1, |facts| (facts.data, facts.ephemeral) = (THERE, 100 << 20))];
        }),
        ("the volume ETCD", |evidence, _, _| evidence.nodes[0] = node(1, |facts| facts.etcd_partition = Some(20 << 20))),
        ("on this machine", |_, _, wanted| wanted.free = Some(1)),
        ("clock", |evidence, _, _| evidence.nodes[1] = node(2, |facts| facts.clock_ahead = Some(-90_000))),
        ("--no-rescue", |evidence, _, _| evidence.nodes[1] = node(2, |facts| facts.data = Data::Unknown("input/output error".to_owned()))),
    ];
    for (words, change) in cases {
        let (mut evidence, mut backup, mut wanted) = (evidence(vec![node(1, |_| {}), node(2, |_| {})]), backup(), wanted());
        wanted.node = Some("cp-1".to_owned());
        assert!(plan::restore(&evidence, &backup, &wanted).is_ok());
        change(&mut evidence, &mut backup, &mut wanted);
        let failure = plan::restore(&evidence, &backup, &wanted).unwrap_err();
        let next = format!("{:?}", failure.next);
        assert!(format!("{failure}{next}").contains(words.split(' ').next().unwrap()), "{words}: {failure} {next}");
        assert!(failure.what.contains("nothing was changed"), "{failure}");
    }
}

#[test]
fn a_worker_and_a_stranger_are_no_nodes_to_bootstrap() {
    for (named, words) in [("worker-1", "is a worker"), ("10.0.0.9", "is a worker"), ("nobody", "no control plane node is called")] {
        let wanted = Wanted { node: Some(named.to_owned()), ..wanted() };
        let (code, text) = refused(&evidence(vec![node(1, |_| {})]), &backup(), &wanted);
        assert!(code == Code::Usage && text.contains(words), "{text}");
    }
}

#[test]
fn what_another_cluster_holds_ends_with_its_own_code() {
    let mut other = backup();
    other.members = vec![Member { name: "other".to_owned(), ..member(99) }];
    assert_eq!(refused(&evidence(vec![node(1, |_| {})]), &other, &wanted()).0, Code::WrongCluster);
    let foreign = Wanted { foreign: true, ..wanted() };
    let plan = plan::restore(&evidence(vec![node(1, |_| {})]), &other, &foreign).unwrap();
    assert!(plan.checks.iter().any(|check| check.check == "members" && check.verdict == Verdict::Warned));
}

#[test]
fn a_member_is_replaced_only_where_the_others_can_go_on() {
    let all = [1, 2, 3];
    let replace = |nodes: Vec<Node>, name: &str, gone: &[&str]| {
        let wanted = Wanted { gone: gone.iter().map(|gone| (*gone).to_owned()).collect(), ..wanted() };
        plan::replace(&evidence(nodes), name, &wanted)
    };
    let two = || vec![running(1, Some(1), &all), running(2, Some(1), &all)];
    let with = |third: Node| two().into_iter().chain([third]).collect::<Vec<_>>();
    let broken = node(3, |facts| facts.data = THERE);
    let plan = replace(with(broken), "cp-3", &[]).unwrap();
    let names: Vec<&str> = plan.steps.iter().map(crate::journal::Step::name).collect();
    assert_eq!(names, ["rescue", "rescue", "remove", "reset", "join", "verify"]);
    // One that is gone is removed, and nothing else can be done about it.
    let plan = replace(with(dead(3)), "cp-3", &["cp-3"]).unwrap();
    let names: Vec<&str> = plan.steps.iter().map(crate::journal::Step::name).collect();
    assert_eq!(names, ["rescue", "remove", "verify"]);
    assert!(replace(with(dead(3)), "cp-3", &[]).unwrap_err().to_string().contains("does not answer"));
    // Two of three would be left of which one works.
    let weak = vec![running(1, Some(1), &all), running(2, Some(1), &all), dead(3)];
    assert!(replace(weak, "cp-1", &[]).unwrap_err().to_string().contains("needed of"));
    let alone = vec![running(1, Some(1), &[1])];
    assert!(replace(alone, "cp-1", &[]).is_err());
}

#[test]
fn the_version_is_read_from_an_image() {
    use super::evidence::image_version;
    for (image, version) in [
        ("registry.k8s.io/etcd:v3.6.12", Some((6, 12))),
        ("gcr.io/etcd-development/etcd:v3.5.21-arm64", Some((5, 21))),
        ("localhost:5000/etcd:3.6.4-0@sha256:abcd", Some((6, 4))),
        ("localhost:5000/etcd", None),
        ("etcd", None),
    ] {
        assert_eq!(image_version(image).map(|version| (version.minor, version.patch)), version, "{image}");
    }
}
