//! Who owns a restored data directory: etcd often runs as a user of its own, and a restore runs as root.

use std::path::Path;

use crate::failure::{Failure, Outcome};

/// A user and a group, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    /// Reads `user`, `user:group`, `uid` or `uid:gid`. Names are looked up in `/etc/passwd` and `/etc/group`; a user alone brings its own group.
    pub fn parse(text: &str) -> Outcome<Self> {
        Self::look_up(text, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn look_up(text: &str, passwd: &str, group: &str) -> Outcome<Self> {
        let unknown = |what: &str, name: &str| {
            Failure::usage(format!("there is no {what} '{name}' on this machine"))
                .cause("--owner takes user, user:group, or numbers as uid:gid")
                .again()
        };
        let (user, wanted_group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let entry = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user));
        let uid: u32 = match (user.parse(), &entry) {
            (Ok(uid), _) => uid,
            (Err(_), Some(fields)) => fields.get(2).and_then(|uid| uid.parse().ok()).ok_or_else(|| unknown("user", user))?,
            (Err(_), None) => return Err(unknown("user", user)),
        };
        let gid: u32 = match wanted_group {
            Some(name) => name
                .parse()
                .ok()
                .or_else(|| {
                    let fields =
                        group.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name))?;
                    fields.get(2)?.parse().ok()
                })
                .ok_or_else(|| unknown("group", name))?,
            None => entry.and_then(|fields| fields.get(3)?.parse().ok()).unwrap_or(uid),
        };
        Ok(Self { uid, gid })
    }

    /// Gives a directory and everything below it away.
    pub fn give(self, path: &Path) -> Outcome<()> {
        disk::set_owner_all(path, self.uid, self.gid).map_err(|error| {
            Failure::failed(format!("the restored files cannot be given to {}:{}: {error}", self.uid, self.gid))
                .object(path.display())
                .cause("only root may give files away")
                .again()
        })
    }
}

/// Gives everything below `to` the owner and SELinux label of `from`, and `to` its mode as well.
pub fn copy(from: &Path, to: &Path) -> Outcome<()> {
    disk::copy_ownership_all(from, to).map_err(|error| {
        Failure::failed(format!("the restored files cannot get the owner of the old ones: {error}"))
            .object(to.display())
            .cause("only root may give files away: run as root, or as the user that etcd runs as")
            .again()
    })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\netcd:x:105:112::/var/lib/etcd:/bin/false\n";
    const GROUP: &str = "root:x:0:\netcd:x:112:\nbackup:x:34:\n";

    #[test]
    fn names_and_numbers_are_taken() {
        for (text, uid, gid) in
            [("etcd", 105, 112), ("etcd:backup", 105, 34), ("105", 105, 112), ("7:8", 7, 8), ("7", 7, 7), ("root:etcd", 0, 112)]
        {
            assert_eq!(Owner::look_up(text, PASSWD, GROUP).unwrap(), Owner { uid, gid }, "{text}");
        }
        for text in ["nobody-here", "etcd:nobody-here", ""] {
            assert_eq!(Owner::look_up(text, PASSWD, GROUP).unwrap_err().code, crate::Code::Usage, "{text}");
        }
    }
}
