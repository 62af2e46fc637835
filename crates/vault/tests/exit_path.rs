//! Promise 2, no lock-in: what Lifeboat writes is opened by `age`, `zstd` and `minisign` themselves, and what they write by Lifeboat.
//!
//! The tools are named by LIFEBOAT_TEST_AGE, LIFEBOAT_TEST_ZSTD and LIFEBOAT_TEST_MINISIGN; a test whose tool is not named says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vault::layers::Layers;
use vault::repository::Repository;
use vault::restore_txt;
use vault::seal::recipients::{generate_identity, seal_bytes};
use vault::seal::{FrameCompressor, Identities, NoCallbacks, Recipients, SealWriter, SecretString, StreamDecoder};
use vault::sign::{Binding, Role, SigningKey, Status, TrustedSigners};

fn tool(name: &str) -> Option<PathBuf> {
    let variable = format!("LIFEBOAT_TEST_{}", name.to_uppercase());
    let found = std::env::var_os(&variable).map(PathBuf::from);
    if found.is_none() {
        println!("SKIPPED: {variable} does not name the {name} tool");
    }
    found
}

fn expose(secret: &SecretString) -> String {
    use age::secrecy::ExposeSecret;
    secret.expose_secret().to_owned()
}

/// A file of several frames, the last one short, with pages that compress and pages that do not.
fn snapshot() -> Vec<u8> {
    let mut state = 7u64;
    let mut file = vec![0; (9 << 20) + 32];
    for (at, page) in file.chunks_mut(4096).enumerate() {
        if at % 3 == 0 {
            page.fill_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            });
        } else {
            page.fill(b'a' + (at % 26) as u8);
        }
    }
    file
}

fn seal(layers: Layers, recipients: &Recipients, file: &[u8]) -> Vec<u8> {
    let mut writer = SealWriter::new(layers, layers.age.then_some(recipients), NoCallbacks).unwrap();
    let mut frames = if layers.zstd { FrameCompressor::zstd().unwrap() } else { FrameCompressor::stored() };
    for raw in file.chunks(vault::limits::FRAME_RAW) {
        writer.push(frames.compress(raw).unwrap()).unwrap();
    }
    let (pieces, _) = writer.finish().unwrap();
    pieces.concat()
}

/// Puts the tools where a shell finds them under their own names.
fn path_with(directory: &Path, tools: &[(&str, &Path)]) -> std::ffi::OsString {
    let bin = directory.join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, path) in tools {
        std::os::unix::fs::symlink(path, bin.join(name)).unwrap();
    }
    let mut path = bin.into_os_string();
    path.push(":/usr/bin:/bin");
    path
}

#[test]
fn the_commands_of_restore_txt_give_the_file_back() {
    let (Some(age), Some(zstd)) = (tool("age"), tool("zstd")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = path_with(directory.path(), &[("age", &age), ("zstd", &zstd)]);
    let (identity, recipient) = generate_identity();
    let recipients = Recipients::keys([recipient.as_str()]).unwrap();
    fs::write(directory.path().join("key.txt"), expose(&identity)).unwrap();
    let file = snapshot();
    for layers in Layers::ALL {
        fs::write(directory.path().join(layers.object_name()), seal(layers, &recipients, &file)).unwrap();
        let command = restore_txt::pipeline(layers);
        assert!(restore_txt::text().contains(&command));
        let script = format!("set -e; {command}");
        let status = Command::new("sh").args(["-c", &script]).current_dir(directory.path()).env("PATH", &path).status().unwrap();
        assert!(status.success(), "{command}");
        assert_eq!(fs::read(directory.path().join("snapshot.db")).unwrap(), file, "{command}");
        fs::remove_file(directory.path().join("snapshot.db")).unwrap();
    }
}

#[test]
fn what_age_and_zstd_write_is_read() {
    let (Some(age), Some(zstd)) = (tool("age"), tool("zstd")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = path_with(directory.path(), &[("age", &age), ("zstd", &zstd)]);
    let (identity, recipient) = generate_identity();
    let file = snapshot();
    fs::write(directory.path().join("snapshot.db"), &file).unwrap();
    let script = format!("set -e; zstd -q -19 -c snapshot.db | age -r {recipient} > db.zst.age");
    assert!(Command::new("sh").args(["-c", &script]).current_dir(directory.path()).env("PATH", &path).status().unwrap().success());
    let mut identities = Identities::new();
    identities.add_file("key.txt", expose(&identity).as_bytes(), NoCallbacks).unwrap();
    let sealed = fs::read(directory.path().join("db.zst.age")).unwrap();
    let mut restored = Vec::new();
    let mut reader = StreamDecoder::open(Layers::SEALED, &sealed[..], &identities).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut restored).unwrap();
    assert_eq!(restored, file);
}

#[test]
fn extras_of_any_length_are_opened_by_age() {
    let Some(age) = tool("age") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (identity, recipient) = generate_identity();
    let recipients = Recipients::keys([recipient.as_str()]).unwrap();
    let key = directory.path().join("key.txt");
    fs::write(&key, expose(&identity)).unwrap();
    let file = snapshot();
    for length in [0, 1, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1] {
        let sealed = directory.path().join("extra.age");
        fs::write(&sealed, seal_bytes(&recipients, &file[..length], NoCallbacks).unwrap()).unwrap();
        let output = Command::new(&age).arg("-d").arg("-i").arg(&key).arg(&sealed).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success() && output.stdout == file[..length], "{length}");
    }
}

#[test]
fn minisign_checks_our_signatures_and_we_its() {
    let Some(minisign) = tool("minisign") else { return };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let key = SigningKey::generate().unwrap();
    let (repository, cluster) = ("01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap(), "prod".parse().unwrap());
    let binding = Binding { repository: &repository, cluster: &cluster, id: &"20261121T020004Z-7qk2m9", role: Role::Manifest };
    fs::write(at("manifest.json"), b"{}\n").unwrap();
    fs::write(at("manifest.json.minisig"), key.sign(b"{}\n", &binding).unwrap()).unwrap();
    let verify = |extra: &[&str]| {
        let mut command = Command::new(&minisign);
        command.current_dir(directory.path()).args(["-V", "-m", "manifest.json", "-x", "manifest.json.minisig"]).args(extra);
        command.output().unwrap()
    };
    let output = verify(&["-P", &key.public().to_line()]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&binding.comment()));
    fs::write(at("lifeboat.pub"), key.public().to_file()).unwrap();
    assert!(verify(&["-p", "lifeboat.pub"]).status.success());

    // And the other way: the tool signs with our key file, and with one of its own.
    fs::write(at("lifeboat.key"), expose(&key.to_file().unwrap())).unwrap();
    let mut generate = Command::new(&minisign);
    let made = generate.current_dir(directory.path()).args(["-G", "-W", "-p", "own.pub", "-s", "own.key"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let own = SigningKey::from_file_text(&fs::read_to_string(at("own.key")).unwrap()).unwrap();
    assert_eq!(fs::read_to_string(at("own.pub")).unwrap().parse::<vault::sign::PublicKey>().unwrap(), *own.public());
    for (file, public) in [("lifeboat.key", key.public()), ("own.key", own.public())] {
        let mut sign = Command::new(&minisign);
        sign.current_dir(directory.path()).args([
            "-S",
            "-m",
            "manifest.json",
            "-x",
            "theirs.minisig",
            "-s",
            file,
            "-t",
            &binding.comment(),
        ]);
        let signed = sign.stdin(Stdio::null()).output().unwrap();
        assert!(signed.status.success(), "{signed:?}");
        let signature = fs::read(at("theirs.minisig")).unwrap();
        let status = TrustedSigners::new(vec![public.clone()]).judge(b"{}\n", Some(&signature), &binding);
        assert_eq!(status, Status::Trusted(public.id()));
    }
}

#[tokio::test]
async fn restore_txt_lies_at_the_root_of_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let store = vault::store::open_store(&url, &vault::store::StoreOptions::default()).unwrap();
    let now = "2026-11-21T02:00:00Z".parse().unwrap();
    let repository = Repository::init(store, now).await.unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("RESTORE.txt")).unwrap(), restore_txt::text());
    assert!(fs::read_to_string(directory.path().join("lifeboat.json")).unwrap().contains(&repository.id().to_string()));
}
