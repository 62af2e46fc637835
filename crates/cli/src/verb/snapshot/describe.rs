//! `lifeboat snapshot status` and `lifeboat snapshot hashkv`.

use std::path::PathBuf;

use engine::snapshot_file::{Status, Trailer};
use engine::{Code, Outcome};
use etcd_store::HashKv;
use etcd_store::id::Revision;
use serde::Serialize;

use super::form::{Compat, decimal_size, fields, row_text, structured};
use crate::args::GlobalArgs;
use crate::output::{self, Format};

#[derive(clap::Args, Debug)]
pub(super) struct StatusArgs {
    /// The snapshot file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print as this version of etcdutl does
    #[arg(long, value_name = "VERSION", value_enum, default_value = "3.6", env = "LIFEBOAT_COMPAT")]
    compat: Compat,
}

#[derive(clap::Args, Debug)]
pub(super) struct HashkvArgs {
    /// The snapshot file or database
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Highest revision to hash [default: the file's own]
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
    rev: i64,
    /// Print as this version of etcdutl does
    #[arg(long, value_name = "VERSION", value_enum, default_value = "3.6", env = "LIFEBOAT_COMPAT")]
    compat: Compat,
}

pub(super) fn status(global: &GlobalArgs, format: Format, args: &StatusArgs) -> Outcome<Code> {
    let status = engine::snapshot_file::status(&args.file)?;
    if status.trailer == Trailer::Absent && !global.quiet {
        output::say("note: the file has no SHA-256 trailer (copied from a data directory?); only its structure was checked");
    }
    output::print(&status_text(format, args.compat, &status)?);
    Ok(Code::Ok)
}

/// What etcdutl prints; JSON has both counts of keys beside it, under names that mean the same in every form.
fn status_text(format: Format, compat: Compat, status: &Status) -> Outcome<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Json<'a> {
        hash: u32,
        revision: i64,
        total_key: u64,
        total_size: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<&'a str>,
        total_key_live: u64,
        total_key_all_buckets: u64,
        trailer: &'static str,
    }
    let with_version = compat != Compat::V3_5;
    let total_key = if with_version { status.live_keys } else { status.all_bucket_keys };
    let version = with_version.then(|| status.version.as_deref().unwrap_or_default());
    match format {
        Format::Json | Format::Yaml => structured(
            format,
            &Json {
                hash: status.hash,
                revision: status.revision,
                total_key,
                total_size: status.total_size,
                version,
                total_key_live: status.live_keys,
                total_key_all_buckets: status.all_bucket_keys,
                trailer: match status.trailer {
                    Trailer::Matches => "match",
                    Trailer::Absent => "absent",
                    Trailer::Differs => "differs",
                },
            },
        ),
        Format::Fields => Ok(fields(&[
            ("Hash", Some(&status.hash.to_string())),
            ("Revision", Some(&status.revision.to_string())),
            ("Keys", Some(&total_key.to_string())),
            ("Size", Some(&status.total_size.to_string())),
            ("Version", version),
        ])),
        Format::Simple | Format::Table => {
            let mut header = vec!["hash", "revision", "total keys", "total size"];
            let mut row =
                vec![format!("{:x}", status.hash), status.revision.to_string(), total_key.to_string(), decimal_size(status.total_size)];
            if let Some(version) = version {
                header.push("version");
                row.push(version.to_owned());
            }
            Ok(row_text(format, compat, &header, &row))
        }
    }
}

pub(super) fn hashkv(format: Format, args: &HashkvArgs) -> Outcome<Code> {
    let hash = engine::snapshot_file::hash_kv(&args.file, Revision(args.rev))?;
    output::print(&hashkv_text(format, args.compat, &hash)?);
    Ok(Code::Ok)
}

/// At the file's own revision, as the newest etcdutl prints it.
pub(super) fn hashkv_of(format: Format, file: &std::path::Path) -> Outcome<Code> {
    hashkv(format, &HashkvArgs { file: file.to_owned(), rev: 0, compat: Compat::V3_6 })
}

fn hashkv_text(format: Format, compat: Compat, hash: &HashKv) -> Outcome<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Json {
        hash: u32,
        hash_revision: i64,
        compact_revision: i64,
    }
    let row = [hash.hash.to_string(), hash.revision.to_string(), hash.compact_revision.to_string()];
    match format {
        Format::Json | Format::Yaml => {
            structured(format, &Json { hash: hash.hash, hash_revision: hash.revision.0, compact_revision: hash.compact_revision })
        }
        Format::Fields => Ok(fields(&[("Hash", Some(&row[0])), ("Hash revision", Some(&row[1])), ("Compact revision", Some(&row[2]))])),
        Format::Simple | Format::Table => Ok(row_text(format, compat, &["hash", "hash revision", "compact revision"], &row)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn example(version: Option<&str>) -> Status {
        Status {
            hash: 0x8cb0_719e,
            revision: 5,
            live_keys: 2,
            all_bucket_keys: 11,
            total_size: 20480,
            version: version.map(str::to_owned),
            trailer: Trailer::Matches,
        }
    }

    fn text(format: Format, compat: Compat) -> String {
        status_text(format, compat, &example(Some("3.6.0"))).unwrap()
    }

    #[test]
    fn status_prints_as_etcdutl_3_6_does() {
        assert_eq!(text(Format::Simple, Compat::V3_6), "8cb0719e, 5, 2, 20 kB, 3.6.0\n");
        assert_eq!(
            text(Format::Table, Compat::V3_6),
            "+----------+----------+------------+------------+---------+\n\
             |   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE | VERSION |\n\
             +----------+----------+------------+------------+---------+\n\
             | 8cb0719e |        5 |          2 |      20 kB |   3.6.0 |\n\
             +----------+----------+------------+------------+---------+\n"
        );
        assert_eq!(
            text(Format::Fields, Compat::V3_6),
            "\"Hash\" : 2360373662\n\"Revision\" : 5\n\"Keys\" : 2\n\"Size\" : 20480\n\"Version\" : 3.6.0\n"
        );
        assert_eq!(
            text(Format::Json, Compat::V3_6),
            "{\"hash\":2360373662,\"revision\":5,\"totalKey\":2,\"totalSize\":20480,\"version\":\"3.6.0\",\
             \"totalKeyLive\":2,\"totalKeyAllBuckets\":11,\"trailer\":\"match\"}\n"
        );
    }

    #[test]
    fn status_prints_as_etcdutl_3_5_does() {
        assert_eq!(text(Format::Simple, Compat::V3_5), "8cb0719e, 5, 11, 20 kB\n");
        assert!(!text(Format::Table, Compat::V3_5).contains("VERSION"));
        assert_eq!(text(Format::Fields, Compat::V3_5), "\"Hash\" : 2360373662\n\"Revision\" : 5\n\"Keys\" : 11\n\"Size\" : 20480\n");
        assert!(
            text(Format::Json, Compat::V3_5)
                .starts_with("{\"hash\":2360373662,\"revision\":5,\"totalKey\":11,\"totalSize\":20480,\"totalKeyLive\":2")
        );
    }

    #[test]
    fn a_file_without_version_leaves_its_place_empty() {
        let status = example(None);
        assert_eq!(status_text(Format::Simple, Compat::V3_6, &status).unwrap(), "8cb0719e, 5, 2, 20 kB, \n");
        assert!(status_text(Format::Table, Compat::V3_6, &status).unwrap().contains("|      20 kB |         |\n"));
    }

    #[test]
    fn tables_of_3_7_are_drawn_in_lines() {
        let hash = HashKv { hash: 706_405_891, compact_revision: 4, revision: Revision(7) };
        assert_eq!(
            hashkv_text(Format::Table, Compat::V3_7, &hash).unwrap(),
            "┌───────────┬───────────────┬──────────────────┐\n\
             │   HASH    │ HASH REVISION │ COMPACT REVISION │\n\
             ├───────────┼───────────────┼──────────────────┤\n\
             │ 706405891 │             7 │                4 │\n\
             └───────────┴───────────────┴──────────────────┘\n"
        );
    }
}
