//! The data directory a restore goes to: what is there now, and how the new `member` takes its place in one step.
//!
//! The data directory itself is never renamed, since it may be a mount. The new content is built in `<data-dir>/.lifeboat-<id>/member`, which etcd
//! 3.4 to 3.7 does not mind, and then exchanged with `<data-dir>/member`; the old one is kept as `<data-dir>/member.before-<id>`. At every moment
//! `<data-dir>/member` is the old one whole, or the new one whole, or (in an empty place) not there while no WAL is there either.

use std::io;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::next::line;

/// Entries that a fresh filesystem has and that are no content.
const NOT_CONTENT: [&str; 1] = ["lost+found"];
/// What the names of our own building sites begin with.
const SITE_PREFIX: &str = ".lifeboat-";
/// What the names of data set aside by an earlier restore begin with.
const BEFORE_PREFIX: &str = "member.before-";

/// What a data directory holds before a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It does not exist.
    Absent,
    /// It exists and holds nothing of anybody.
    Empty,
    /// It holds a `member` of etcd that nobody has open.
    Member,
}

/// A look at a target, changing nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// What is there.
    pub found: Found,
    /// What earlier restores left there, for the report.
    pub leftovers: Vec<PathBuf>,
}

/// Looks at a data directory. Refuses one that etcd has open, one that is not a directory and one that holds something else.
pub fn survey(data_dir: &Path) -> Outcome<Survey> {
    let unreadable = |error: io::Error| Failure::failed(format!("the data directory cannot be read: {error}")).object(data_dir.display());
    let kind = match std::fs::metadata(data_dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Survey { found: Found::Absent, leftovers: Vec::new() }),
        Err(error) => return Err(unreadable(error)),
    };
    if !kind.is_dir() {
        return Err(Failure::usage("the target is not a directory").object(data_dir.display()));
    }
    let mut found = Found::Empty;
    let mut leftovers = Vec::new();
    for entry in std::fs::read_dir(data_dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "member" {
            refuse_if_open(data_dir)?;
            found = Found::Member;
        } else if name.starts_with(SITE_PREFIX) || name.starts_with(BEFORE_PREFIX) {
            leftovers.push(entry.path());
        } else if !NOT_CONTENT.contains(&name.as_ref()) {
            return Err(Failure::usage(format!("the data directory holds '{name}', which is not etcd's"))
                .object(data_dir.display())
                .cause("the path may be wrong: an empty directory is wanted, or a data directory of etcd")
                .again());
        }
    }
    leftovers.sort();
    Ok(Survey { found, leftovers })
}

/// Whether this is a building site that a restore left, and not what one set aside.
#[must_use]
pub fn is_site(leftover: &Path) -> bool {
    leftover.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SITE_PREFIX))
}

/// etcd holds a lock (flock) on its database for as long as it runs.
fn refuse_if_open(data_dir: &Path) -> Outcome<()> {
    let database = data_dir.join("member/snap/db");
    let file = match disk::File::open_read_write(&database) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::failed(format!("the old database cannot be opened: {error}")).object(database.display())),
    };
    match file.try_lock_exclusive() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::failed("the target is in use: etcd has this database open")
            .object(database.display())
            .cause("stop etcd first: systemctl stop etcd; with kubeadm, move etcd.yaml out of /etc/kubernetes/manifests")
            .again()),
        Err(error) => {
            Err(Failure::failed(format!("it cannot be found out whether etcd runs on the target: {error}")).object(database.display()))
        }
    }
}

/// Where the new content is built, and how it is put in place.
#[derive(Debug)]
pub struct Site {
    data_dir: PathBuf,
    site: PathBuf,
    before: PathBuf,
    made_data_dir: bool,
}

impl Site {
    /// Makes `<data-dir>/.lifeboat-<id>/member/snap`, and the data directory where it is missing.
    pub fn create(data_dir: &Path, id: &str) -> Outcome<Self> {
        let made_data_dir = !data_dir.is_dir();
        let site = data_dir.join(format!("{SITE_PREFIX}{id}"));
        let make = || {
            disk::create_dir_all(data_dir, 0o700)?;
            for directory in [site.clone(), site.join("member"), site.join("member/snap")] {
                disk::create_dir(&directory, 0o700)?;
            }
            disk::sync_dir(data_dir)
        };
        make().map_err(|error| Failure::failed(format!("the place to build in cannot be made: {error}")).object(site.display()))?;
        Ok(Self { data_dir: data_dir.to_owned(), before: data_dir.join(format!("{BEFORE_PREFIX}{id}")), site, made_data_dir })
    }

    /// The new `member` directory.
    #[must_use]
    pub fn member(&self) -> PathBuf {
        self.site.join("member")
    }

    /// The database being built.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.site.join("member/snap/db")
    }

    /// Where the old `member` goes.
    #[must_use]
    pub fn before(&self) -> &Path {
        &self.before
    }

    /// Whether the data directory was made for this restore.
    #[must_use]
    pub fn made_data_dir(&self) -> bool {
        self.made_data_dir
    }

    /// Makes everything built so far durable.
    pub fn sync(&self) -> Outcome<()> {
        disk::sync_tree(&self.site)
            .map_err(|error| Failure::failed(format!("the restored files cannot be made durable: {error}")).object(self.site.display()))
    }

    /// Puts the new `member` in place, in one step. `replace` says that an old one is expected there. Returns where the old one is now.
    ///
    /// Everything built must be durable before: see [`Site::sync`].
    pub fn put_in_place(self, replace: bool) -> Outcome<Option<PathBuf>> {
        let member = self.data_dir.join("member");
        let built = self.member();
        let failed = |error: io::Error| {
            Failure::failed(format!("the restored data cannot be put in place: {error}"))
                .object(member.display())
                .cause(format!("the old state is untouched, the restored one is complete in {}", built.display()))
                .again()
        };
        if !replace {
            disk::rename_no_replace(&built, &member).map_err(failed)?;
            disk::sync_dir(&self.data_dir).map_err(failed)?;
            self.remove_site();
            return Ok(None);
        }
        match disk::exchange(&built, &member) {
            Ok(()) => {}
            Err(disk::ExchangeError::Unsupported) => return Err(self.cannot_exchange(&member)),
            Err(disk::ExchangeError::Io(error)) => return Err(failed(error)),
        }
        // From here on the new one is in place; what follows only gives the old one its name.
        disk::sync_dir(&self.data_dir).and_then(|()| disk::sync_dir(&self.site)).map_err(failed)?;
        disk::rename_no_replace(&built, &self.before).and_then(|()| disk::sync_dir(&self.data_dir)).map_err(|error| {
            Failure::failed(format!("the restored data is in place, but the old data could not be given its name: {error}"))
                .object(self.before.display())
                .next(["mv", &built.to_string_lossy(), &self.before.to_string_lossy()])
        })?;
        let before = self.before.clone();
        self.remove_site();
        Ok(Some(before))
    }

    fn cannot_exchange(&self, member: &Path) -> Failure {
        let rename = |from: &Path, to: &Path| line(["mv", "-T", &from.to_string_lossy(), &to.to_string_lossy()]);
        let by_hand = format!("{} && {}", rename(member, &self.before), rename(&self.member(), member));
        Failure::failed("this filesystem cannot exchange two directories in one step, so nothing was replaced")
            .object(member.display())
            .cause(
                "renameat2 EXCHANGE is not supported there (ext4, xfs, btrfs and tmpfs have it); the restored data is complete: \
                 two renames put it in place, while etcd is kept from starting between them",
            )
            .next(["sh", "-c", &by_hand])
    }

    fn remove_site(&self) {
        // An empty directory left behind harms nobody and the next survey names it.
        let _ = disk::remove_dir(&self.site).and_then(|()| disk::sync_dir(&self.data_dir));
    }

    /// Removes what was built, and the data directory if this site made it. For a restore that failed before it was put in place.
    pub fn discard(self) {
        let _ = disk::remove_dir_all(&self.site);
        if self.made_data_dir {
            let _ = disk::remove_dir(&self.data_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn built(data_dir: &Path, id: &str) -> Site {
        let site = Site::create(data_dir, id).unwrap();
        write(&site.database(), "new");
        site.sync().unwrap();
        site
    }

    #[test]
    fn an_empty_place_gets_the_new_member_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("etcd");
        assert_eq!(survey(&data_dir).unwrap().found, Found::Absent);
        assert_eq!(built(&data_dir, "x").put_in_place(false).unwrap(), None);
        assert_eq!(std::fs::read_to_string(data_dir.join("member/snap/db")).unwrap(), "new");
        assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 1);
    }

    #[test]
    fn an_old_member_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("member/snap/db"), "old");
        assert_eq!(survey(directory.path()).unwrap().found, Found::Member);
        let before = built(directory.path(), "x").put_in_place(true).unwrap().unwrap();
        assert_eq!(before, directory.path().join("member.before-x"));
        assert_eq!(std::fs::read_to_string(before.join("snap/db")).unwrap(), "old");
        assert_eq!(std::fs::read_to_string(directory.path().join("member/snap/db")).unwrap(), "new");
        assert_eq!(survey(directory.path()).unwrap().leftovers, [before]);
    }

    #[test]
    fn a_member_that_appeared_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let site = built(directory.path(), "x");
        write(&directory.path().join("member/snap/db"), "somebody else's");
        site.put_in_place(false).unwrap_err();
        assert_eq!(std::fs::read_to_string(directory.path().join("member/snap/db")).unwrap(), "somebody else's");
    }

    #[test]
    fn what_is_not_etcds_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("photos/1.jpg"), "x");
        assert_eq!(survey(directory.path()).unwrap_err().code, crate::Code::Usage);
    }

    #[test]
    fn a_discarded_site_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("etcd");
        built(&data_dir, "x").discard();
        assert!(!data_dir.exists());
    }
}
