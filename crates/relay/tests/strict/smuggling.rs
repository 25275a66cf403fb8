//! Every case of the table, end to end: the client is told the status and the connection ends, and the origin sees
//! no request; or the origin sees exactly what is normalised. Nothing that is hidden in a request ever arrives.

use std::net::Shutdown;

use crate::cases::{Case, Expect, HIDDEN, all};
use crate::recorder::recorder;
use crate::stage::{Client, Relay};

/// How a case is cut into writes.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Bytes,
}

#[test]
fn every_case_in_one_write() {
    all().iter().for_each(|case| play(case, Cut::Whole));
}

#[test]
fn every_case_byte_by_byte() {
    all().iter().filter(|case| case.bytes.len() < 4096).for_each(|case| play(case, Cut::Bytes));
}

fn play(case: &Case, cut: Cut) {
    let name = format!("{} {} ({cut:?})", case.section, case.name);
    let origin = recorder();
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    match cut {
        Cut::Whole => client.send_bytes(&case.bytes),
        Cut::Bytes => case.bytes.chunks(1).for_each(|byte| client.send_bytes(byte)),
    }
    if matches!(case.expect, Expect::Passes(_)) {
        // The client is done, so that the answer it still gets is the last.
        client.stream.shutdown(Shutdown::Write).unwrap();
    }
    let answer = client.rest_lossy();
    drop((client, relay));
    origin.wait_closed(origin.connections());
    let seen = origin.seen();
    let times = answer.matches("HTTP/1.1 ").count();
    match &case.expect {
        Expect::Refused(status) => {
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer:?}");
            assert!(times == 1 && answer.contains("connection: close\r\n"), "{name}: {answer:?}");
            assert!(seen.iter().all(|text| text.starts_with("partial: ")), "{name}: {seen:?}");
            // What came at once is refused before a byte of it goes out; nothing of a bad head ever goes out.
            let may_begin = matches!(cut, Cut::Bytes) && case.section.starts_with('7');
            assert!(may_begin || seen.is_empty(), "{name}: {seen:?}");
        }
        Expect::Passes(request) => {
            assert!(answer.starts_with("HTTP/1.1 200 ") && times == 1, "{name}: {answer:?}");
            assert_eq!(seen, [format!("complete: {request}")], "{name}");
        }
    }
    assert!(seen.iter().all(|text| !text.contains(&format!("GET {HIDDEN}"))), "{name}: {seen:?}");
}
