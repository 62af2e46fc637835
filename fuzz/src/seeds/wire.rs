//! What members send, in protobuf's wire form, and Kubernetes objects.

/// A field of bytes: at most 127 of them.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2, content.len() as u8], content].concat()
}

/// A number below 128.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

fn header() -> Vec<u8> {
    bytes(1, &[number(1, 7), number(2, 8), number(3, 9), number(4, 2)].concat())
}

fn key_value() -> Vec<u8> {
    [bytes(1, b"key"), number(2, 3), number(3, 4), number(4, 1), bytes(5, b"value"), number(6, 5)].concat()
}

/// One answer of each call, behind the call's number.
pub(crate) fn answers() -> Vec<Vec<u8>> {
    let member = [number(1, 5), bytes(2, b"a"), bytes(3, b"http://a:1"), bytes(4, b"http://a:2"), number(5, 1)].concat();
    let range = [header(), bytes(2, &key_value()), number(3, 1), number(4, 1)].concat();
    let bodies = [
        range.clone(),
        [header(), bytes(2, &key_value())].concat(),
        [header(), number(2, 1), bytes(3, &key_value())].concat(),
        [header(), number(2, 1), bytes(3, &bytes(1, &range))].concat(),
        [header(), bytes(2, &member), bytes(2, &member)].concat(),
        [header(), bytes(2, b"3.6.0"), number(3, 9), number(4, 8), number(5, 7), number(6, 2), number(7, 8), bytes(8, b"NOSPACE")].concat(),
        [header(), number(2, 77), number(3, 4), number(4, 9)].concat(),
        [header(), bytes(2, &[number(1, 5), number(2, 1)].concat())].concat(),
        [header(), number(2, 1), number(3, 60), number(4, 60), bytes(5, b"key")].concat(),
        header(),
    ];
    let mut seeds: Vec<Vec<u8>> = (0_u8..).zip(bodies).map(|(call, body)| [vec![call], body].concat()).collect();
    for text in ["etcdserver: mvcc: required revision has been compacted", "etcdserver: no leader", "auth: invalid auth token\x1b[31m"] {
        seeds.push(text.as_bytes().to_vec());
    }
    seeds
}

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|message| [&(message.len() as u16).to_le_bytes()[..], message].concat()).collect()
}

/// Streams whose numbers the target puts right.
pub(crate) fn snapshot_streams() -> Vec<Vec<u8>> {
    let message = |remaining: u8, blob: &[u8]| [number(2, remaining), bytes(3, blob), bytes(4, b"3.6.0")].concat();
    let pieces: Vec<Vec<u8>> = (0..20).rev().map(|left| message(left, &[left; 100])).collect();
    vec![framed(&pieces), framed(&[message(100, &[1; 28]), message(72, b""), message(0, &[2; 32])])]
}

/// Watches: events, fragments, progress, cancellation.
pub(crate) fn watch_streams() -> Vec<Vec<u8>> {
    let of_revision = |revision: u8| {
        let kv = [bytes(1, b"k"), number(2, 3), number(3, revision), number(4, 1), bytes(5, b"v")].concat();
        bytes(11, &[number(1, 0), bytes(2, &kv)].concat())
    };
    let answer = |fields: &[Vec<u8>]| [header(), number(2, 1), fields.concat()].concat();
    let created = answer(&[number(3, 1)]);
    let stream = |messages: Vec<Vec<u8>>| [3_i64.to_le_bytes().to_vec(), framed(&messages)].concat();
    vec![
        stream(vec![created.clone(), answer(&[of_revision(3), of_revision(4)]), answer(&[of_revision(5)])]),
        stream(vec![created.clone(), answer(&[number(7, 1), of_revision(6)]), answer(&[of_revision(6)]), answer(&[])]),
        stream(vec![created, answer(&[number(4, 1), number(5, 9), bytes(6, b"mvcc: required revision has been compacted")])]),
    ]
}

/// A key, a zero byte, a value.
pub(crate) fn objects() -> Vec<Vec<u8>> {
    let uid = b"0b9c7a7e-3a2f-4b58-8f0f-0a8a2f3c1d2e";
    let object = bytes(1, &[bytes(1, b"kube-system"), bytes(5, uid)].concat());
    let protobuf = [b"k8s\0".as_slice(), &bytes(1, b"\x0a\x02v1"), &bytes(2, &object)].concat();
    vec![
        [b"/registry/namespaces/kube-system\0".as_slice(), &protobuf].concat(),
        b"/registry/apiextensions.k8s.io/customresourcedefinitions/x\0{\"metadata\":{\"uid\":\"0b9c7a7e\"}}".to_vec(),
        b"/kubernetes.io/secrets/a/b\0k8s:enc:aescbc:v1:key1:xyz".to_vec(),
    ]
}
