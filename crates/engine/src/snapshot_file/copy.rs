//! Copying the database out of a snapshot file, hashed on the way.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use bbolt::ReadAt;
use ring::digest::{Context, SHA256};

use super::{Opened, STEP, STEPS_WAITING, digest};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;

/// Writes the database, without its trailer, to the beginning of `out`, and returns its SHA-256. `what` names the work for `progress`.
pub(super) fn copy(opened: &Opened, snapshot: &Path, out: &disk::File, what: &str, progress: &dyn Progress) -> Outcome<[u8; 32]> {
    opened.file.file().advise_sequential();
    let (copied, computed) = thread::scope(|scope| {
        let (steps, to_hash) = mpsc::sync_channel::<Arc<Vec<u8>>>(STEPS_WAITING);
        let hashing = scope.spawn(move || {
            let mut hash = Context::new(&SHA256);
            to_hash.iter().for_each(|step| hash.update(&step));
            digest::finish(hash)
        });
        let copied = copy_steps(opened, snapshot, out, &steps, |done, all| progress.bytes(what, done, Some(all)));
        drop(steps);
        (copied, hashing.join())
    });
    progress.done();
    copied?;
    computed.map_err(|_| Failure::failed("the thread that hashes ended unexpectedly; this is a bug in Lifeboat"))
}

fn copy_steps(
    opened: &Opened,
    snapshot: &Path,
    out: &disk::File,
    hashed: &mpsc::SyncSender<Arc<Vec<u8>>>,
    tell: impl Fn(u64, u64),
) -> Outcome<()> {
    let length = opened.layout.database_len;
    let mut offset = 0;
    while offset < length {
        let mut step = vec![0; (length - offset).min(STEP as u64) as usize];
        opened
            .file
            .read_exact_at(&mut step, offset)
            .map_err(|error| Failure::failed(format!("the snapshot file cannot be read: {error}")).object(snapshot.display()).again())?;
        let step = Arc::new(step);
        // The thread takes steps until the channel is closed.
        let _ = hashed.send(Arc::clone(&step));
        out.write_all_at(&step, offset)
            .map_err(|error| Failure::failed(format!("the database cannot be written: {error}")).object(out.path().display()).again())?;
        offset += step.len() as u64;
        tell(offset, length);
    }
    Ok(())
}
