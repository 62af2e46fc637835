//! Objects of a repository, from the golden one of format 1 and from the product's writers; configurations and plans.

use std::fs;
use std::path::{Path, PathBuf};

use vault::frames::FrameTable;
use vault::layers::Layers;
use vault::seal::{FrameCompressor, NoCallbacks, Recipients, SealWriter};

const SOUND: &str = "a seed is sound by construction";

/// The recipient that belongs to the identity with which the target opens.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/vault/tests/golden/v1")
}

/// Every golden object whose name ends so, in the order of their names.
fn objects(end: &str) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    collect(&golden().join("repository"), end, &mut files);
    files.sort();
    files.into_iter().map(|file| fs::read(file).expect("the golden repository is part of the sources")).collect()
}

fn collect(directory: &Path, end: &str, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the golden repository is part of the sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, end, into);
        } else if path.to_string_lossy().ends_with(end) {
            into.push(path);
        }
    }
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    objects("manifest.json")
}

pub(crate) fn marks() -> Vec<Vec<u8>> {
    let id = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("lifeboat.mark/1");
    objects(".json").into_iter().filter(|bytes| id(bytes)).collect()
}

pub(crate) fn lineages() -> Vec<Vec<u8>> {
    let mut seeds = objects("lifeboat.json");
    seeds.extend(objects("-0.json"));
    seeds.push(b"0001-cdf818194e3a8c32-0".to_vec());
    seeds.push(LEASE.as_bytes().to_vec());
    seeds
}

/// Its digest is put right by the target.
const LEASE: &str = r#"{"schema":"lifeboat.lease/1","self_sha256":"0000000000000000000000000000000000000000000000000000000000000000",
"cluster":"prod","owner":"host/17","generation":3,"verb":"backup","acquired":"2026-11-21T02:00:04Z","expires":"2026-11-21T02:10:04Z","released":false}"#;

pub(crate) fn keys() -> Vec<Vec<u8>> {
    [
        "lifeboat.json",
        "prod/lease.json",
        "prod/lineages/0001-cdf818194e3a8c32-0.json",
        "prod/marks/01M7Y0QRW05WE3XE6P2RM0HEW9.json.minisig",
        "prod/snapshots/20261121T020004Z-7qk2m9/extra/machine-config.age",
        "prod/snapshots/20261121T020004Z-7qk2m9/manifest.json",
        "latest~1",
        "@12345",
        "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
    ]
    .map(|key| key.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let mut table = FrameTable::default();
    for length in [100, 7, 4000] {
        table.push(length, length * 2, length ^ 0x5a5a).expect(SOUND);
    }
    table.push_block(vault::digest::Sha256::of(b"block"));
    let mut seeds = objects("frames.bin");
    seeds.push(table.encode().expect(SOUND));
    seeds
}

pub(crate) fn signatures() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = objects(".minisig").into_iter().take(2).collect();
    seeds.push(fs::read(golden().join("signer.pub")).expect("the golden repository is part of the sources"));
    seeds
}

/// Frame table, 0xff, object, as the target takes them: the golden one, and small ones of each kind of layers; then an identity file.
pub(crate) fn sealed() -> Vec<Vec<u8>> {
    let identity = fs::read(golden().join("identity.txt")).expect("the golden repository is part of the sources");
    let mut seeds = vec![[vec![0xff], identity.clone()].concat()];
    for (table, object) in objects("frames.bin").into_iter().zip(objects("db.zst.age")) {
        let object = if object.len() > 12 << 10 { object[..12 << 10].to_vec() } else { object };
        seeds.push([table, vec![0xff], object].concat());
    }
    for layers in Layers::ALL {
        seeds.push(seal(layers, &recipient(&identity)));
    }
    seeds
}

fn recipient(identity: &[u8]) -> String {
    let text = String::from_utf8_lossy(identity).into_owned();
    let line = text.lines().find_map(|line| line.split_once("public key: ")).map(|(_, key)| key.trim().to_owned());
    line.unwrap_or_else(|| "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj".to_owned())
}

fn seal(layers: Layers, recipient: &str) -> Vec<u8> {
    let recipients = Recipients::keys([recipient]).expect(SOUND);
    let mut compressor = if layers.zstd { FrameCompressor::zstd().expect(SOUND) } else { FrameCompressor::stored() };
    let mut writer = SealWriter::new(layers, layers.age.then_some(&recipients), NoCallbacks).expect(SOUND);
    for raw in [&[b'a'; 600][..], b"short", &[0; 900]] {
        writer.push(compressor.compress(raw).expect(SOUND)).expect(SOUND);
    }
    let mut object = Vec::new();
    while let Some(part) = writer.pop() {
        object.extend_from_slice(&part);
    }
    let (rest, sealed) = writer.finish().expect(SOUND);
    rest.iter().for_each(|part| object.extend_from_slice(part));
    let table = sealed.frames.encode().expect(SOUND);
    [table, vec![0xff], object].concat()
}

pub(crate) fn configs() -> Vec<Vec<u8>> {
    let full = "stores:\n  main: {url: \"s3://acme/lifeboat\", region: eu-central-1, credentials_file: /etc/lifeboat/s3.env}\n  here: {url: 'file:///var/backups'}\n\
        keys:\n  recipients: [age1a, age1b]\n  trusted_signers: [RWx]\n  signing_file: /etc/lifeboat/sign.key\nspool: {directory: /var/spool, reserve: 2GiB}\n\
        defaults:\n  stores: [main]\n  hashkv_budget: 2s\n  lease: auto\nclusters:\n  prod:\n    kubeadm: {}\n    extra: [/etc/kubernetes/pki]\n    stores: [here]\n  \
        edge:\n    etcd: {endpoints: [\"https://10.0.0.1:2379\"], cacert: /ca, cert: /c, key: /k, user: root, password_file: /p, discover: true}\n    lease: off\n";
    let anchors = "stores: &all\n  a: &one {url: 'file:///a'}\n  b: *one\n  c:\n    <<: *one\nclusters: {}\n";
    let block = "# comment\nstores:\n  main:\n    url: >-\n      file:///var\n      /backups\n---\n";
    [full, anchors, block, "clusters: {prod: {kubeadm: {}}}\n", "{}"].map(|text| text.as_bytes().to_vec()).to_vec()
}

pub(crate) fn plans() -> Vec<Vec<u8>> {
    // Its digest is put right by the target.
    let plan = format!(
        r#"{{"schema":"lifeboat.restore-plan/1","self_sha256":"{:064}","repository":"01D39ZY06FGSCTVN4T2V9PKHFZ","cluster":"prod",
"backup":"20261121T020004Z-7qk2m9","database_sha256":"{:064}","target_revision":1000000000,"token":"t",
"members":[{{"name":"a","peer_urls":["https://10.0.0.1:2380"]}}],"clear_alarms":true,"drop_versions":false,"unknown_lease_ttl":3600}}"#,
        0, 1
    );
    vec![plan.into_bytes()]
}
