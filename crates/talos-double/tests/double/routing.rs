//! apid's routing as a caller by hand sees it: what the client never says.

use std::net::Ipv4Addr;

use crate::common::{block_on, start};
use crate::raw::call;
use bytes::Bytes;
use grpc_link::testing::{Failure, Fields};
use lifeboat_tests::EtcdVersion;
use talos_double::{Options, TalosDouble};

const HOSTNAME: &str = "/machine.MachineService/Hostname";
const READ: &str = "/machine.MachineService/Read";
const STATUS: &str = "/machine.MachineService/EtcdStatus";
const GET: &str = "/cosi.resource.State/Get";

async fn ask(double: &TalosDouble, path: &str, metadata: &[(&str, &str)]) -> Result<Vec<Fields>, Failure> {
    call(&double.talosconfig(), double.node_ip(0), path, metadata, Bytes::new()).await
}

/// Host name of the answer, target and error of its metadata, of each message.
fn parts(answer: &Fields) -> Vec<(String, String, String)> {
    let one = |message: &[u8]| {
        let message = Fields::decode(message);
        (message.text(2), message.message(1).text(1), message.message(1).text(2))
    };
    answer.each(1).map(one).collect()
}

#[test]
fn metadata_decide_where_a_call_goes() {
    let Some(double) = start(Options::default().control_planes(2).workers(1), EtcdVersion::V3_6) else { return };
    let ips: Vec<String> = (0..3).map(|index| double.node_ip(index).to_string()).collect();
    block_on(async {
        let name = |answer: Result<Vec<Fields>, Failure>| parts(&answer.unwrap()[0])[0].clone();
        let plain = |name: &str| (name.to_owned(), String::new(), String::new());
        assert_eq!(name(ask(&double, HOSTNAME, &[]).await), plain("cp-1"));
        assert_eq!(name(ask(&double, HOSTNAME, &[("node", &ips[1])]).await), plain("cp-2"));
        assert_eq!(name(ask(&double, HOSTNAME, &[("proxyfrom", "somebody"), ("node", &ips[1])]).await), plain("cp-1"));
        let failed = |answer: Result<Vec<Fields>, Failure>| answer.unwrap_err();
        assert_eq!(failed(ask(&double, HOSTNAME, &[("node", &ips[0]), ("node", &ips[1])]).await).code, 3);
        assert_eq!(failed(ask(&double, GET, &[("nodes", &ips[0])]).await).code, 3, "resources are of one node");
        let ported = format!("{}:50000", ips[1]);
        assert_eq!(failed(ask(&double, HOSTNAME, &[("node", &ported)]).await).code, 13);
        assert_eq!(failed(ask(&double, HOSTNAME, &[("node", "127.0.0.9")]).await).code, 14);
        let worker: Ipv4Addr = double.node_ip(2);
        let through_worker = call(&double.talosconfig(), worker, HOSTNAME, &[("nodes", &ips[0])], Bytes::new()).await;
        assert_eq!((failed(through_worker.clone()).code, failed(through_worker).message.as_str()), (7, "no request forwarding"));
        let itself = call(&double.talosconfig(), worker, HOSTNAME, &[("nodes", &ips[2])], Bytes::new()).await;
        assert_eq!(name(itself), plain("worker-1"));
    });
}

#[test]
fn many_nodes_answer_in_one_message_and_errors_hide_in_it() {
    let Some(double) = start(Options::default().control_planes(2).workers(1), EtcdVersion::V3_6) else { return };
    double.set_up(1, false);
    let ips: Vec<String> = (0..3).map(|index| double.node_ip(index).to_string()).collect();
    block_on(async {
        let all = [("nodes", ips[0].as_str()), ("nodes", &ips[1]), ("nodes", &ips[2])];
        let answer = ask(&double, HOSTNAME, &all).await.unwrap();
        assert_eq!(answer.len(), 1, "concatenated");
        let mut seen = parts(&answer[0]);
        seen.sort();
        assert_eq!(seen.len(), 3);
        assert_eq!((seen[0].0.as_str(), &seen[0].1), ("", &ips[1]));
        assert!(seen[0].2.contains("code = Unavailable"), "{seen:?}");
        assert_eq!(seen[1..], [("cp-1".to_owned(), ips[0].clone(), String::new()), ("worker-1".to_owned(), ips[2].clone(), String::new())]);

        // All of them fail, and the call succeeds.
        let answer = ask(&double, STATUS, &[("nodes", &ips[1]), ("nodes", &ips[2])]).await.unwrap();
        let codes: Vec<u64> = answer[0].each(1).map(|one| Fields::decode(one).message(1).message(3).number(1)).collect();
        assert!(codes.len() == 2 && codes.contains(&14) && codes.contains(&12), "{codes:?}");

        // Streams: every message with its node, an error as the last message.
        let path = grpc_link::testing::Encoder::new().bytes(1, "/proc/sys/kernel/random/boot_id").finish();
        let nodes = [("nodes", ips[0].as_str()), ("nodes", &ips[1])];
        let messages = call(&double.talosconfig(), double.node_ip(0), READ, &nodes, path).await.unwrap();
        let of = |target: &str| messages.iter().find(|message| message.message(1).text(1) == target).unwrap();
        assert_eq!(of(&ips[0]).bytes(2).len(), 37);
        assert!(of(&ips[1]).message(1).text(2).contains("Unavailable") && of(&ips[1]).bytes(2).is_empty());
    });
}
