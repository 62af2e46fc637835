//! What was obtained: as a table for people and as `peers.json` for tests.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::Peers;

/// The peers as aligned columns, then one line per missing one.
pub(crate) fn table(peers: &Peers) -> String {
    let mut rows = vec![["NAME", "VERSION", "SECONDS", "HOW", "PATH"].map(str::to_owned)];
    for program in &peers.programs {
        rows.push([
            program.name.clone(),
            program.version.clone(),
            format!("{:.1}", program.took.as_secs_f64()),
            program.how.clone(),
            program.path.display().to_string(),
        ]);
    }
    let mut text = align(&rows);
    for missing in &peers.missing {
        text.push_str(&format!("not available: {}: {}\n", missing.name, missing.why));
    }
    text
}

/// Pads all columns but the last.
pub(crate) fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Writes `peers.json` in one step, so that a test never reads half of it.
pub(super) fn write_json(peers: &Peers, path: &std::path::Path) -> Result<()> {
    let mut all = Map::new();
    for program in &peers.programs {
        all.insert(program.name.clone(), json!({"version": program.version, "path": program.path, "how": program.how}));
    }
    let missing: Map<String, Value> =
        peers.missing.iter().map(|missing| (missing.name.clone(), Value::from(missing.why.clone()))).collect();
    all.insert("missing".to_owned(), Value::Object(missing));
    let temporary = path.with_extension("json.new");
    let text = serde_json::to_string_pretty(&Value::Object(all)).context("cannot encode peers.json")?;
    std::fs::write(&temporary, text + "\n").with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}
