//! Cron's five fields as calendar events of systemd (`systemd.time(7)`).

/// What systemd's calendar cannot say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' has no like among systemd's calendar events")]
pub struct NoCalendar(pub String);

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// The calendar events that together are this line of cron: two where both the day of the month and the day of the week are restricted, for then either
/// is enough for cron.
///
/// # Errors
/// [`NoCalendar`] for signs that only some crons know (`L`, `W`, `#`, `?`).
pub fn on_calendar(cron: &str, zone: Option<&str>) -> Result<Vec<String>, NoCalendar> {
    let wrong = || NoCalendar(cron.to_owned());
    let cron = match cron.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other => other,
    };
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let &[minute, hour, day, month, weekday] = fields.as_slice() else { return Err(wrong()) };
    let time = format!("{}:{}:00", field(hour, 0, numeric).ok_or_else(wrong)?, field(minute, 0, numeric).ok_or_else(wrong)?);
    let month =
        field(month, 1, |text| numeric(text).or_else(|| position(&MONTHS, text).map(|at| (at + 1).to_string()))).ok_or_else(wrong)?;
    let zone = zone.map(|zone| format!(" {zone}")).unwrap_or_default();
    let on = |weekday: &str, day: &str| {
        let weekday = if weekday.is_empty() { String::new() } else { format!("{weekday} ") };
        format!("{weekday}*-{month}-{day} {time}{zone}")
    };
    let days = field(day, 1, numeric).ok_or_else(wrong)?;
    if weekday == "*" {
        return Ok(vec![on("", &days)]);
    }
    let weekdays = weekdays(weekday).ok_or_else(wrong)?;
    Ok(if day == "*" { vec![on(&weekdays, "*")] } else { vec![on("", &days), on(&weekdays, "*")] })
}

/// One field: `*`, numbers, ranges, steps, and lists of these. `first` is where `*/n` begins.
fn field(text: &str, first: u32, number: impl Fn(&str) -> Option<String>) -> Option<String> {
    let part = |part: &str| {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step = step.map(numeric);
        if step == Some(None) {
            return None;
        }
        let step = step.flatten();
        let range = match (range, range.split_once('-')) {
            ("*", _) if step.is_some() => first.to_string(),
            ("*", _) => "*".to_owned(),
            (_, Some((from, to))) => format!("{}..{}", number(from)?, number(to)?),
            (one, None) => number(one)?,
        };
        Some(step.map_or_else(|| range.clone(), |step| format!("{range}/{step}")))
    };
    text.split(',').map(part).collect::<Option<Vec<String>>>().map(|parts| parts.join(","))
}

fn numeric(text: &str) -> Option<String> {
    text.parse::<u8>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())).map(|number| number.to_string())
}

fn position(names: &[&str], text: &str) -> Option<usize> {
    names.iter().position(|name| name.eq_ignore_ascii_case(text))
}

/// Days of the week, by name: each one for itself, for cron's steps and its Sunday at both ends have no like.
fn weekdays(text: &str) -> Option<String> {
    let mut chosen = [false; 7];
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, "1"), |(range, step)| (range, step));
        let step: usize = numeric(step)?.parse().ok().filter(|step| *step > 0)?;
        let day = |text: &str| position(&DAYS, text).or_else(|| numeric(text)?.parse().ok()).filter(|day: &usize| *day <= 7);
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (0, 6),
            (_, Some((from, to))) => (day(from)?, day(to)?),
            (one, None) => (day(one)?, day(one)?),
        };
        for at in (from..=to).step_by(step) {
            chosen[at % 7] = true;
        }
    }
    let names: Vec<&str> = DAYS.iter().zip(chosen).filter_map(|(name, is_chosen)| is_chosen.then_some(*name)).collect();
    if names.is_empty() { None } else { Some(names.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cron_as_calendar_events() {
        for (cron, events) in [
            ("0 */6 * * *", vec!["*-*-* 0/6:0:00"]),
            ("30 2 * * *", vec!["*-*-* 2:30:00"]),
            ("*/15 8-18 * * 1-5", vec!["Mon,Tue,Wed,Thu,Fri *-*-* 8..18:0/15:00"]),
            ("0 3 1,15 jan-mar *", vec!["*-1..3-1,15 3:0:00"]),
            ("0 3 1 * 0,7", vec!["*-*-1 3:0:00", "Sun *-*-* 3:0:00"]),
            ("@weekly", vec!["Sun *-*-* 0:0:00"]),
        ] {
            assert_eq!(on_calendar(cron, None).unwrap(), events, "{cron}");
        }
        assert_eq!(on_calendar("0 0 * * *", Some("Europe/Berlin")).unwrap(), ["*-*-* 0:0:00 Europe/Berlin"]);
        for odd in ["0 0 L * *", "0 0 15W * *", "0 0 * * 5#2", "0 0 * *", "a b c d e", "0 0 * * 6-1"] {
            assert!(on_calendar(odd, None).is_err(), "{odd}");
        }
    }
}
