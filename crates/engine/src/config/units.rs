//! Numbers with units, as people write them.

use crate::failure::{Failure, Outcome};

/// A duration as people write it: `2s`, `1m30s`, `250ms`.
pub fn duration(text: &str) -> Outcome<std::time::Duration> {
    let span: Result<jiff::SignedDuration, _> = text.parse();
    span.ok().and_then(|span| std::time::Duration::try_from(span).ok()).ok_or_else(|| {
        Failure::usage(format!("'{text}' is not a duration")).cause("a number with a unit is expected, such as 2s, 90s or 5m")
    })
}

/// A number of bytes as people write it: `0`, `512MiB`, `2GiB`, `1GB`.
pub fn bytes(text: &str) -> Outcome<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "t" | "tib" => Some(1 << 40),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        _ => None,
    };
    number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor)).ok_or_else(|| {
        Failure::usage(format!("'{text}' is not a number of bytes")).cause("a whole number is expected, with a unit such as MiB or GiB")
    })
}

/// A span of time as people write it, days and more included: `36h`, `30d`, `1y 6mo`. Always more than none.
///
/// # Errors
/// A usage failure for what is none, and for none or less.
pub fn span(text: &str) -> Outcome<jiff::Span> {
    let wrong = || Failure::usage(format!("'{text}' is not a span of time")).cause("a number with a unit is expected, such as 36h, 30d, 2w or 1y");
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    if span.signum() <= 0 { Err(wrong()) } else { Ok(span) }
}

/// A share of a whole, as people write it: `30%` is 0.3. Growth may be above 100 %.
///
/// # Errors
/// A usage failure for what is none.
pub fn share(text: &str) -> Outcome<f64> {
    let number: Option<f64> = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    number.filter(|number| (0.0..=100_000.0).contains(number)).map(|number| number / 100.0).ok_or_else(|| {
        Failure::usage(format!("'{text}' is not a share")).cause("a number with a percent sign is expected, such as 30%")
    })
}
