//! What a release holds beside the program: licence, manual, documentation, completions, unit, rules, dashboard, an example of a configuration.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::{Entry, gz};
use crate::process::output;
use crate::workspace;

/// Where the unit expects the configuration.
const CONFIG: &str = "/etc/lifeboat/lifeboat.yaml";
/// What is taken from `deploy/`, to the path below.
const DEPLOY: &[&str] = &["lifeboat.example.yaml", "prometheus/lifeboat.rules.yaml", "grafana/lifeboat.json", "container/Containerfile"];
/// Shells, and where a Debian package puts the completions for each.
const SHELLS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/lifeboat"),
    ("zsh", "usr/share/zsh/vendor-completions/_lifeboat"),
    ("fish", "usr/share/fish/vendor_completions.d/lifeboat.fish"),
];

/// All of it, the same for every processor.
#[derive(Debug)]
pub(super) struct Payload {
    /// `README.md`, `docs/…`, at their paths in the checkout, so that links between them hold.
    documents: Vec<Entry>,
    deploy: Vec<Entry>,
    licence: Vec<u8>,
    /// Pages by file name.
    manual: Vec<Entry>,
    /// By shell.
    completions: Vec<(&'static str, &'static str, String)>,
    unit: String,
}

impl Payload {
    /// Gathers it; `lifeboat` is a program that runs here, which prints what it knows best itself. `work` is a directory to write to.
    pub(super) fn gather(lifeboat: &Path, work: &Path) -> Result<Self> {
        let root = workspace::root();
        let mut documents = Vec::new();
        for name in ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
            documents.push(Entry::file(name, read(&root.join(name))?));
        }
        markdown(&root.join("docs"), "docs", &mut documents)?;
        let deploy = DEPLOY.iter().map(|name| Ok(Entry::file(format!("deploy/{name}"), read(&root.join("deploy").join(name))?)));
        let pages = work.join("man");
        output(Command::new(lifeboat).args(["man", "--out-dir"]).arg(&pages))?;
        let mut manual = Vec::new();
        for (name, path) in files(&pages)? {
            manual.push(Entry::file(name, read(&path)?));
        }
        let completions =
            SHELLS.iter().map(|(shell, place)| Ok((*shell, *place, output(Command::new(lifeboat).args(["completions", shell]))?)));
        Ok(Self {
            documents,
            deploy: deploy.collect::<Result<_>>()?,
            licence: read(&root.join("LICENSE"))?,
            manual,
            completions: completions.collect::<Result<_>>()?,
            unit: unit(lifeboat, &root.join("deploy/lifeboat.example.yaml"))?,
        })
    }

    /// The files of the archive for any Linux.
    pub(super) fn of_archive(&self, program: &[u8]) -> Vec<Entry> {
        let mut all = vec![Entry::program("lifeboat", program), Entry::file("LICENSE", self.licence.clone())];
        all.extend(self.documents.iter().chain(&self.deploy).cloned());
        all.extend(self.manual.iter().map(|page| Entry { path: format!("man/{}", page.path), ..page.clone() }));
        all.extend(self.completions.iter().map(|(shell, _, text)| Entry::file(format!("completions/lifeboat.{shell}"), text.as_bytes())));
        all.push(Entry::file("systemd/lifeboat-agent.service", self.unit.as_bytes()));
        all
    }

    /// The files of the Debian package, from `/`. The unit is there and not enabled: it needs a configuration first.
    pub(super) fn of_package(&self, program: &[u8]) -> Result<Vec<Entry>> {
        const DOC: &str = "usr/share/doc/lifeboat";
        let mut all = vec![
            Entry::program("usr/bin/lifeboat", program),
            Entry::file("usr/lib/systemd/system/lifeboat-agent.service", self.unit.as_bytes()),
            Entry::file(format!("{DOC}/copyright"), self.licence.clone()),
        ];
        all.extend(self.documents.iter().map(|entry| Entry { path: format!("{DOC}/{}", entry.path), ..entry.clone() }));
        all.extend(self.deploy.iter().map(|entry| Entry { path: format!("{DOC}/{}", entry.path), ..entry.clone() }));
        for page in &self.manual {
            let section = page.path.rsplit('.').next().unwrap_or("1");
            all.push(Entry::file(format!("usr/share/man/man{section}/{}.gz", page.path), gz(&page.bytes)?));
        }
        all.extend(self.completions.iter().map(|(_, place, text)| Entry::file(*place, text.as_bytes())));
        Ok(all)
    }
}

/// The unit of the agent as `lifeboat schedule` prints it for the example, without the lines that are for people.
fn unit(lifeboat: &Path, example: &Path) -> Result<String> {
    let mut command = Command::new(lifeboat);
    command.args(["schedule", "agent", "--program", "/usr/bin/lifeboat", "--config"]).arg(example).env_remove("LIFEBOAT_CONFIG");
    let printed = output(&mut command)?;
    Ok(stripped(&printed).replace(&example.display().to_string(), CONFIG))
}

/// A unit without the path above it and the commands below it.
fn stripped(printed: &str) -> String {
    let lines = printed.lines().filter(|line| !line.starts_with("# /") && !line.starts_with("# then: "));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    text.trim().to_owned() + "\n"
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The entries of a directory by name.
fn files(dir: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        all.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    all.sort();
    Ok(all)
}

fn markdown(dir: &Path, prefix: &str, into: &mut Vec<Entry>) -> Result<()> {
    for (name, path) in files(dir)? {
        let inside = format!("{prefix}/{name}");
        if path.is_dir() {
            markdown(&path, &inside, into)?;
        } else if name.ends_with(".md") {
            into.push(Entry::file(inside, read(&path)?));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_unit_is_what_systemd_reads_and_nothing_more() {
        let printed = "# /etc/systemd/system/x.service\n# Made by `lifeboat schedule agent`.\n[Unit]\nA=b\n\n[Install]\nC=d\n\n# then: systemctl daemon-reload\n";
        assert_eq!(stripped(printed), "# Made by `lifeboat schedule agent`.\n[Unit]\nA=b\n\n[Install]\nC=d\n");
    }

    #[test]
    fn every_file_has_its_place_in_archive_and_package() {
        let payload = Payload {
            documents: vec![Entry::file("docs/format.md", "x")],
            deploy: vec![Entry::file("deploy/lifeboat.example.yaml", "y")],
            licence: b"z".to_vec(),
            manual: vec![Entry::file("lifeboat-backup.1", "page")],
            completions: vec![("bash", "usr/share/bash-completion/completions/lifeboat", "complete".to_owned())],
            unit: "[Unit]\n".to_owned(),
        };
        let paths = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>();
        assert_eq!(
            paths(payload.of_archive(b"elf")),
            [
                "lifeboat",
                "LICENSE",
                "docs/format.md",
                "deploy/lifeboat.example.yaml",
                "man/lifeboat-backup.1",
                "completions/lifeboat.bash",
                "systemd/lifeboat-agent.service"
            ]
        );
        assert_eq!(
            paths(payload.of_package(b"elf").unwrap()),
            [
                "usr/bin/lifeboat",
                "usr/lib/systemd/system/lifeboat-agent.service",
                "usr/share/doc/lifeboat/copyright",
                "usr/share/doc/lifeboat/docs/format.md",
                "usr/share/doc/lifeboat/deploy/lifeboat.example.yaml",
                "usr/share/man/man1/lifeboat-backup.1.gz",
                "usr/share/bash-completion/completions/lifeboat",
            ]
        );
    }
}
