//! `RESTORE.txt`: the way out in plain words, at the root of every repository. It needs no Lifeboat.
//!
//! The text is the same in every repository of one release; what differs is in the manifests. It is written before the marker and never changed.

use crate::layers::Layers;

/// The pipeline that turns a data object into the snapshot file.
pub fn pipeline(layers: Layers) -> String {
    let object = layers.object_name();
    match (layers.age, layers.zstd) {
        (true, true) => format!("age -d -i key.txt {object} | zstd -d > snapshot.db"),
        (true, false) => format!("age -d -i key.txt -o snapshot.db {object}"),
        (false, true) => format!("zstd -d {object} -o snapshot.db"),
        (false, false) => format!("cp {object} snapshot.db"),
    }
}

const INTRODUCTION: &str = "\
This place holds backups of etcd, made by Lifeboat. This page says how to get one back WITHOUT Lifeboat.
(With it: `lifeboat restore --repo <this place> -i key.txt latest --data-dir <dir>`.)

You need: read access to this place; the private key (an age identity, \"AGE-SECRET-KEY-1...\", here key.txt), unless the names below end
without .age; the tools age, zstd and etcdutl (3.5 or later). All are free and packaged by most systems. minisign is optional.

1. CHOOSE A BACKUP

   <cluster>/snapshots/<id>/manifest.json     one directory per backup; <id> begins with the time in UTC

   Only a directory with a manifest.json is a whole backup. Leave out one whose manifest says \"hashkv\": {\"verdict\": \"disputed\" or \"failed\"},
   or \"source\": \"rescue\". Among backups with the same \"lineage\" the one with the highest \"revision\" is the newest; the lineage with the highest
   number in front is the newest history, unless its backups say \"unconfirmed\". Copy the whole directory to a disk:

      aws s3 cp --recursive s3://BUCKET/PREFIX/<cluster>/snapshots/<id>/ backup/      or mc, rclone, gsutil, azcopy, cp -r
      cd backup

2. CHECK IT (optional)

      sha256sum db*                           must be \"sha256\" of that object in manifest.json, under \"objects\"
      minisign -V -P <public key> -m manifest.json -x manifest.json.minisig
                                              the public key is in your recovery kit, never take it from here;
                                              the trusted comment must name this cluster and this <id>

3. OPEN IT. The name of the object says what is around it; take the line for the name you have:

";

const REST: &str = "
      sha256sum snapshot.db                   must be \"snapshot\": {\"file_sha256\"} in manifest.json

   A passphrase instead of a key: leave out \"-i key.txt\", age asks. Extras (machine configuration, certificates), one tar each:

      age -d -i key.txt extra/NAME.age | tar -xvf -

4. LOOK AT IT

      etcdutl snapshot status snapshot.db -w table

5. BRING IT BACK. Stop etcd and the API servers everywhere first, and move old data directories aside; do not delete them.

   kubeadm, systemd, plain etcd: on each member, with the same snapshot.db and the same list of members,

      etcdutl snapshot restore snapshot.db --data-dir /var/lib/etcd-restored \\
        --name NAME --initial-advertise-peer-urls https://ADDRESS:2380 \\
        --initial-cluster NAME1=https://ADDRESS1:2380,NAME2=https://ADDRESS2:2380,NAME3=https://ADDRESS3:2380 \\
        --initial-cluster-token TOKEN-OF-YOUR-CHOICE --bump-revision 1000000000 --mark-compacted

   The last two flags (etcdutl 3.5.10 and later) keep controllers of Kubernetes from missing that time went back; all members must
   get the same number. Without the sha256 trailer (\"file_size\" equal to \"db_size\" in the manifest) add --skip-hash-check. Then give the directory
   the owner etcd runs as, put it where etcd looks for it, and start etcd on all members at the same time, then the API servers.

   Talos Linux: with etcd of all control plane nodes wiped (in the state \"Preparing\"), on ONE of them,

      talosctl -n ADDRESS bootstrap --recover-from=./snapshot.db

   and with --recover-skip-hash-check where the snapshot has no trailer.

What all fields mean is written in docs/format.md of the Lifeboat sources.
";

/// The whole text.
pub fn text() -> String {
    let width = Layers::ALL.iter().map(|layers| layers.object_name().len()).max().unwrap_or_default();
    let mut text = INTRODUCTION.to_owned();
    for layers in Layers::ALL.iter().rev() {
        text.push_str(&format!("      {:width$}   {}\n", layers.object_name(), pipeline(*layers)));
    }
    text.push_str(REST);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_layers_has_its_command() {
        for layers in Layers::ALL {
            assert!(text().contains(&pipeline(layers)), "{layers}");
        }
        assert!(text().contains("age -d -i key.txt db.zst.age | zstd -d > snapshot.db"));
    }

    #[test]
    fn the_tools_of_the_promise_are_named() {
        for tool in ["etcdutl snapshot restore", "talosctl -n ADDRESS bootstrap --recover-from=", "minisign -V", "age -d -i key.txt extra/"]
        {
            assert!(text().contains(tool), "{tool}");
        }
    }

    #[test]
    fn it_reads_well_on_a_narrow_terminal_of_the_day() {
        assert!(text().lines().all(|line| line.len() <= 150 && line.trim_end() == line));
        assert!(text().is_ascii() && text().ends_with('\n'));
    }
}
