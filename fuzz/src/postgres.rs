//! Any bytes as PostgreSQL's protocol: however the network cuts them, a gate reads the same from them.

use std::sync::LazyLock;

use database::gate::wire::opening::{self, Opening};
use database::gate::wire::{Answers, Conversation, Malformed};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime without drivers"));

/// As servers say it, then as clients say it, then as the first message of a client.
pub fn all(bytes: &[u8]) {
    server(bytes);
    client(bytes);
    beginning(bytes);
}

/// What a gate makes of a server's messages: where the client must not read on, or that they make no sense; the
/// key; whether something may be said behind them.
type Verdict = (Result<Option<usize>, Malformed>, Option<Vec<u8>>, bool);

fn verdict<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Verdict {
    let mut answers = Answers::default();
    let mut before = 0;
    let mut read = Ok(None);
    for chunk in chunks {
        read = answers.read(chunk).map(|stop| stop.map(|stop| before + stop));
        before += chunk.len();
        if !matches!(read, Ok(None)) {
            break;
        }
    }
    (read, answers.key().map(<[u8]>::to_owned), answers.between())
}

fn server(bytes: &[u8]) {
    let whole = verdict([bytes].into_iter());
    assert_eq!(verdict(bytes.chunks(1)), whole);
    assert_eq!(verdict(bytes.chunks(7)), whole);
    if let Ok(Some(stop)) = whole.0 {
        assert!(stop <= bytes.len() && whole.2, "it ends with a whole message");
        let name = b"SyncRepWaitForLSN";
        assert!(bytes[..stop].windows(name.len()).any(|window| window == name));
    }
    assert!(whole.1.is_none_or(|key| key.len() <= 4 + 256));
}

/// Each message of the client followed by as many answers as the server ever gives: never idle too early.
fn client(bytes: &[u8]) {
    const READY: &[u8] = b"Z\0\0\0\x05I";
    let idle = |size: usize, answers: usize| {
        let mut both = Conversation::default();
        bytes.chunks(size).for_each(|chunk| both.asks.read(chunk));
        for _ in 0..answers {
            assert_eq!(both.answers.read(READY), Ok(None));
        }
        both.idle()
    };
    assert!(!idle(bytes.len().max(1), 0), "not before the server is ready for the first time");
    for answers in [1, 2, bytes.len() + 1] {
        assert_eq!(idle(1, answers), idle(bytes.len().max(1), answers));
    }
}

fn beginning(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(Some(opening)) = RUNTIME.block_on(opening::read(&mut rest)) else { return };
    assert_eq!(opening.bytes(), &bytes[..bytes.len() - rest.len()], "what was taken, and not a byte more");
    assert!(opening.bytes().len() <= 10_000);
    if let Opening::Cancel(request) = &opening {
        assert!((8..=256 + 4).contains(&opening::cancel_key(request).len()));
    }
}
