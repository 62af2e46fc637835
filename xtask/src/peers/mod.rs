//! `cargo xtask peers`: the real programs that tests and benchmarks run against.
//!
//! Each peer has a directory below `target/peers/` with its binaries and a stamp that says from what they were made; while the stamp fits, nothing
//! is fetched. `target/peers/peers.json` maps program names (`etcd-3.6`, `etcdutl-3.6`, `age` ...) to `{version, path, how}` and, under `missing`,
//! peers that could not be had to the reason. A peer that cannot be had is one line of the report, not an error: callers decide what they require.

mod apt;
mod catalog;
mod golang;
mod npm;
mod pip;
pub(crate) mod report;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{find_on_path, is_executable, output};
use crate::workspace;
use catalog::{Recipe, VersionOf, Way};

/// A program of a peer, ready to run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Name in `peers.json`, e.g. `etcdctl-3.6`.
    pub(crate) name: String,
    /// What it says when asked for its version.
    pub(crate) version: String,
    pub(crate) path: PathBuf,
    /// Where it came from, for people.
    pub(crate) how: String,
    /// How long it took to get (shared by the programs of one peer).
    pub(crate) took: Duration,
}

/// A peer that could not be had.
#[derive(Debug, Clone)]
pub(crate) struct Missing {
    pub(crate) name: String,
    /// Every way that was tried and why it failed, on one line.
    pub(crate) why: String,
}

/// What `obtain` came back with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers {
    pub(crate) programs: Vec<Program>,
    pub(crate) missing: Vec<Missing>,
}

impl Peers {
    /// The path of a program by its name in `peers.json`.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.programs.iter().find(|program| program.name == name).map(|program| program.path.as_path())
    }
}

/// The `peers` subcommand.
pub(crate) fn command() -> Result<ExitCode> {
    let peers = obtain(&|line| println!("{line}"))?;
    println!("{}", report::table(&peers));
    println!("written: {}", workspace::peers_json().display());
    Ok(ExitCode::SUCCESS)
}

/// Gets every peer that can be had and writes `peers.json`. `say` receives a line when something slow begins.
pub(crate) fn obtain(say: &dyn Fn(&str)) -> Result<Peers> {
    obtain_some(|_| true, &workspace::peers_json(), say)
}

/// Gets those peers whose name `wanted` takes, and writes what there is to `json`.
pub(crate) fn obtain_some(wanted: impl Fn(&str) -> bool, json: &Path, say: &dyn Fn(&str)) -> Result<Peers> {
    let dir = workspace::peers_dir();
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _lock = exclusive(&dir, say)?;
    let mut peers = Peers::default();
    for recipe in catalog::recipes().into_iter().filter(|recipe| wanted(recipe.name)) {
        let begun = Instant::now();
        match one(&recipe, &dir, say) {
            Ok(found) => peers.programs.extend(found.into_iter().map(|program| Program { took: begun.elapsed(), ..program })),
            Err(why) => peers.missing.push(Missing { name: recipe.name.to_owned(), why: format!("{why:#}").replace('\n', " ") }),
        }
    }
    report::write_json(&peers, json)?;
    Ok(peers)
}

/// Unpacks packages of the distribution below `root/` in `dir`, without installing them.
pub(crate) fn unpack_debian(packages: &'static [&'static str], dir: &Path) -> Result<()> {
    apt::install(&catalog::Debian { packages, version_prefix: None, files: &[] }, dir, dir)
}

/// Installs what `xtask/peers/<recipe>/requirements.txt` pins into `dir`, out of the way of the machine's own Python.
pub(crate) fn install_python(recipe: &str, dir: &Path) -> Result<()> {
    let requirements = workspace::root().join("xtask/peers").join(recipe).join("requirements.txt");
    pip::install(&["-r".to_owned(), requirements.display().to_string()], dir)
}

/// Held while peers are fetched: two runs on one checkout would build the same thing twice and race for the directories.
fn exclusive(dir: &Path, say: &dyn Fn(&str)) -> Result<std::fs::File> {
    let path = dir.join(".lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        say("another xtask is fetching peers; waiting for it");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

fn one(recipe: &Recipe, peers_dir: &Path, say: &dyn Fn(&str)) -> Result<Vec<Program>> {
    let dir = peers_dir.join(recipe.name);
    for way in &recipe.ways {
        if stamped(&dir, way)? && complete(recipe, &dir) {
            return programs(recipe, &dir, &format!("{} (cached)", way.describe()));
        }
    }
    let mut failures = Vec::new();
    for way in &recipe.ways {
        let attempt = match way {
            Way::OnPath => on_path(recipe),
            _ => fetch(recipe, way, &dir, say),
        };
        match attempt {
            Ok(found) => return Ok(found),
            Err(error) => failures.push(format!("{}: {error:#}", way.describe())),
        }
    }
    bail!("{}", failures.join("; "))
}

/// Builds into a fresh directory and moves it into place whole, so that an interrupted run leaves no half peer behind.
fn fetch(recipe: &Recipe, way: &Way, dir: &Path, say: &dyn Fn(&str)) -> Result<Vec<Program>> {
    let work = dir.with_extension("new");
    if work.exists() {
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    say(&format!("{}: {}", recipe.name, way.describe()));
    match way {
        Way::OnPath => bail!("nothing to fetch"),
        Way::Debian(debian) => apt::install(debian, &work, dir)?,
        Way::GoModule(module) => golang::build(module, &work, say)?,
        Way::Python(python) => pip::install_program(python, &work, dir)?,
        Way::Npm(npm) => npm::install_program(npm, &work, dir, say)?,
    }
    std::fs::write(work.join("stamp"), way.stamp()?).context("cannot write the stamp")?;
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    std::fs::rename(&work, dir).with_context(|| format!("cannot move {} into place", work.display()))?;
    programs(recipe, dir, &way.describe())
}

fn on_path(recipe: &Recipe) -> Result<Vec<Program>> {
    recipe
        .programs
        .iter()
        .map(|program| {
            let path = find_on_path(program.file).with_context(|| format!("no {} there", program.file))?;
            describe(program, path, "found on PATH")
        })
        .collect()
}

fn programs(recipe: &Recipe, dir: &Path, how: &str) -> Result<Vec<Program>> {
    recipe
        .programs
        .iter()
        .filter(|program| !program.optional || dir.join(program.file).exists())
        .map(|program| describe(program, dir.join(program.file), how))
        .collect()
}

fn describe(program: &catalog::Program, path: PathBuf, how: &str) -> Result<Program> {
    let ask = |arguments: &[&str]| output(Command::new(&path).args(arguments).env("ETCDCTL_API", "3"));
    let version = match program.version {
        VersionOf::Pinned(version) => version.to_owned(),
        VersionOf::SaysOrPinned(arguments, pinned) => version_in(&ask(arguments)?).unwrap_or_else(|| pinned.to_owned()),
        VersionOf::Says(arguments) => {
            let said = ask(arguments)?;
            version_in(&said).with_context(|| format!("{} does not say its version: {said:?}", path.display()))?
        }
    };
    if let Some(wanted) = program.version_prefix
        && !version.starts_with(wanted)
    {
        bail!("{} is version {version}, wanted {wanted}x", path.display());
    }
    Ok(Program { name: program.name.to_owned(), version, path, how: how.to_owned(), took: Duration::ZERO })
}

fn stamped(dir: &Path, way: &Way) -> Result<bool> {
    match std::fs::read_to_string(dir.join("stamp")) {
        Ok(stamp) => Ok(stamp == way.stamp()?),
        Err(_) => Ok(false),
    }
}

fn complete(recipe: &Recipe, dir: &Path) -> bool {
    recipe.programs.iter().all(|program| program.optional || is_executable(&dir.join(program.file)))
}

/// The first thing that looks like a version: digits with at least one dot between them, an optional `v` before.
fn version_in(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')'))
        .map(|word| word.strip_prefix('v').unwrap_or(word))
        .find(|word| {
            word.starts_with(|c: char| c.is_ascii_digit())
                && word.contains('.')
                && word.split('.').all(|part| part.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("etcd Version: 3.6.14\nGit SHA: x\n", "3.6.14"),
            ("etcdctl version: 3.4.23\nAPI version: 3.4\n", "3.4.23"),
            ("*** zstd command line interface 64-bits v1.5.4, by Yann Collet ***", "1.5.4"),
            ("minisign 0.11", "0.11"),
            ("v1.3.2\n", "1.3.2"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version), "{said}");
        }
        assert_eq!(version_in("(devel)"), None);
        assert_eq!(version_in("promtool, version  (branch: , revision: unknown)\n  go version:       go1.26.8\n"), None);
    }
}
