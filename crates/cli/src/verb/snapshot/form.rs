//! The forms in which etcd's own tools print one row of facts.

use engine::{Failure, Outcome};
use serde::Serialize;

use crate::output::{self, Format};

/// Whose output is meant where versions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Compat {
    /// No version; all keys of all buckets.
    #[value(name = "3.5")]
    V3_5,
    /// The storage version; live keys.
    #[value(name = "3.6")]
    V3_6,
    /// As 3.6, with tables drawn in lines.
    #[value(name = "3.7")]
    V3_7,
}

/// One object, its fields in their order, as JSON or YAML.
pub(super) fn structured(format: Format, value: &impl Serialize) -> Outcome<String> {
    let cannot = |error: serde_json::Error| Failure::failed(format!("the report cannot be written as JSON: {error}"));
    if format == Format::Yaml {
        return Ok(output::yaml(&serde_json::to_value(value).map_err(cannot)?));
    }
    Ok(format!("{}\n", serde_json::to_string(value).map_err(cannot)?))
}

/// etcdutl's `"Name" : value` lines.
pub(super) fn fields(lines: &[(&str, Option<&str>)]) -> String {
    lines.iter().filter_map(|(name, value)| value.map(|value| format!("\"{name}\" : {value}\n"))).collect()
}

/// etcdutl's line or table of one row.
pub(super) fn row_text(format: Format, compat: Compat, header: &[&str], row: &[String]) -> String {
    if format == Format::Simple {
        return format!("{}\n", row.join(", "));
    }
    let widths: Vec<usize> = header.iter().zip(row).map(|(name, cell)| name.len().max(cell.chars().count())).collect();
    let (across, down, [top, middle, bottom]) = match compat {
        Compat::V3_7 => ("─", "│", [["┌", "┬", "┐"], ["├", "┼", "┤"], ["└", "┴", "┘"]]),
        _ => ("-", "|", [["+", "+", "+"]; 3]),
    };
    let rule = |[left, cross, right]: [&str; 3]| {
        let parts: Vec<String> = widths.iter().map(|width| across.repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(cross))
    };
    let line = |cells: Vec<String>| format!("{down} {} {down}\n", cells.join(&format!(" {down} ")));
    let names = header.iter().zip(&widths).map(|(name, &width)| {
        let gap = width - name.len();
        format!("{}{}{}", " ".repeat(gap / 2), name.to_uppercase(), " ".repeat(gap - gap / 2))
    });
    let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
    [rule(top), line(names.collect()), rule(middle), line(cells.collect()), rule(bottom)].concat()
}

/// Bytes as etcd's tools write them: decimal units, one digit after the point below ten.
///
/// Source: the Go package `humanize`, function `Bytes`.
pub(super) fn decimal_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut unit, mut scale) = (0, 1_u64);
    while unit + 1 < UNITS.len() && bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    let value = (bytes as f64 / scale as f64 * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_go_package() {
        for (bytes, expected) in [
            (0, "0 B"),
            (9, "9 B"),
            (82, "82 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (8192, "8.2 kB"),
            (20480, "20 kB"),
            (999_950, "1000 kB"),
            (1_384_820_736, "1.4 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(decimal_size(bytes), expected, "{bytes}");
        }
    }
}
