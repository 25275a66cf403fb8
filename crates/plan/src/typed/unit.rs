//! Durations as people write them: `500ms`, `2s`, `1m`, `1h`, `1d`.

/// Milliseconds of each unit, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Milliseconds, or None when it is no duration.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest way to write it.
pub(crate) fn duration_text(milliseconds: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| milliseconds >= *factor && milliseconds.is_multiple_of(*factor);
    match UNITS.iter().find(fits) {
        Some((name, factor)) => format!("{}{name}", milliseconds / factor),
        None => format!("{milliseconds}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_alike() {
        for (text, expect) in [("500ms", 500), ("2s", 2_000), ("1m", 60_000), ("1h", 3_600_000), ("0ms", 0)] {
            assert_eq!(duration_ms(text), Some(expect));
            assert_eq!(duration_text(expect), text);
        }
        for text in ["", "2", "s", "-1s", "1.5s", "2 weeks", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(duration_ms(text), None, "{text}");
        }
    }
}
