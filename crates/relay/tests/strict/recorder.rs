//! An origin that keeps exactly what it got, and answers what is a complete request.

use std::io::{Read, Write};

use crate::http::decoded;
use crate::stage::Origin;

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Notes `complete: …` for each request that has an end, and `partial: …` for what is left when a connection ends.
pub fn recorder() -> Origin {
    Origin::start(|stream, seen| {
        let (mut bytes, mut block) = (Vec::new(), [0; 4096]);
        loop {
            while let Some(length) = complete(&bytes) {
                seen.push(format!("complete: {}", String::from_utf8_lossy(&bytes[..length])));
                bytes.drain(..length);
                stream.write_all(OK.as_bytes())?;
            }
            match stream.read(&mut block) {
                Ok(count) if count > 0 => bytes.extend_from_slice(&block[..count]),
                _ => break,
            }
        }
        if !bytes.is_empty() {
            seen.push(format!("partial: {}", String::from_utf8_lossy(&bytes)));
        }
        Ok(())
    })
}

/// How long the first request is, once all of it is there.
fn complete(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding:") {
        return (head + 1..=bytes.len()).find(|end| decoded(&bytes[head..*end]).is_some());
    }
    let length = text.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.split("\r\n").next());
    let whole = head + length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
    (bytes.len() >= whole).then_some(whole)
}
