//! Snapshots that go wrong in each way the double can make them, and what the client says.

use std::time::Duration;

use crate::common::{admin, block_on, drain, fill, snapshot, start};
use etcd_api::SnapshotLimits;
use lifeboat_tests::EtcdVersion;
use talos_api::{Error, ErrorClass, ErrorKind, LinkFault, StreamViolation};
use talos_double::{Failure, Options, SnapshotFault, TalosDouble};

/// The error of a snapshot with a fault, wherever it shows.
async fn failed(double: &TalosDouble, fault: SnapshotFault, limits: SnapshotLimits) -> Error {
    double.switch(0, |switches| switches.snapshot = Some(fault));
    let error = match admin(double, 0).etcd_snapshot(limits).await {
        Ok(stream) => drain(stream).await.unwrap_err(),
        Err(error) => error,
    };
    double.switch(0, |switches| switches.snapshot = None);
    error
}

#[test]
fn no_snapshot_that_went_wrong_looks_whole() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        fill(&double, 17).await;
        let whole = snapshot(&admin(&double, 0)).await.unwrap();
        let size = whole.len();
        assert!(size > 1 << 20, "the workload's big value is in it");
        let limits = SnapshotLimits::default();

        // Truncated, and the status is OK: at nothing, within a page, at a page, without the trailer, within the trailer.
        for after in [0, 1, 1000, 4096, 4096 + 32, size / 2 / 4096 * 4096, size - 33, size - 32, size - 31, size - 1] {
            let error = failed(&double, SnapshotFault::CutWithOk { after }, limits).await;
            assert_eq!(error.class(), ErrorClass::Misbehaved, "cut after {after}: {error}");
            match error.kind() {
                ErrorKind::Snapshot(StreamViolation::EndedEmpty) => assert_eq!(after, 0),
                ErrorKind::Snapshot(StreamViolation::Cut { received }) => assert_eq!(*received, after as u64),
                ErrorKind::Snapshot(StreamViolation::WrongDigest { size, .. }) => assert_eq!(*size + 32, after as u64),
                other => panic!("cut after {after}: {other}"),
            }
        }
        for at in [0, 5000, size / 2, size - 33, size - 32, size - 1] {
            let error = failed(&double, SnapshotFault::DamagedByte { at }, limits).await;
            assert!(matches!(error.kind(), ErrorKind::Snapshot(StreamViolation::WrongDigest { .. })), "byte {at}: {error}");
        }
        // An error within the data, then OK: its own status counts.
        let failure = Failure::new(14, "error reading from server: EOF");
        let error = failed(&double, SnapshotFault::ErrorInData { after: 300_000, failure }, limits).await;
        assert!(matches!(error.kind(), ErrorKind::Unavailable(_)), "{error}");
        assert!(error.position().is_some_and(|at| at.transferred > 0 && at.transferred <= 300_000), "{error}");
        // The two codes that talosctl takes for a good end.
        for code in [1, 4] {
            let failure = Failure::new(code, "context canceled");
            let error = failed(&double, SnapshotFault::ErrorInData { after: 300_000, failure }, limits).await;
            assert!(matches!(error.kind(), ErrorKind::Rpc { .. } | ErrorKind::Timeout(_)), "{error}");
        }
        let failure = Failure::new(2, "failed reading etcd snapshot: etcdserver: no leader");
        let error = failed(&double, SnapshotFault::Fail { after: 300_000, failure }, limits).await;
        assert_eq!(*error.kind(), ErrorKind::Etcd(etcd_api::ErrorKind::NoLeader));
        let error = failed(&double, SnapshotFault::Disconnect { after: 300_000 }, limits).await;
        assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::ConnectionLost(_))), "{error}");
        let hurried = SnapshotLimits { idle_timeout: Duration::from_secs(2), ..limits };
        for after in [0, 300_000] {
            let error = failed(&double, SnapshotFault::Stall { after }, hurried).await;
            assert!(matches!(error.kind(), ErrorKind::Snapshot(StreamViolation::Idle { .. })), "{error}");
        }
        // And afterwards all is well again.
        assert_eq!(snapshot(&admin(&double, 0)).await.unwrap().len(), size);
    });
}

#[test]
fn an_etcd_that_dies_under_a_snapshot_leaves_a_stream_that_ends_well_and_is_refused() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        let direct = double.etcd_client(0).await.unwrap();
        // More than all windows on the way hold.
        for number in 0..40 {
            direct.put(etcd_api::PutRequest::new(format!("/big/{number}"), vec![7_u8; 1_000_000])).await.unwrap();
        }
        let mut stream = admin(&double, 0).etcd_snapshot(SnapshotLimits::default()).await.unwrap();
        stream.next().await.unwrap();
        double.kill_etcd(0);
        let error = drain(stream).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Snapshot(_)), "{error}");
        assert_eq!(error.class(), ErrorClass::Misbehaved);
    });
}
