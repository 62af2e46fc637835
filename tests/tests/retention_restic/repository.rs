//! A restic repository whose snapshots are written by the test itself: restic would take minutes for six hundred. The password's key is made a cheap one,
//! so that opening the repository takes no time either. Format: restic's design document ("Repository Format", "Keys, Encryption and MAC").

use std::path::{Path, PathBuf};
use std::process::Command;

use aes::Aes256;
use aes::cipher::{BlockEncrypt, KeyInit, KeyIvInit, StreamCipher};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use vault::digest::Sha256;

const PASSWORD: &str = "for-a-test";
/// scrypt with N = 16: worth nothing, and fast.
const LOG_N: u8 = 4;

/// A key of restic: AES-256-CTR, then Poly1305-AES over the ciphertext.
struct Key {
    encrypt: [u8; 32],
    mac_k: [u8; 16],
    mac_r: [u8; 16],
}

impl Key {
    fn from_json(json: &Value) -> Self {
        let bytes = |value: &Value| BASE64.decode(value.as_str().unwrap()).unwrap();
        Self {
            encrypt: bytes(&json["encrypt"]).try_into().unwrap(),
            mac_k: bytes(&json["mac"]["k"]).try_into().unwrap(),
            mac_r: bytes(&json["mac"]["r"]).try_into().unwrap(),
        }
    }

    fn from_password(salt: &[u8]) -> Self {
        let mut derived = [0; 64];
        let params = scrypt::Params::new(LOG_N, 8, 1, 64).unwrap();
        scrypt::scrypt(PASSWORD.as_bytes(), salt, &params, &mut derived).unwrap();
        Self {
            encrypt: derived[..32].try_into().unwrap(),
            mac_k: derived[32..48].try_into().unwrap(),
            mac_r: derived[48..].try_into().unwrap(),
        }
    }

    /// Nonce, ciphertext, authentication code.
    fn seal(&self, nonce: [u8; 16], plain: &[u8]) -> Vec<u8> {
        let mut text = plain.to_vec();
        ctr::Ctr128BE::<Aes256>::new(&self.encrypt.into(), &nonce.into()).apply_keystream(&mut text);
        let mut pad = nonce.into();
        aes::Aes128::new(&self.mac_k.into()).encrypt_block(&mut pad);
        let one_time: Vec<u8> = self.mac_r.iter().chain(pad.iter()).copied().collect();
        let code = poly1305::Poly1305::new_from_slice(&one_time).unwrap().compute_unpadded(&text);
        nonce.iter().chain(&text).chain(code.as_slice()).copied().collect()
    }
}

/// A repository in a directory of its own.
pub(crate) struct Restic {
    program: PathBuf,
    dir: TempDir,
    master: Key,
}

impl Restic {
    /// An empty one, made by restic.
    pub(crate) fn new(program: &Path) -> Self {
        let dir = TempDir::new().unwrap();
        let json: Value = serde_json::from_slice(&{
            run(program, dir.path(), &["init"]);
            run(program, dir.path(), &["cat", "masterkey"])
        })
        .unwrap();
        let restic = Self { program: program.to_owned(), dir, master: Key::from_json(&json) };
        restic.make_the_key_cheap(&json);
        restic
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    fn make_the_key_cheap(&self, master: &Value) {
        let keys = self.repository().join("keys");
        for entry in std::fs::read_dir(&keys).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let salt = [7; 64];
        let data = Key::from_password(&salt).seal([9; 16], master.to_string().as_bytes());
        let file = json!({
            "created": "2025-01-01T00:00:00Z", "username": "test", "hostname": "test",
            "kdf": "scrypt", "N": 1 << LOG_N, "r": 8, "p": 1,
            "salt": BASE64.encode(salt), "data": BASE64.encode(data),
        })
        .to_string();
        std::fs::write(keys.join(Sha256::of(file.as_bytes()).to_string()), file).unwrap();
    }

    /// Writes one snapshot of a tree that is not there: `forget --dry-run` does not look.
    pub(crate) fn write(&self, at: Timestamp, tags: &[String]) {
        let snapshot = json!({
            "time": at.to_string(), "tree": Sha256::of(at.to_string().as_bytes()).to_string(),
            "paths": ["/etcd"], "hostname": "test", "username": "test", "tags": tags,
        })
        .to_string();
        let nonce: [u8; 16] = Sha256::of(snapshot.as_bytes()).to_string().as_bytes()[..16].try_into().unwrap();
        let sealed = self.master.seal(nonce, snapshot.as_bytes());
        std::fs::write(self.repository().join("snapshots").join(Sha256::of(&sealed).to_string()), sealed).unwrap();
    }

    /// What restic would keep and remove of the snapshots with a tag.
    pub(crate) fn forget(&self, tag: &str, policy: &[String]) -> Value {
        let mut args = vec!["forget", "--dry-run", "--no-lock", "--json", "--group-by", "", "--tag", tag];
        args.extend(policy.iter().map(String::as_str));
        let out = run(&self.program, self.dir.path(), &args);
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
    }
}

fn run(program: &Path, dir: &Path, args: &[&str]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", dir).env("TZ", "UTC").env("RESTIC_PASSWORD", PASSWORD).env("RESTIC_REPOSITORY", dir.join("repository"));
    let out = command.arg("--no-cache").args(args).output().unwrap();
    assert!(out.status.success(), "restic {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}
