//! What a release is made of: a CycloneDX document of every crate that is compiled into the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::output;
use crate::workspace;

/// A crate by name and version.
type Id = (String, String);

/// The document for one target; it holds no time and no random number, so the same sources make the same one.
pub(super) fn of(target: &str, version: &str) -> Result<String> {
    let cargo = || {
        let mut command = Command::new(workspace::cargo());
        command.current_dir(workspace::root());
        command
    };
    // What is linked: `metadata` alone would add what other members of the workspace ask of the same crates.
    let tree = output(
        cargo().args(["tree", "--locked", "-p", "lifeboat", "-e", "normal", "--prefix", "none", "--format", "{p}", "--target", target]),
    )?;
    let metadata = output(cargo().args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target]))?;
    let metadata = serde_json::from_str(&metadata).context("cargo metadata speaks no JSON")?;
    let lock = std::fs::read_to_string(workspace::root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let document = document(&linked(&tree), &metadata, &checksums(&lock), version);
    Ok(serde_json::to_string_pretty(&document).context("cannot encode the bill of materials")? + "\n")
}

/// The crates that `cargo tree` lists as `name vVERSION …`.
fn linked(tree: &str) -> BTreeSet<Id> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    tree.lines().filter_map(line).collect()
}

/// The SHA-256 of each crate that comes from a registry.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let field = |package: &str, name: &str| {
        let start = format!("{name} = \"");
        package.lines().find_map(|line| Some(line.strip_prefix(&start)?.strip_suffix('"')?.to_owned()))
    };
    let packages = lock.split("[[package]]").skip(1);
    packages.filter_map(|package| Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))).collect()
}

fn purl((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn document(linked: &BTreeSet<Id>, metadata: &Value, checksums: &BTreeMap<Id, String>, version: &str) -> Value {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut ids: BTreeMap<String, Id> = BTreeMap::new();
    let mut components = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let id = (text(&package["name"]), text(&package["version"]));
        if !linked.contains(&id) {
            continue;
        }
        ids.insert(text(&package["id"]), id.clone());
        if id.0 != "lifeboat" {
            components.insert(id.clone(), component(&id, "library", &package, checksums));
        }
    }
    let root: Id = ("lifeboat".to_owned(), version.to_owned());
    let mut dependencies = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let Some(id) = ids.get(&text(&node["id"])) else { continue };
        let normal = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let on: BTreeSet<String> =
            list(&node["deps"]).iter().filter(normal).filter_map(|dependency| Some(purl(ids.get(&text(&dependency["pkg"]))?))).collect();
        dependencies.insert(purl(id), json!({"ref": purl(id), "dependsOn": on}));
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(&root, "application", &json!({"license": "Apache-2.0"}), checksums)},
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies.into_values().collect::<Vec<_>>(),
    })
}

fn component(id: &Id, kind: &str, package: &Value, checksums: &BTreeMap<Id, String>) -> Value {
    let mut component = json!({"type": kind, "bom-ref": purl(id), "name": id.0, "version": id.1, "purl": purl(id)});
    if let Some(licence) = package["license"].as_str() {
        // Old crates write a slash where SPDX has OR.
        component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    if let Some(checksum) = checksums.get(id) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

/// Writes it where it belongs, and says its name.
pub(super) fn write(target: &str, version: &str, dir: &Path) -> Result<String> {
    let name = format!("lifeboat-{version}-{target}.cdx.json");
    let path = dir.join(&name);
    std::fs::write(&path, of(target, version)?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_linked_is_listed_with_licence_checksum_and_dependencies() {
        let tree = "lifeboat v0.1.0 (/src/crates/cli)\nalpha v1.2.3\nbeta v0.1.0+zstd.1 (*)\n\nalpha v1.2.3 (*)\n";
        let lock = "version = 4\n\n[[package]]\nname = \"alpha\"\nversion = \"1.2.3\"\nsource = \"x\"\nchecksum = \"abcd\"\n\n[[package]]\nname = \"lifeboat\"\nversion = \"0.1.0\"\n";
        let metadata = json!({
            "packages": [
                {"id": "l", "name": "lifeboat", "version": "0.1.0", "license": "Apache-2.0"},
                {"id": "a", "name": "alpha", "version": "1.2.3", "license": "MIT/Apache-2.0"},
                {"id": "b", "name": "beta", "version": "0.1.0+zstd.1", "license": null},
                {"id": "c", "name": "only-in-tests", "version": "9.0.0", "license": "MIT"},
            ],
            "resolve": {"nodes": [
                {"id": "l", "deps": [{"pkg": "a", "dep_kinds": [{"kind": null}]}, {"pkg": "b", "dep_kinds": [{"kind": "build"}]}, {"pkg": "c", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": "build"}, {"kind": null}]}]},
                {"id": "b", "deps": []},
                {"id": "c", "deps": []},
            ]},
        });
        let made = document(&linked(tree), &metadata, &checksums(lock), "0.1.0");
        let components = made["components"].as_array().unwrap();
        assert_eq!(components.len(), 2, "{made:#}");
        assert_eq!(
            components[0],
            json!({"type": "library", "bom-ref": "pkg:cargo/alpha@1.2.3", "name": "alpha", "version": "1.2.3", "purl": "pkg:cargo/alpha@1.2.3",
                "licenses": [{"expression": "MIT OR Apache-2.0"}], "hashes": [{"alg": "SHA-256", "content": "abcd"}]})
        );
        assert_eq!(components[1]["purl"], "pkg:cargo/beta@0.1.0%2Bzstd.1");
        assert!(components[1]["licenses"].is_null() && components[1]["hashes"].is_null());
        assert_eq!(made["metadata"]["component"]["purl"], "pkg:cargo/lifeboat@0.1.0");
        let depends = |name: &str| {
            let all = made["dependencies"].as_array().unwrap();
            all.iter().find(|one| one["ref"].as_str().unwrap().starts_with(&format!("pkg:cargo/{name}@"))).unwrap()["dependsOn"].clone()
        };
        assert_eq!((depends("lifeboat"), depends("alpha")), (json!(["pkg:cargo/alpha@1.2.3"]), json!(["pkg:cargo/beta@0.1.0%2Bzstd.1"])));
    }

    #[test]
    fn every_crate_of_the_release_is_in_it_with_its_checksum() {
        let target = "x86_64-unknown-linux-musl";
        let made: Value = match of(target, env!("CARGO_PKG_VERSION")) {
            Ok(text) => serde_json::from_str(&text).unwrap(),
            Err(error) => {
                println!("SKIPPED: bill of materials of the release: {error:#}");
                return;
            }
        };
        let components = made["components"].as_array().unwrap();
        let find = |name: &str| components.iter().find(|component| component["name"] == name);
        assert!(components.len() > 100 && find("ring").is_some() && find("engine").is_some(), "{}", components.len());
        assert!(find("proptest").is_none() && find("talos-double").is_none(), "what only tests use is no part of a release");
        assert!(components.iter().all(|component| component["licenses"].is_array()));
        assert_eq!(find("ring").unwrap()["hashes"][0]["content"].as_str().unwrap().len(), 64);
    }
}
