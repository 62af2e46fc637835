//! The job on Google Cloud Storage and on Azure Blob Storage (emulators: `crates/vault/tests/store_clouds` says what they lack): set up, back up,
//! verify, restore, boot; and the errors that every operator meets once there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use etcd_api::PutRequest;
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::{CloudServer, ClusterPlan, EtcdCluster, EtcdVersion, Lifeboat, Options, Random, Run, dump_all, peers};
use tempfile::TempDir;

/// A user who has nothing but what the store's cloud wants in the environment.
struct Place {
    lifeboat: Lifeboat,
    dir: TempDir,
    env: Vec<(&'static str, String)>,
}

impl Place {
    fn new(env: Vec<(&'static str, String)>) -> Self {
        Self { lifeboat: Lifeboat::new(), dir: TempDir::new().unwrap(), env }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cmd(&self, words: &[&str]) -> Run {
        let run = self.lifeboat.cmd(words).arg("--config").arg(self.path("lifeboat.yaml"));
        let run = run.env("LIFEBOAT_SPOOL_DIR", self.path("spool")).env("LIFEBOAT_SPOOL_RESERVE", "0");
        self.env.iter().fold(run, |run, (name, value)| run.env(name, value))
    }

    fn init(&self, url: &str) -> Run {
        let run = self.cmd(&["init", "--repo", url, "--cluster", "prod"]);
        run.arg("--identity-out").arg(self.path("identity.txt")).arg("--kit").arg(self.path("kit.txt"))
    }
}

fn newest(name: &str) -> Option<EtcdVersion> {
    let version = lifeboat_tests::versions().into_iter().next_back();
    if version.is_none() {
        peers::skipped(format_args!("{name}: no etcd"));
    }
    version
}

/// Init to a cluster that has it all again. `flags` are for init alone: afterwards the configuration and the environment must do.
fn the_job(place: &Place, url: &str, flags: &[String], version: EtcdVersion) {
    let cluster = EtcdCluster::single(version);
    let before = block_on(async {
        let client = cluster.client(0).await;
        // Bytes that cannot be compressed, and more of them than one part holds: the backup is an upload of several.
        let mut random = Random::new(7);
        for n in 0..24 {
            drop(client.put(PutRequest::new(format!("/registry/secrets/ns/s{n}"), random.bytes(512 << 10))).await.unwrap());
        }
        dump_all(&client).await
    });
    let made = place.init(url).args(flags).args(cluster.client_flags()).arg("--json").run().ok().json();
    for ability in ["create-only", "multipart", "ranges"] {
        assert_eq!(made["store"]["abilities"][ability], "yes", "{made}");
    }
    let backup = place.cmd(&["backup"]).run().ok();
    assert!(backup.out().contains("hashkv match"), "{backup}");
    let identity = place.path("identity.txt");
    drop(place.cmd(&["verify", "latest", "--deep"]).arg("-i").arg(&identity).run().ok());
    drop(cluster);

    let plan = ClusterPlan::new(1).token("again");
    let member = &plan.members()[0];
    let restore =
        place.cmd(&["restore", "latest"]).arg("-i").arg(&identity).args(["--name", &member.name, "--data-dir"]).arg(&member.data_dir);
    let restore = restore.args(["--initial-advertise-peer-urls", &member.peer_url(), "--initial-cluster", &plan.initial_cluster()]);
    drop(restore.args(["--initial-cluster-token", plan.cluster_token()]).run().ok());
    let again = EtcdCluster::boot(version, plan, Options::default().token("again"));
    block_on(async { before.assert_same_live(&dump_all(&again.client(0).await).await) });

    // An empty container names no authority; what is built in is trusted then.
    let bare = place.cmd(&["list"]).env("SSL_CERT_FILE", "/nowhere/ca.pem").env("SSL_CERT_DIR", "/nowhere");
    let listed = bare.run().ok();
    assert!(listed.out().contains("match"), "{listed}");

    // The kit leads there too, given the credentials.
    let kit = std::fs::read_to_string(place.path("kit.txt")).unwrap();
    let line = kit.lines().find(|line| line.trim().starts_with("lifeboat list ")).unwrap();
    assert!(line.contains(url) && kit.contains("The store wants credentials"), "{kit}");
}

/// All that is needed comes from the environment, as Google's own tools take it.
#[test]
fn the_job_on_google() {
    let Some(server) = CloudServer::google("lifeboat-bucket") else { return peers::skipped("the_job_on_google: no fake-gcs-server") };
    let Some(version) = newest("the_job_on_google") else { return };
    let place = Place::new(server.env());
    the_job(&place, &server.url("etcd"), &[], version);

    let missing = Place::new(server.env());
    let cluster = EtcdCluster::single(version);
    let finished = missing.init("gs://no-such-bucket-here/etcd").args(cluster.client_flags()).run().exit(10);
    assert!(finished.err().contains("--store-endpoint") && !finished.err().contains("s3"), "{finished}");
}

/// All that is needed comes from flags once, then from the configuration that `init` wrote.
#[test]
fn the_job_on_azure() {
    let Some(server) = CloudServer::azure("lifeboat-container") else { return peers::skipped("the_job_on_azure: no azurite") };
    let Some(version) = newest("the_job_on_azure") else { return };
    let place = Place::new(Vec::new());
    let credentials = place.path("azure.env");
    let lines: Vec<String> =
        server.env().iter().filter(|(name, _)| !name.ends_with("ENDPOINT")).map(|(name, value)| format!("{name}={value}\n")).collect();
    std::fs::write(&credentials, lines.concat()).unwrap();
    let flags = ["--store-endpoint", server.endpoint(), "--store-credentials-file", credentials.to_str().unwrap()].map(str::to_owned);
    the_job(&place, &server.url("etcd"), &flags, version);

    // Another key: what is wrong, where it is looked for, and never the key itself.
    std::fs::write(&credentials, "AZURE_STORAGE_ACCOUNT_NAME=lifeboattest\nAZURE_STORAGE_ACCOUNT_KEY=aHVudGVyMg==\n").unwrap();
    let finished = place.cmd(&["list"]).run().exit(31);
    let told = finished.err();
    // Azure says AuthenticationFailed; Azurite has another code with the same words.
    assert!(told.contains("failed to authenticate") && told.contains("--store-credentials-file"), "{finished}");
    assert!(!told.contains("aHVudGVyMg"), "{finished}");
    // No account at all.
    let lost = Place::new(vec![("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMg==".to_owned())]);
    let cluster = EtcdCluster::single(version);
    let finished = lost.init("az://some-container/etcd").args(cluster.client_flags()).run();
    assert!(finished.err().contains("the storage account is not known"), "{finished}");
    assert!(!finished.err().contains("aHVudGVyMg"), "{finished}");
}
