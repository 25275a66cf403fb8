//! Durations and sizes as people write them: `500ms`, `2s`, `1m`, `1h`, `1d`; `512B`, `64KiB`, `10MB`.

/// Milliseconds of each unit, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes of each unit, the largest first.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Milliseconds, or None when it is no duration.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    amount(text, &UNITS)
}

/// Bytes, or None when it is no size.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    amount(text, &SIZES)
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A size with the largest unit of 1,024 that fits.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    let binary = SIZES.iter().filter(|(name, _)| name.len() != 2).find(fits);
    binary.map_or(format!("{bytes}B"), |(name, factor)| format!("{}{name}", bytes / factor))
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
    fn sizes_are_read_and_written_alike() {
        for (text, expect) in [("512B", 512), ("64KiB", 65_536), ("10MiB", 10_485_760), ("1000B", 1_000)] {
            assert_eq!(bytes(text), Some(expect));
            assert_eq!(bytes_text(expect), text);
        }
        assert_eq!((bytes("2 MB"), bytes("2 M"), bytes("x")), (Some(2_000_000), None, None));
    }

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
