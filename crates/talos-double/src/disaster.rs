//! What befalls a node: its data lost, damaged, or left half restored.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bbolt::Database;
use etcd_store::DatabaseFile;

use crate::double::TalosDouble;
use crate::machined::reboot;
use crate::world::World;

/// The page size of a database on this machine, and what of a page is its header (bbolt `internal/common/page.go`).
const PAGE: u64 = 4096;
const HEADER: usize = 16;

/// The words of a restore whose digest is wrong (etcd `etcdutl/snapshot/v3_snapshot.go`), the two digests cut short.
const MISMATCH: &str = "Failed to run pre stage: error recovering from the snapshot: expected sha256 [227 176 196 66], got [152 252 28 20]";

impl TalosDouble {
    /// A node loses its etcd data, as with its disk: etcd is killed, the directory is gone, and the node is started anew.
    pub fn wipe_data(&self, node: usize) {
        self.block_on(move |world| async move {
            struck(&world, node, |data| std::fs::remove_dir_all(data).unwrap_or_default()).await;
            reboot(&world, node).await;
        });
    }

    /// A node's etcd is killed, and a page near the middle of its database is damaged so that the structure is no longer sound.
    /// The service is `Failed`; a reboot lets etcd try what is left.
    pub fn damage_data(&self, node: usize) {
        self.block_on(move |world| async move {
            struck(&world, node, |data| damage(&data.join("member/snap/db"))).await;
        });
    }

    /// What a restore by hand leaves whose digest was wrong: `member/snap/db` alone, and a service that is `Failed` and says why. The
    /// database is the node's own or that of another one; one without a single page where there is none.
    pub fn leave_bad_restore(&self, node: usize) {
        let database = |index: usize| self.root(index).join("var/lib/etcd/member/snap/db");
        let all: Vec<PathBuf> = std::iter::once(node).chain(self.control_planes()).map(database).collect();
        self.block_on(move |world| async move {
            struck(&world, node, |data| {
                let left = all.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
                std::fs::remove_dir_all(data).unwrap_or_default();
                std::fs::create_dir_all(data.join("member/snap")).unwrap();
                std::fs::write(data.join("member/snap/db"), left).unwrap();
            })
            .await;
            world.nodes[node].etcd.lock().await.enter("Failed", MISMATCH);
        });
    }
}

/// Kills a node's etcd, and does something to its data.
async fn struck(world: &World, node: usize, work: impl FnOnce(&Path)) {
    world.nodes[node].halt_boot().await;
    let mut etcd = world.nodes[node].etcd.lock().await;
    etcd.kill();
    work(&etcd.place.data);
}

/// Flips the headers of pages, from the middle on, until one was in use.
fn damage(database: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(database).unwrap();
    let pages = file.metadata().unwrap().len() / PAGE;
    // The first two hold nothing but where everything is.
    for page in (pages / 2..pages).chain((2..pages / 2).rev()) {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, page * PAGE).unwrap();
        file.write_all_at(&header.map(|byte| !byte), page * PAGE).unwrap();
        if !sound(database) {
            return;
        }
    }
    panic!("{}: no page whose damage shows", database.display());
}

fn sound(database: &Path) -> bool {
    let opened = Database::open(DatabaseFile::open(database).unwrap());
    opened.is_ok_and(|database| database.check().is_ok())
}
