//! Which part of a file is asked for (RFC 9110 section 14).

use std::ops::Range;

/// What `Range` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All of it: no range, or one that we may ignore.
    Whole,
    Part(Range<u64>),
    /// A range that begins after the end.
    Beyond,
}

/// Understands one range of bytes. Several at once may be ignored, and are: nobody but download managers asks for
/// them, and answering them costs more than the whole.
pub(crate) fn asked(value: Option<&str>, size: u64) -> Asked {
    let Some(spec) = value.and_then(|value| value.trim().strip_prefix("bytes=")) else { return Asked::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Asked::Whole };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Asked::Whole,
        (Some(first), last) if last.is_some() || spec.trim().ends_with('-') => {
            if first >= size {
                Asked::Beyond
            } else {
                Asked::Part(first..last.map_or(size, |last| last.saturating_add(1).min(size)))
            }
        }
        (None, Some(suffix)) if first.is_empty() => {
            if suffix == 0 || size == 0 {
                Asked::Beyond
            } else {
                Asked::Part(size.saturating_sub(suffix)..size)
            }
        }
        _ => Asked::Whole,
    }
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes() {
        for (value, expect) in [
            ("bytes=0-3", Asked::Part(0..4)),
            ("bytes=2-", Asked::Part(2..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=9-20", Asked::Part(9..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=3-2", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=2-x", Asked::Whole),
            ("lines=0-3", Asked::Whole),
        ] {
            assert_eq!(asked(Some(value), 10), expect, "{value}");
        }
        assert_eq!(asked(None, 10), Asked::Whole);
        assert_eq!(asked(Some("bytes=0-"), 0), Asked::Beyond);
    }
}
