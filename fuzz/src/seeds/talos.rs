//! What Talos nodes send, what a talosconfig and a machine config hold; and a journal, by its own writer.

use engine::care::nospace::{Plan, Step};
use engine::journal::Journals;

/// A field of bytes: at most 127 of them.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2, content.len() as u8], content].concat()
}

/// A number below 128.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// One answer of each call and one resource of each kind, behind its number.
pub(crate) fn talos_answers() -> Vec<Vec<u8>> {
    let status = [bytes(1, b"3.6.16"), number(2, 9), number(3, 8), number(4, 7), number(5, 6), number(6, 2), number(7, 6), bytes(8, b"NOSPACE"), number(10, 7)];
    let address = bytes(2, &bytes(1, &[10, 0, 0, 2]));
    let bodies: [Vec<u8>; 18] = [
        bytes(2, &status.concat()),
        [number(2, 7), bytes(3, b"cp-1"), bytes(4, b"https://10.0.0.2:2380"), bytes(5, b"https://10.0.0.2:2379"), number(6, 1)].concat(),
        bytes(2, &[number(1, 7), number(2, 1)].concat()),
        [bytes(2, &bytes(1, b"v1.13.9")), bytes(3, &[bytes(1, b"metal"), bytes(2, b"metal")].concat())].concat(),
        bytes(2, &[number(1, 100), number(3, 50)].concat()),
        [bytes(1, b"etcd"), bytes(2, b"Running"), bytes(4, &number(2, 1))].concat(),
        [bytes(1, b"/dev/sda"), number(2, 9), number(3, 8), bytes(4, b"/var")].concat(),
        number(1, 2),
        bytes(1, b"version: v1alpha1"),
        [bytes(1, b"id"), address.clone(), bytes(3, b"cp-1"), number(4, 2), bytes(5, b"Talos (v1.13.9)")].concat(),
        bytes(1, b"0000000000000007"),
        [bytes(1, b"cp-1"), bytes(2, &bytes(1, &[10, 0, 0, 2])), bytes(3, b"etcd:3.6")].concat(),
        bytes(1, &[bytes(1, &[10, 0, 0, 2]), number(2, 24)].concat()),
        [number(1, 2), number(4, 9)].concat(),
        [number(1, 4), bytes(2, &number(1, 1))].concat(),
        [bytes(1, b"message"), bytes(2, b"details")].concat(),
        [number(1, 1), number(2, 3), number(3, 1)].concat(),
        b"cpu 1 2\nbtime 1700000000\n\x0012.50 40.02\n".to_vec(),
    ];
    let mut seeds: Vec<Vec<u8>> = (0_u8..).zip(bodies).map(|(call, body)| [vec![call], body].concat()).collect();
    for text in ["\x07no request forwarding", "\x0crpc error: code = Unavailable desc = etcdserver: no leader", "\x05not found\x1b[31m"] {
        seeds.push(text.as_bytes().to_vec());
    }
    seeds
}

/// Pieces, each behind its length.
pub(crate) fn talos_streams() -> Vec<Vec<u8>> {
    let framed = |pieces: &[&[u8]]| pieces.iter().flat_map(|piece| [&[piece.len() as u8][..], piece].concat()).collect();
    vec![framed(&[&[1; 100], &[], &[2; 200], &[3; 32]]), framed(&[&[0_u8; 255][..]; 20]), Vec::new()]
}

pub(crate) fn talosconfigs() -> Vec<Vec<u8>> {
    let full = "context: prod\ncontexts:\n  prod:\n    endpoints: [10.0.0.2, 'cp:50001', '[fd00::2]', https://omni.example]\n    nodes: [10.0.0.2]\n    ca: aGk=\n    \
                key: aGk=\n    auth: {basic: {username: u, password: p}}\n  old: {target: 10.1.0.2}\n  omni: {endpoints: [x], auth: {siderov1: {identity: a@b}}}\n";
    let mut with_certificate = rcgen::CertificateParams::default();
    with_certificate.distinguished_name.push(rcgen::DnType::OrganizationName, "os:admin");
    let pem = rcgen::KeyPair::generate().and_then(|key| with_certificate.self_signed(&key)).map(|signed| signed.pem()).unwrap_or_default();
    let crt = format!("context: a\ncontexts: {{a: {{endpoints: [x], crt: {}}}}}", base64(pem.as_bytes()));
    vec![full.as_bytes().to_vec(), crt.into_bytes(), Vec::new()]
}

pub(crate) fn machine_configs() -> Vec<Vec<u8>> {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pair = rcgen::KeyPair::generate().and_then(|key| Ok((params.self_signed(&key)?.pem(), key.serialize_pem())));
    let (crt, key) = pair.unwrap_or_default();
    let text = |key: &str| {
        format!(
            "version: v1alpha1\nmachine: {{type: controlplane, ca: {{crt: aGk=, key: aGk=}}}}\ncluster:\n  id: aWQ=\n  secret: cw==\n  \
             secretboxEncryptionSecret: c2I=\n  serviceAccount: {{key: a2V5}}\n  etcd: {{ca: {{crt: {}, key: {}}}}}\n---\napiVersion: v1alpha1\nkind: X\n",
            base64(crt.as_bytes()),
            base64(key.as_bytes())
        )
    };
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nMC4CAQEEIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gAQID\n-----END EC PRIVATE KEY-----\n";
    vec![text(&key).into_bytes(), text(sec1).into_bytes(), b"cluster: {etcd: {ca: {crt: '!'}}}".to_vec()]
}

/// One that was begun, and one that has come a way.
pub(crate) fn journals() -> Vec<Vec<u8>> {
    let made = || -> Option<Vec<u8>> {
        let directory = tempfile::tempdir().ok()?;
        let desk = Journals::at(directory.path()).hold("etcd nospace", "1a2b").ok()?;
        let plan = Plan {
            cluster_id: "1a2b".to_owned(),
            planned: jiff::Timestamp::UNIX_EPOCH,
            revision: 9,
            is_kubernetes: true,
            alarms: vec!["cp-1".to_owned()],
            before: Vec::new(),
            steps: vec![Step::Backup { repository: "file:///r".to_owned() }, Step::Compact { revision: 9 }, Step::Disarm, Step::Verify],
        };
        let journal = desk.begin(plan).ok()?;
        std::fs::read(journal.path()).ok()
    };
    let begun = made().unwrap_or_default();
    let line = |value: serde_json::Value| format!("{value}\n").into_bytes();
    let at = "2026-11-21T02:00:00Z";
    let come_a_way = [
        begun.clone(),
        line(serde_json::json!({"at": at, "event": "begun", "step": 0})),
        line(serde_json::json!({"at": at, "event": "done", "step": 0, "facts": {"backup": "x"}})),
        line(serde_json::json!({"at": at, "event": "begun", "step": 1})),
        b"{\"at\": ".to_vec(),
    ];
    vec![begun, come_a_way.concat()]
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * at) & 63) as usize];
            text.push(if at > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}
