#![allow(clippy::unwrap_used)]

use std::io::{Cursor, Read, Write};
use std::sync::OnceLock;

use age::secrecy::ExposeSecret;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::recipients::{generate_identity, seal_bytes};
use super::*;
use crate::digest::Sha256;
use crate::frames::FrameTable;
use crate::layers::Layers;

/// One identity for all tests: its file and its recipient.
fn identity() -> &'static (SecretString, String) {
    static IDENTITY: OnceLock<(SecretString, String)> = OnceLock::new();
    IDENTITY.get_or_init(generate_identity)
}

fn recipients() -> Recipients {
    Recipients::keys([identity().1.as_str()]).unwrap()
}

fn identities() -> Identities {
    let mut identities = Identities::new();
    identities.add_file("test.key", identity().0.expose_secret().as_bytes(), NoCallbacks).unwrap();
    identities
}

/// Bytes that compress somewhat.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|at| if at / 512 % 2 == 0 { next() } else { b'a' }).collect()
}

fn seal(layers: Layers, file: &[u8], frame: usize) -> (Vec<u8>, SealedObject) {
    let recipients = recipients();
    let mut writer = SealWriter::new(layers, layers.age.then_some(&recipients), NoCallbacks).unwrap();
    let mut compressor = if layers.zstd { FrameCompressor::zstd().unwrap() } else { FrameCompressor::stored() };
    let mut stored = Vec::new();
    for raw in file.chunks(frame) {
        writer.push(compressor.compress(raw).unwrap()).unwrap();
        while let Some(piece) = writer.pop() {
            stored.extend_from_slice(&piece);
        }
    }
    let (pieces, object) = writer.finish().unwrap();
    pieces.iter().for_each(|piece| stored.extend_from_slice(piece));
    (stored, object)
}

fn open(layers: Layers, stored: &[u8]) -> Unsealer {
    Unsealer::open(layers, stored.len() as u64, &stored[..stored.len().min(unseal::HEAD as usize)], &identities()).unwrap()
}

/// Restores by the frame table, `run` bytes of stream at a time.
fn by_frames(layers: Layers, stored: &[u8], table: &FrameTable, run: u64) -> Result<Vec<u8>, SealError> {
    let unsealer = open(layers, stored);
    decode::check_table(&unsealer, table)?;
    let mut decoder = FrameDecoder::new()?;
    let mut file = vec![0; table.raw_len() as usize];
    // Backwards: no frame needs another.
    for run in table.runs(run).into_iter().rev() {
        let range = unsealer.stored_range(&table.run_range(&run).unwrap())?;
        let fetched = BytesMut::from(&stored[range.start as usize..range.end as usize]);
        decoder.decode_run(&unsealer, table, run, fetched, |offset, raw| {
            file[offset as usize..offset as usize + raw.len()].copy_from_slice(raw);
            Ok::<(), SealError>(())
        })?;
    }
    Ok(file)
}

fn by_stream(layers: Layers, stored: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut file = Vec::new();
    StreamDecoder::open(layers, stored, &identities()).map_err(std::io::Error::other)?.read_to_end(&mut file)?;
    Ok(file)
}

#[test]
fn every_combination_of_layers_comes_back_both_ways() {
    let file = sample(300_000);
    for layers in Layers::ALL {
        let (stored, object) = seal(layers, &file, 70_000);
        assert_eq!((object.size, object.sha256), (stored.len() as u64, Sha256::of(&stored)), "{layers}");
        assert_eq!(object.frames.frames().len(), 5);
        for run in [1, 100_000, u64::MAX] {
            assert_eq!(by_frames(layers, &stored, &object.frames, run).unwrap(), file, "{layers}");
        }
        assert_eq!(by_stream(layers, &stored).unwrap(), file, "{layers}");
    }
}

#[test]
fn the_age_crate_opens_what_we_seal_and_we_what_it_seals() {
    // Around the ends of chunks and of pieces, where the last-chunk flag is easily wrong.
    let chunk = 64 << 10;
    for length in [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 16 * chunk, 16 * chunk + 1, 33 * chunk] {
        let plain = sample(length);
        let sealed = seal_bytes(&recipients(), &plain, NoCallbacks).unwrap();
        let identity: age::x25519::Identity = identity().0.expose_secret().lines().nth(1).unwrap().parse().unwrap();
        assert_eq!(age::decrypt(&identity, &sealed).unwrap(), plain, "{length}");
        assert_eq!(identities::open_bytes(&identities(), &sealed, length).unwrap(), plain, "{length}");

        let theirs = age::encrypt(&identity.to_public(), &plain).unwrap();
        assert_eq!(identities::open_bytes(&identities(), &theirs, length).unwrap(), plain, "{length}");
        let layers = Layers { zstd: false, age: true };
        let unsealer = open(layers, &theirs);
        assert_eq!(unsealer.stream_len(), length as u64);
        let all = 0..length as u64;
        let range = unsealer.stored_range(&all).unwrap();
        let fetched = BytesMut::from(&theirs[range.start as usize..range.end as usize]);
        assert_eq!(unsealer.open_range(&all, fetched).unwrap(), plain, "{length}");
    }
}

#[test]
fn a_frame_of_another_tool_is_read_in_order() {
    // One frame over all, with a window above ours for the frame path but within the reader's limit.
    let file = sample(9 << 20);
    let one = zstd::encode_all(&file[..], 19).unwrap();
    assert_eq!(by_stream(Layers { zstd: true, age: false }, &one).unwrap(), file);
}

#[test]
fn a_window_above_the_limit_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(&sample(1 << 20)).unwrap();
    let wide = encoder.finish().unwrap();
    assert!(by_stream(Layers { zstd: true, age: false }, &wide).is_err());
}

#[test]
fn every_flipped_byte_of_a_stored_object_is_found() {
    let file = sample(3000);
    for layers in [Layers::SEALED, Layers { zstd: false, age: true }, Layers { zstd: true, age: false }, Layers { zstd: false, age: false }]
    {
        let (stored, object) = seal(layers, &file, 1000);
        let identities = identities();
        for at in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[at] ^= 1;
            let found = match Unsealer::open(layers, damaged.len() as u64, &damaged, &identities) {
                Ok(_) => by_frames(layers, &damaged, &object.frames, u64::MAX).is_err(),
                Err(_) => true,
            };
            assert!(found, "{layers}: byte {at}");
            if layers.age {
                assert!(by_stream(layers, &damaged).is_err(), "{layers}: byte {at}");
            }
        }
    }
}

#[test]
fn a_cut_object_is_found_even_at_a_chunk_boundary() {
    let file = sample(200_000);
    let layers = Layers { zstd: false, age: true };
    let (stored, object) = seal(layers, &file, 50_000);
    let chunk = stream::STORED_CHUNK as usize;
    let header = stored.len() - (200_000 + 4 * 16);
    for length in [header, header + chunk, header + 2 * chunk, header + 3 * chunk, stored.len() - 1] {
        assert!(by_stream(layers, &stored[..length]).is_err(), "{length}");
        let cut = Unsealer::open(layers, length as u64, &stored[..length.min(9000)], &identities());
        assert!(cut.map_or(true, |cut| decode::check_table(&cut, &object.frames).is_err()), "{length}");
    }
    let mut longer = stored.clone();
    longer.push(0);
    assert!(by_stream(layers, &longer).is_err());
}

#[test]
fn chunks_cannot_change_places() {
    let layers = Layers { zstd: false, age: true };
    let (mut stored, object) = seal(layers, &sample(200_000), 50_000);
    let chunk = stream::STORED_CHUNK as usize;
    let header = stored.len() - (200_000 + 4 * 16);
    let (first, second) = stored[header..].split_at_mut(chunk);
    first.swap_with_slice(&mut second[..chunk]);
    assert!(by_stream(layers, &stored).is_err());
    let error = by_frames(layers, &stored, &object.frames, u64::MAX).unwrap_err();
    assert!(matches!(error, SealError::Chunk { chunk: 0, .. }), "{error}");
}

#[test]
fn blocks_of_the_stored_object_are_hashed() {
    let mut file = vec![0; 20 << 20];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut file).unwrap();
    let (stored, object) = seal(Layers::SEALED, &file, limits::FRAME_RAW);
    let blocks: Vec<Sha256> = stored.chunks(8 << 20).map(Sha256::of).collect();
    assert_eq!(object.frames.blocks(), blocks);
    let encoded = object.frames.encode().unwrap();
    let again = FrameTable::decode_checked(&encoded, Sha256::of(&encoded), object.size).unwrap();
    assert_eq!(by_frames(Layers::SEALED, &stored, &again, 8 << 20).unwrap(), file);
}

#[test]
fn another_key_opens_nothing() {
    let (stored, _) = seal(Layers::SEALED, b"file", 10);
    let mut other = Identities::new();
    other.add_file("other", generate_identity().0.expose_secret().as_bytes(), NoCallbacks).unwrap();
    assert!(matches!(Unsealer::open(Layers::SEALED, stored.len() as u64, &stored, &other), Err(SealError::NoKey)));
    assert!(matches!(Unsealer::open(Layers::SEALED, stored.len() as u64, &stored, &Identities::new()), Err(SealError::NoKey)));
}

#[test]
fn a_passphrase_is_the_only_recipient_and_its_work_is_capped() {
    let passphrase = || SecretString::from("correct horse".to_owned());
    let recipients = Recipients::passphrase(passphrase()).with_work_factor(4);
    assert!(recipients.is_passphrase() && recipients.fingerprints().is_empty());
    let sealed = seal_bytes(&recipients, b"extra", NoCallbacks).unwrap();
    let mut identities = Identities::new();
    identities.add_passphrase(passphrase());
    assert_eq!(identities::open_bytes(&identities, &sealed, 10).unwrap(), b"extra");
    assert!(identities::open_bytes(&identities, &sealed, 4).is_err(), "more than the limit");

    // The factor is the last word of the stanza's first line. Nobody may ask for 4 GiB of memory.
    let text = sealed.iter().map(|b| *b as char).collect::<String>();
    let line = text.lines().nth(1).unwrap();
    let hostile: Vec<u8> = text.replacen(line, &line.replace(" 4", " 22"), 1).chars().map(|c| c as u8).collect();
    let error = identities::open_bytes(&identities, &hostile, 10).unwrap_err();
    assert!(matches!(error, SealError::ExcessiveWork { required: 22 }), "{error}");
}

#[derive(Clone)]
struct Asked(&'static str);

impl Callbacks for Asked {
    fn display_message(&self, _: &str) {}
    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }
    fn request_public_string(&self, _: &str) -> Option<String> {
        None
    }
    fn request_passphrase(&self, _: &str) -> Option<SecretString> {
        Some(SecretString::from(self.0.to_owned()))
    }
}

#[test]
fn an_encrypted_identity_file_is_opened() {
    let lock = Recipients::passphrase(SecretString::from("open".to_owned())).with_work_factor(4);
    let binary = seal_bytes(&lock, identity().0.expose_secret().as_bytes(), NoCallbacks).unwrap();
    let mut armored = Vec::new();
    let mut writer = age::armor::ArmoredWriter::wrap_output(&mut armored, age::armor::Format::AsciiArmor).unwrap();
    writer.write_all(&binary).unwrap();
    writer.finish().unwrap();
    let sealed = seal_bytes(&recipients(), b"x", NoCallbacks).unwrap();
    for file in [binary, armored] {
        let mut identities = Identities::new();
        identities.add_file("key", &file, Asked("open")).unwrap();
        assert_eq!(identities::open_bytes(&identities, &sealed, 1).unwrap(), b"x");
        assert!(matches!(Identities::new().add_file("key", &file, Asked("wrong")), Err(SealError::Identity { .. })));
        assert!(matches!(Identities::new().add_file("key", &file, NoCallbacks), Err(SealError::Identity { .. })));
    }
}

#[test]
fn bad_identity_files_are_refused_without_repeating_them() {
    for bad in [&b""[..], b"# nothing\n", b"AGE-SECRET-KEY-1WRONG\n", b"age-encryption.org/v1\n", &[0xff; 40]] {
        let error = Identities::new().add_file("my.key", bad, NoCallbacks).unwrap_err().to_string();
        assert!(error.contains("my.key") && !error.contains("WRONG"), "{error}");
    }
}

#[test]
fn recipients_are_checked() {
    let good = identity().1.as_str();
    assert_eq!(Recipients::keys([good, good, &good.to_uppercase()]).unwrap().fingerprints().len(), 1);
    let expected = Sha256::of(good.as_bytes()).to_string()[..16].to_owned();
    assert_eq!(recipients().fingerprints()[0].to_string(), expected);
    assert!(matches!(Recipients::keys([]), Err(SealError::Recipients { .. })));
    for bad in ["", "age1", "ssh-ed25519 AAAA", &good[..good.len() - 1]] {
        assert!(matches!(Recipients::keys([bad]), Err(SealError::NotARecipient { .. })), "{bad}");
    }
    assert!(matches!(SealWriter::new(Layers::SEALED, None, NoCallbacks), Err(SealError::Recipients { .. })));
    let file = format!("# team\n\n {good} \n");
    assert_eq!(Recipients::lines(&file).collect::<Vec<_>>(), [good]);
}

#[test]
fn a_missing_plugin_is_named() {
    let identity = age::plugin::Identity::default_for_plugin("nosuchplugin").unwrap().to_string();
    let error = Identities::new().add_file("k", identity.as_bytes(), NoCallbacks).unwrap_err();
    assert!(matches!(&error, SealError::Plugin { detail } if detail.contains("age-plugin-nosuchplugin")), "{error}");
}

#[test]
fn hostile_frames_and_tables_are_refused() {
    let layers = Layers { zstd: true, age: false };
    let (stored, object) = seal(layers, &sample(3000), 1000);
    let unsealer = open(layers, &stored);
    let frame = object.frames.frames()[0];
    let bytes = &stored[..frame.stored as usize];
    let mut decoder = FrameDecoder::new().unwrap();
    assert!(decoder.decode(&unsealer, 0, &frame, bytes).is_ok());
    for raw in [999, 1001, 4 << 20] {
        assert!(decoder.decode(&unsealer, 0, &crate::frames::Frame { raw, ..frame }, bytes).is_err(), "{raw}");
    }
    let mut short = FrameTable::default();
    short.push(frame.stored, frame.raw, frame.crc).unwrap();
    assert!(matches!(decode::check_table(&unsealer, &short), Err(SealError::Table { .. })));
    assert!(unsealer.stored_range(&(0..stored.len() as u64 + 1)).is_err());
    assert!(unsealer.open_range(&(0..10), BytesMut::zeroed(9)).is_err());
}

#[test]
fn frames_of_the_wrong_kind_or_size_are_not_written() {
    let recipients = recipients();
    let mut writer = SealWriter::new(Layers::SEALED, Some(&recipients), NoCallbacks).unwrap();
    let raw = FrameCompressor::stored().compress(b"raw").unwrap();
    assert!(matches!(writer.push(raw), Err(SealError::Unwritable { .. })));
    let mut compressor = FrameCompressor::zstd().unwrap();
    assert!(compressor.compress(&[]).is_err());
    assert!(compressor.compress(&vec![0; limits::FRAME_RAW + 1]).is_err());
    let empty = CompressedFrame { bytes: Bytes::new(), raw: 1, crc: 0, compressed: true };
    assert!(writer.push(empty).is_err());
}

#[test]
fn incompressible_frames_stay_within_the_bound() {
    let mut raw = vec![0; limits::FRAME_RAW];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut raw).unwrap();
    let frame = FrameCompressor::zstd().unwrap().compress(&raw).unwrap();
    assert!(frame.bytes.len() <= limits::FRAME_COMPRESSED);
    // Content size and checksum are in the frame: descriptor bits 5 (single segment), 6-7 (size), 2 (checksum).
    assert!(matches!(zstd::zstd_safe::get_frame_content_size(&frame.bytes), Ok(Some(length)) if length == limits::FRAME_RAW as u64));
    assert_eq!(frame.bytes[4] & 0b100, 0b100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_range_of_the_stream_opens_by_itself(length in 1usize..400_000, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let layers = Layers { zstd: false, age: true };
        let file = sample(length);
        let (stored, _) = seal(layers, &file, 150_000);
        let unsealer = open(layers, &stored);
        let (a, b) = (a.index(length + 1), b.index(length + 1));
        let range = a.min(b) as u64..a.max(b) as u64;
        let fetch = unsealer.stored_range(&range).unwrap();
        let opened = unsealer.open_range(&range, BytesMut::from(&stored[fetch.start as usize..fetch.end as usize])).unwrap();
        prop_assert_eq!(&opened[..], &file[a.min(b)..a.max(b)]);
    }

    #[test]
    fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let identities = identities();
        for layers in Layers::ALL {
            let _ = Unsealer::open(layers, bytes.len() as u64, &bytes, &identities);
            if let Ok(mut reader) = StreamDecoder::open(layers, Cursor::new(&bytes), &identities) {
                let _ = reader.read_to_end(&mut Vec::new());
            }
        }
    }
}
