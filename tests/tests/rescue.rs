//! Rescued data in the repository: a backup like any other, that stands beside the history and changes nothing of it (design part 10).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;

use engine::backup::{Committed, RescueRequest, rescue};
use engine::opening::Person;
use engine::place::PlaceOptions;
use engine::progress::Silent;
use engine::spool::SpoolOptions;
use etcd_api::PutRequest;
use lifeboat_tests::{ClusterPlan, EtcdCluster, Job, Options, Workload, dump_all, etcd_matrix};

fn request(job: &Job, file: &Path, clean: bool) -> RescueRequest {
    RescueRequest {
        file: file.to_owned(),
        clean,
        member: None,
        etcd: None,
        talos: Some("v1.13.0".to_owned()),
        place: PlaceOptions { url: job.url().to_owned(), ..PlaceOptions::default() },
        cluster: Some("prod".parse().unwrap()),
        tags: Vec::new(),
        recipients: vec![job.recipient().to_owned()],
        passphrase: None,
        person: Person::default(),
        plain: false,
        signing_key: None,
        spool: SpoolOptions { directory: Some(job.dir().join("spool")), reserve: 0, flush_gently: false },
        read_back: true,
    }
}

async fn keep(job: &Job, file: &Path, clean: bool) -> engine::Outcome<Committed> {
    rescue(request(job, file, clean), Arc::new(Silent)).await
}

etcd_matrix! {
    /// A snapshot and a database out of a data directory: listed as rescues, opened and verified as backups are, never `latest`, given back byte for byte;
    /// the next backup goes on as if nothing had been.
    async fn what_was_rescued_is_kept_beside_the_history(etcd: EtcdVersion) {
        let job = Job::new();
        let mut cluster = EtcdCluster::start(etcd, Options::default());
        let client = cluster.client(0).await;
        drop(Workload::small(51).apply(&client).await);
        drop(job.backup(&cluster));
        let latest = job.list()[0]["id"].clone();
        drop(client.put(PutRequest::new("later", "than the backup")).await.unwrap());
        let before = dump_all(&client).await;
        let snapshot = job.dir().join("snapshot.db");
        cluster.snapshot(0, &snapshot);
        cluster.stop_member(0);
        let database = cluster.members()[0].data_dir().join("member/snap/db");

        let mut rescued = Vec::new();
        for (file, clean) in [(snapshot.as_path(), true), (&database, false)] {
            let kept = keep(&job, file, clean).await.unwrap();
            assert_eq!((kept.manifest.revision, kept.manifest.clean), (before.revision, Some(clean)));
            let id = kept.manifest.id.to_string();
            let listed = job.list().into_iter().find(|backup| backup["id"] == *id).unwrap();
            assert_eq!((&listed["source"], &listed["clean"], &listed["unconfirmed"]), (&"rescue".into(), &clean.into(), &serde_json::Value::Null));
            let shown = job.cmd("show").arg(&id).run().ok();
            assert!(shown.out().contains("never: a rescue") && shown.out().contains("--for talos"), "{shown}");
            drop(job.cmd("verify").args([&id, "--deep"]).arg("-i").arg(job.identity()).run().ok());
            let back = job.dir().join(format!("{id}.db"));
            drop(job.restore_cmd().args([&id, "--no-bump", "--snapshot-file"]).arg(&back).run().ok());
            assert!(std::fs::read(&back).unwrap() == std::fs::read(file).unwrap(), "other bytes came back");
            rescued.push(id);
        }
        assert!(job.cmd("list").run().ok().out().contains("1 rescue"));
        assert!(job.cmd("show").run().ok().out().contains(latest.as_str().unwrap()), "latest is still the backup");

        drop(client);
        cluster.restart_member(0);
        cluster.wait_ready();
        let next = job.backup(&cluster);
        assert!(!next.out().contains("new lineage"), "{next}");
        drop(cluster);
        let plan = ClusterPlan::new(1).token("rescued");
        drop(job.restore(&rescued[1], &plan, &[]));
        let cluster = EtcdCluster::boot(etcd, plan, Options::default().token("rescued"));
        before.assert_same_live(&dump_all(&cluster.client(0).await).await);

        // Of another epoch than everything that was backed up: it stands beside the newest history all the same.
        let client = cluster.client(0).await;
        drop(client.put(PutRequest::new("bumped", "and never backed up")).await.unwrap());
        let snapshot = job.dir().join("bumped.db");
        cluster.snapshot(0, &snapshot);
        let kept = keep(&job, &snapshot, true).await.unwrap();
        assert!(kept.manifest.epoch > 0 && kept.manifest.lineage.epoch() == 0, "{:?}", kept.manifest);
        let lineages = job.lifeboat.cmd(["lineage", "list", "--repo", job.url(), "--cluster", "prod"]).run().ok();
        assert!(lineages.out().contains("0001-") && !lineages.out().contains("0002-"), "{lineages}");
        let next = job.backup_cmd(&cluster.client_flags()).run();
        assert!(next.out().contains("a new lineage begins, 0002-"), "{next}");
    }

    /// A file that is damaged, and a cluster that the repository does not know: nothing is listed and the file is as it was.
    async fn what_cannot_be_kept_is_told(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default());
        drop(Workload::small(52).apply(&cluster.client(0).await).await);
        drop(job.backup(&cluster));
        let snapshot = job.dir().join("snapshot.db");
        cluster.snapshot(0, &snapshot);
        let unknown = RescueRequest { cluster: Some("other".parse().unwrap()), ..request(&job, &snapshot, true) };
        let failure = rescue(unknown, Arc::new(Silent)).await.unwrap_err();
        assert_eq!(failure.code, engine::Code::WrongCluster, "{failure}");
        let nobody = RescueRequest { recipients: Vec::new(), ..request(&job, &snapshot, true) };
        assert_eq!(rescue(nobody, Arc::new(Silent)).await.unwrap_err().code, engine::Code::Usage);
        let mut bytes = std::fs::read(&snapshot).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&snapshot, &bytes).unwrap();
        let failure = keep(&job, &snapshot, true).await.unwrap_err();
        assert_eq!(failure.code, engine::Code::Unproven, "{failure}");
        assert_eq!(job.list().len(), 1);
        assert!(std::fs::read(&snapshot).unwrap() == bytes);
    }
}
