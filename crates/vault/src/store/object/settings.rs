//! A credentials file: lines `KEY=VALUE` as for a shell or systemd, or the cloud's own file with one section `[default]`.

/// Reads the lines of such a file; names come in upper case, each in `known`. Errors name the line, never its content.
pub(in super::super) fn parse<'a>(text: &'a str, known: &[&'static str]) -> Result<Vec<(&'static str, &'a str)>, String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) || line == "[default]" {
            continue;
        }
        if line.starts_with('[') {
            return Err(format!("line {number}: only the section [default] is read"));
        }
        let Some((name, value)) = line.strip_prefix("export ").unwrap_or(line).split_once('=') else {
            return Err(format!("line {number}: not KEY=VALUE"));
        };
        let value = unquote(value.trim()).ok_or_else(|| format!("line {number}: a quote is not closed"))?;
        // It may become a header, where such bytes cannot stand.
        if value.chars().any(char::is_control) {
            return Err(format!("line {number}: a control character"));
        }
        let name = name.trim().to_ascii_uppercase();
        match known.iter().find(|known| **known == name) {
            Some(name) => found.push((*name, value)),
            None if is_name(&name) => return Err(format!("line {number}: {name} is not known here")),
            None => return Err(format!("line {number}: not KEY=VALUE")),
        }
    }
    Ok(found)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

fn unquote(value: &str) -> Option<&str> {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].strip_suffix(quote),
        _ => Some(value),
    }
}
