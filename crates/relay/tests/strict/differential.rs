//! The same bytes through our codec and through h11, which shares no code with it: method, length and data of the
//! first request of each stream. What one of them refuses is listed here, with the reason; what both take they must
//! read alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use relay::RequestHead;
use relay::codec::body::Body;
use relay::codec::chunked::Chunked;
use relay::codec::scan::{Found, Scan};

/// Cases that we refuse and h11 takes, with the reason. What h11 says of them stands in verdicts.txt.
const WE_REFUSE: &[(&str, &[&str])] = &[
    (
        "RFC 9112 2.2 allows a lone LF to end a line; servers that disagree on it are what smuggling lives on",
        &[
            "2.2-lf-all",
            "2.2-lf-before-empty-line",
            "2.2-lf-empty-line",
            "2.2-lf-field",
            "2.2-lf-request-line",
        ],
    ),
    ("a trailer line is a line", &["7.1.2-line-ends-in-lf"]),
    ("RFC 9110 5.5: control characters are not in values", &["2.2-control-in-value", "2.2-delete-in-value"]),
    (
        "RFC 9112 5.2: a server must refuse a folded line or replace it; h11 joins the lines",
        &["5.1-fold", "5.1-fold-blank-line", "5.1-fold-coding", "5.1-fold-tab", "7.1.2-fold"],
    ),
    (
        "RFC 9112 6.3: both framings ought to be handled as an error; h11 lets the coding win",
        &["6.1-coding-then-length", "6.1-length-then-coding"],
    ),
    ("RFC 9112 6.1: a coding with HTTP/1.0 is faulty framing", &["6.1-http-1-0"]),
    (
        "RFC 9112 6.3 allows equal lengths to be taken as one or refused; the next reader may add them up",
        &["6.2-list", "6.2-list-with-blank", "6.2-twice"],
    ),
    ("a length over 18 digits overflows what others count with", &["6.2-huge", "6.2-overflow-to-five"]),
    ("RFC 9112 7.1: the size of a chunk must not overflow", &["7.1-size-overflow"]),
    ("the same, whatever zeros stand before it", &["7.1-size-overflow-of-32-bits-too-long"]),
    (
        "RFC 9112 7.1.1: an extension is text of one line, and a recipient limits its length",
        &["7.1.1-cr-in-extension", "7.1.1-extension-long", "7.1.1-nul-in-extension"],
    ),
    ("our limit of fields", &["7.1.2-too-many", "limits-fields"]),
    ("a version that we do not speak; h11 leaves it to its caller", &["3-http-2-preface", "3-version-1-2"]),
    ("the same", &["3-version-2"]),
    ("methods that we do not relay; h11 leaves them to its caller", &["3-connect", "3-connect-origin-form"]),
    ("the same", &["3-trace"]),
    (
        "RFC 9112 3.2: h11 does not look into targets",
        &[
            "3-fragment",
            "3.2-asterisk-of-get",
            "3.2-authority-form",
            "3.2-bad-authority",
            "3.2-empty-authority",
        ],
    ),
    ("the same", &["3.2-no-form", "3.2-other-scheme", "3.2-user-in-authority"]),
    (
        "RFC 9112 3.2: an invalid Host is 400; h11 only counts them",
        &["3.2-host-blank", "3.2-host-empty", "3.2-host-list", "3.2-host-not-ascii", "3.2-host-not-closed"],
    ),
    ("the same", &["3.2-host-path", "3.2-host-port-not-a-number", "3.2-host-port-twice", "3.2-host-user"]),
];

/// Cases that we take and h11 refuses. Both read the same where both take it.
const WE_TAKE: &[(&str, &str)] = &[
    ("2.2-empty-line-before", "RFC 9112 2.2: a server should ignore an empty line before a request"),
    ("7.1.1-extension", "RFC 9112 7.1.1: blanks before the semicolon are allowed"),
];

fn fuzz(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(path)
}

fn ours(bytes: &[u8]) -> String {
    let mut scan = Scan::default();
    let (begin, end) = match scan.advance(bytes) {
        Found::Head { begin, end } => (begin, end),
        Found::Partial if !scan.is_hopeless(bytes) => return "partial".into(),
        _ => return "refused".into(),
    };
    let mut head = RequestHead::default();
    let Ok(body) = head.load(&bytes[begin..end]) else { return "refused".into() };
    match data(body, &bytes[end..]) {
        Err(()) => "refused".into(),
        Ok(None) => "partial".into(),
        Ok(Some(data)) => {
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{} {} {hex}", head.method(), data.len()).trim_end().to_owned()
        }
    }
}

/// The data of a body, if all of it is there.
fn data(body: Body, bytes: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let mut body = match body {
        Body::Chunked(_) => Body::Chunked(Chunked::without_marks()),
        body => body,
    };
    let (mut rest, mut data) = (bytes.to_vec(), Vec::new());
    while !body.is_done() {
        let step = body.advance(&mut rest).map_err(|_| ())?;
        data.extend(rest.drain(..step.pass));
        rest.drain(..step.skip);
        if step.pass + step.skip == 0 {
            return Ok(None);
        }
    }
    Ok(Some(data))
}

#[test]
fn h11_reads_the_same() {
    let verdicts = fs::read_to_string(fuzz("differential/verdicts.txt")).unwrap();
    let theirs: BTreeMap<_, _> = verdicts.lines().map(|line| line.split_once('\t').unwrap()).collect();
    let (mut refused, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for (name, theirs) in &theirs {
        let ours = ours(&fs::read(fuzz("corpus/request").join(name)).unwrap());
        match (ours.as_str(), *theirs) {
            (ours, theirs) if ours == theirs => {}
            ("refused", _) => drop(refused.insert(*name)),
            (_, "refused") => drop(taken.insert(*name)),
            (ours, theirs) => panic!("{name}: read as {ours:?}, and by h11 as {theirs:?}"),
        }
    }
    assert!(theirs.len() >= 170, "the verdicts are of the whole corpus");
    assert_eq!(refused, WE_REFUSE.iter().flat_map(|(_, names)| names.iter().copied()).collect());
    assert_eq!(taken, WE_TAKE.iter().map(|(name, _)| *name).collect());
}
