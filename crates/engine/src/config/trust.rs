//! Who may have written a configuration that names commands: they run with the rights of whoever reads it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Config, Hooks};
use crate::failure::{Failure, Outcome};

/// Write permission of the group and of everybody.
const OTHERS_WRITE: u32 = 0o022;

impl Config {
    /// A section with commands in it, where there is one.
    #[must_use]
    pub fn names_commands(&self) -> Option<&'static str> {
        let has_hooks = |hooks: &Option<Hooks>| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty());
        let clusters = || self.clusters.values();
        let drills = clusters().map(|cluster| &cluster.drill).chain([&self.defaults.drill]);
        if has_hooks(&self.defaults.hooks) || clusters().any(|cluster| has_hooks(&cluster.hooks)) {
            Some("hooks")
        } else if self.notify.iter().any(|notifier| notifier.exec.is_some()) {
            Some("notify.exec")
        } else if drills.flatten().any(|drill| drill.etcd.is_some() || !drill.identity_command.is_empty()) {
            Some("commands of drill")
        } else {
            None
        }
    }
}

/// Refuses a file that somebody else could have written. `what` is the section because of which it matters.
pub(super) fn check(path: &Path, metadata: &Metadata, what: &str) -> Outcome<()> {
    let caller = rustix::process::geteuid().as_raw();
    let refused = |cause: String| {
        Failure::usage("the configuration names commands, and somebody else could change it").object(path.display()).cause(cause)
    };
    let name = path.to_string_lossy();
    if metadata.uid() != 0 && metadata.uid() != caller {
        let cause = format!("it has {what} and belongs to user {}, who is neither root nor the caller", metadata.uid());
        return Err(refused(cause).next(["chown", &caller.to_string(), &name]));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        let cause = format!("it has {what}, and its mode {:03o} lets others write to it", metadata.mode() & 0o777);
        return Err(refused(cause).next(["chmod", "go-w", &name]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{load, parse};
    use super::*;

    const WITH_HOOKS: &str = "defaults: {hooks: {before: [{command: [/bin/true]}]}}\n";

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn commands_are_taken_from_nobody_else() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("lifeboat.yaml");
        for mode in [0o620, 0o602, 0o666, 0o664] {
            write(&path, WITH_HOOKS, mode);
            let failure = load(&path).unwrap_err();
            assert!(
                failure.cause.unwrap().contains("lets others write") && failure.next.unwrap().to_string().contains("chmod"),
                "{mode:o}"
            );
            write(&path, "stores: {}\n", mode);
            assert!(load(&path).is_ok(), "without commands nobody is harmed");
        }
        for mode in [0o600, 0o644, 0o640] {
            write(&path, WITH_HOOKS, mode);
            assert!(load(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn the_file_of_another_user_is_refused() {
        // Only root can give a file away.
        if !rustix::process::geteuid().is_root() {
            assert_eq!(parse(WITH_HOOKS).unwrap().names_commands(), Some("hooks"));
            return;
        }
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("lifeboat.yaml");
        write(&path, WITH_HOOKS, 0o600);
        std::os::unix::fs::chown(&path, Some(4321), None).unwrap();
        let failure = load(&path).unwrap_err();
        assert!(failure.cause.unwrap().contains("user 4321"));
        // A link to it is no better.
        let link = dir.path().join("link.yaml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(load(&link).is_err());
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        assert!(load(&link).is_ok());
    }

    #[test]
    fn where_commands_hide() {
        for (text, what) in [
            ("stores: {}", None),
            ("defaults: {hooks: {}}", None),
            ("clusters: {prod: {kubeadm: {}, hooks: {finally: [{command: [/bin/true]}]}}}", Some("hooks")),
            ("notify: [{exec: {command: [/bin/true]}}]", Some("notify.exec")),
            ("notify: [{ping: {url_file: /x}}]", None),
            ("clusters: {prod: {kubeadm: {}, drill: {every: 30d, identity_command: [/bin/true]}}}", Some("commands of drill")),
            ("defaults: {drill: {every: 30d, etcd: /usr/local/bin/etcd}}", Some("commands of drill")),
        ] {
            assert_eq!(parse(text).unwrap().names_commands(), what, "{text}");
        }
    }
}
