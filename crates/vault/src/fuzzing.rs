//! Entry points for fuzzing: every parser of bytes from outside. None of them may panic, allocate without bound, or run for long.

use std::io::Read;
use std::sync::OnceLock;

use bytes::BytesMut;

use crate::canonical;
use crate::frames::FrameTable;
use crate::key::Key;
use crate::layers::Layers;
use crate::lease::LeaseRecord;
use crate::lineage::{Lineage, LineageName};
use crate::manifest::Manifest;
use crate::marker::Marker;
use crate::seal::{FrameDecoder, Identities, NoCallbacks, StreamDecoder, Unsealer};
use crate::sign::{Binding, PublicKey, Role, SigningKey, TrustedSigners};

/// Both: the bytes as they are, and with a `self_sha256` that fits, which no fuzzer would find by itself.
pub fn with_digest(bytes: &[u8], parse: fn(&[u8])) {
    parse(bytes);
    if let Some(sound) = canonical::with_valid_digest(bytes) {
        parse(&sound);
    }
}

/// A manifest. What is read can be written, and is read again as the same.
pub fn manifest(bytes: &[u8]) {
    with_digest(bytes, parse_manifest);
}

fn parse_manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes)
        && let Ok(again) = canonical::encode(&manifest)
    {
        assert_eq!(Manifest::decode(&again).as_ref(), Ok(&manifest));
    }
}

/// A frame table. What is read is written as the same bytes.
pub fn frames(bytes: &[u8]) {
    if let Ok(table) = FrameTable::decode(bytes) {
        assert_eq!(table.encode().as_deref(), Ok(bytes));
    }
}

/// A listed key, and everything that is made of names.
pub fn key(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.to_string(), text);
    }
    let _ = text.parse::<crate::repository::Selector>();
    let _ = text.parse::<crate::sign::PublicKey>();
    let _ = crate::seal::Recipients::keys([text]);
}

/// A signature, the name of a signer, and the file of a signing key. A signature by nobody known never counts.
pub fn signature(bytes: &[u8]) {
    crate::sign::parse_any(bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_line().parse::<PublicKey>().as_ref(), Ok(&key));
    }
    let _ = SigningKey::from_file_text(&text);
    if let (Ok(repository), Ok(cluster)) = ("01D39ZY06FGSCTVN4T2V9PKHFZ".parse(), "prod".parse()) {
        let binding = Binding { repository: &repository, cluster: &cluster, id: &"x", role: Role::Manifest };
        let status = trusted().judge(b"something", Some(bytes), &binding);
        assert!(!trusted().counts(&status), "a forged signature counts");
    }
}

fn trusted() -> &'static TrustedSigners {
    static TRUSTED: OnceLock<TrustedSigners> = OnceLock::new();
    TRUSTED.get_or_init(|| TrustedSigners::new(SigningKey::generate().map(|key| key.public().clone()).into_iter().collect()))
}

/// A mark, and its signature.
pub fn mark(bytes: &[u8]) {
    crate::sign::parse_any(bytes);
    with_digest(bytes, parse_mark);
}

fn parse_mark(bytes: &[u8]) {
    if let Some(mark) = crate::mark::decode_any(bytes)
        && let Ok(again) = mark.encode()
    {
        assert_eq!(crate::mark::decode_any(&again).as_ref(), Some(&mark));
    }
}

/// A lineage, the marker, and the lease.
pub fn lineage(bytes: &[u8]) {
    with_digest(bytes, parse_lineage);
}

fn parse_lineage(bytes: &[u8]) {
    let _ = Marker::decode(bytes);
    if let Ok(lease) = canonical::decode::<LeaseRecord>(bytes)
        && let Ok(again) = canonical::encode(&lease)
    {
        assert_eq!(canonical::decode::<LeaseRecord>(&again).as_ref(), Ok(&lease));
    }
    if let Ok(lineage) = canonical::decode::<Lineage>(bytes) {
        let _ = Lineage::decode(bytes, &lineage.name);
    }
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(name) = text.parse::<LineageName>()
    {
        assert_eq!(name.to_string(), text);
    }
}

/// The identity of the golden repository, so that a corpus made of its objects goes deep. It protects nothing.
const IDENTITY: &[u8] = include_bytes!("../tests/golden/v1/identity.txt");

fn identities() -> &'static Identities {
    static IDENTITIES: OnceLock<Identities> = OnceLock::new();
    IDENTITIES.get_or_init(|| {
        let mut identities = Identities::new();
        // Without it nothing would open, and the fuzzer would only see headers; that is no reason to stop.
        let _ = identities.add_file("fuzzing", IDENTITY, NoCallbacks);
        identities
    })
}

/// A stored object of any layers, in order and by a frame table (the bytes behind the first 0xff are the object, those before it the table).
pub fn unseal(bytes: &[u8]) {
    let (table, object) = bytes.iter().position(|byte| *byte == 0xff).map_or((&[][..], bytes), |at| (&bytes[..at], &bytes[at + 1..]));
    for layers in Layers::ALL {
        if let Ok(reader) = StreamDecoder::open(layers, object, identities()) {
            let mut buffer = Vec::new();
            // A few KiB can decompress to GiBs in order; a restore writes to disk, the fuzzer looks at the beginning.
            let _ = reader.take(1 << 20).read_to_end(&mut buffer);
        }
        let Ok(unsealer) = Unsealer::open(layers, object.len() as u64, object, identities()) else { continue };
        let (Ok(table), Ok(mut decoder)) = (FrameTable::decode(table), FrameDecoder::new()) else { continue };
        for run in table.runs(1 << 20) {
            let Some(range) = table.run_range(&run).and_then(|range| unsealer.stored_range(&range).ok()) else { continue };
            let stored = object.get(range.start as usize..range.end as usize).unwrap_or_default();
            let _ = decoder.decode_run(&unsealer, &table, run, BytesMut::from(stored), |_, _| Ok::<(), crate::seal::SealError>(()));
        }
    }
    let _ = Identities::new().add_file("fuzzing", object, NoCallbacks);
}
