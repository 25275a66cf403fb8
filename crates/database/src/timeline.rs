//! Timelines as the files in `pg_wal` tell them, because no function of PostgreSQL does on a standby.
//!
//! A segment's name is its timeline and its number, eight hexadecimal digits and sixteen; a `.history` file of a
//! timeline names its parents and where it left each (manual, section 26.3.5).

use std::io;
use std::path::Path;

use crate::group::Lsn;

/// The newest timeline of which there is a segment that holds the byte before this place.
pub(crate) fn at(data: &Path, end: Lsn, segment_bytes: u64) -> io::Result<Option<u32>> {
    let segment = end.0.saturating_sub(1) / segment_bytes.max(1);
    let per_file = (1u64 << 32) / segment_bytes.max(1);
    let suffix = format!("{:08X}{:08X}", segment / per_file.max(1), segment % per_file.max(1));
    let mut newest = None;
    for entry in std::fs::read_dir(data.join("pg_wal"))? {
        let name = entry?.file_name();
        let timeline = name.to_str().and_then(|name| name.strip_suffix(suffix.as_str()));
        let timeline = timeline.filter(|digits| digits.len() == 8);
        newest = newest.max(timeline.and_then(|digits| u32::from_str_radix(digits, 16).ok()));
    }
    Ok(newest)
}

/// Where a timeline began; the first one began with the cluster.
pub(crate) fn switch(data: &Path, timeline: u32) -> io::Result<Lsn> {
    if timeline <= 1 {
        return Ok(Lsn(0));
    }
    let path = data.join("pg_wal").join(format!("{timeline:08X}.history"));
    last_switch(&std::fs::read_to_string(&path)?).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} names no place", path.display()))
    })
}

/// `1\t0/3000148\tno recovery target specified`: one line for each parent, the last for the nearest.
fn last_switch(history: &str) -> Option<Lsn> {
    let line = history.lines().rfind(|line| line.starts_with(|first: char| first.is_ascii_digit()))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_timeline_of_a_place_counts() {
        let data = std::env::temp_dir().join(format!("dolmen-timeline-{}", std::process::id()));
        let wal = data.join("pg_wal");
        std::fs::create_dir_all(&wal).unwrap();
        for name in [
            "000000010000000000000001",
            "000000020000000000000001",
            "0000000A0000000000000002",
            "000000020000000100000000",
            "00000002.history",
            "000000010000000000000001.partial",
        ] {
            std::fs::File::create(wal.join(name)).unwrap();
        }
        let segment = 16 << 20;
        let check = |end: u64, expect| assert_eq!(at(&data, Lsn(end), segment).unwrap(), expect, "{end:X}");
        check(0x0100_0028, Some(2));
        check(0x0200_0000, Some(2)); // the end of segment 1
        check(0x0200_0001, Some(10));
        check(0x0300_0001, None);
        check(0x1_0000_0001, Some(2));
        std::fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn the_nearest_parent_is_read() {
        let text = "1\t0/3000148\tno recovery target specified\n\n2\t1/A0\tno recovery target specified\n";
        assert_eq!(last_switch(text), Some(Lsn(0x1_0000_00A0)));
        assert_eq!(last_switch("# nothing\n"), None);
    }
}
