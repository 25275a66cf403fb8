//! What becomes of connections: which ones move, which ones are cut, and that nothing of them stays behind.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::targets::Route;
use super::*;

/// AuthenticationOk, BackendKeyData with the key that [`CANCEL`] names, ReadyForQuery outside of a transaction.
const READY: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08Z\0\0\0\x05I";

const QUERY: &[u8] = b"Q\0\0\0\x06;\0";

async fn session(bench: &Bench, kind: Kind) -> TcpStream {
    let mut client = connect(bench, kind).await;
    client.write_all(&STARTUP).await.unwrap();
    says(&mut client, READY).await;
    client
}

/// Waits until the gate has let go of every connection.
async fn nothing_left(bench: &Bench, limits: Limits) {
    let gone = async {
        while bench.gate.connections.available_permits() < limits.connections {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("every connection ends");
    assert_eq!(bench.gate.waiting(), 0);
    assert_eq!(bench.gate.busy.open(), 0);
}

#[tokio::test]
async fn readers_return_from_the_primary_at_an_idle_moment() {
    let (primary, _heard) = server(vec![READY]).await;
    let (replica, mut on_replica) = server(vec![READY]).await;
    let bench = bench(primary, &[], limits());
    let mut idle = session(&bench, Kind::ReadOnly).await;
    let mut busy = session(&bench, Kind::ReadOnly).await;
    let mut writer = session(&bench, Kind::ReadWrite).await;
    busy.write_all(QUERY).await.unwrap();
    says(&mut busy, QUERY).await;
    bench.change(|targets| targets.following = vec![target("database-2", replica)]);
    let (code, message) = refusal(&mut idle).await;
    assert_eq!((code.as_str(), message.as_str()), ("57P01", "a replica takes reads again; connect again"));
    session(&bench, Kind::ReadOnly).await;
    assert_eq!(on_replica.recv().await.unwrap(), STARTUP);
    // The server has not said that it is ready again, and writers are where they belong.
    for client in [&mut busy, &mut writer] {
        client.write_all(QUERY).await.unwrap();
        says(client, QUERY).await;
    }
    assert_eq!(bench.gate.counters.moved.get(), 1);
}

#[tokio::test]
async fn readers_of_a_replica_that_is_no_good_any_more_are_cut() {
    let (primary, _heard) = server(vec![READY]).await;
    let (replica, _heard) = server(vec![READY]).await;
    let bench = bench(primary, &[replica], limits());
    let mut reader = session(&bench, Kind::ReadOnly).await;
    // Sealed for an election: nobody to follow, so the reader stays.
    bench.change(|targets| {
        targets.standing = std::mem::take(&mut targets.following);
        targets.primary = Err("an election".into());
    });
    reader.write_all(QUERY).await.unwrap();
    says(&mut reader, QUERY).await;
    // Another is the primary, and this one does not follow it.
    bench.promote(target("database-3", primary), 2);
    let cut = tokio::time::timeout(Duration::from_secs(20), refusal(&mut reader)).await;
    assert_eq!(cut.expect("cut in the end").0, "57P01");
    let mut reader = session(&bench, Kind::ReadOnly).await;
    let epoch = |epoch| Route::Primary(Primary { target: target("database-3", primary), epoch: Some(epoch) });
    assert!(bench.gate.targets().allow(&epoch(2)) && !bench.gate.targets().allow(&epoch(1)));
    reader.write_all(QUERY).await.unwrap();
    says(&mut reader, QUERY).await;
}

#[tokio::test]
async fn a_cancel_goes_only_to_the_server_that_made_its_key() {
    let (primary, mut on_primary) = server(vec![READY]).await;
    let (two, mut on_two) = server(vec![READY]).await;
    let bench = bench(primary, &[two], limits());
    let reader = session(&bench, Kind::ReadOnly).await;
    assert_eq!(on_two.recv().await.unwrap(), STARTUP);
    // On whichever port the request comes.
    for kind in [Kind::ReadOnly, Kind::ReadWrite] {
        let mut client = connect(&bench, kind).await;
        client.write_all(&CANCEL).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(on_two.recv().await.unwrap(), CANCEL);
    }
    assert!(on_primary.try_recv().is_err());
    drop(reader);
    nothing_left(&bench, limits()).await;
    assert!(bench.gate.keys.server(&CANCEL[8..]).is_none());
}

#[tokio::test]
async fn a_primary_that_takes_connections_and_says_nothing_is_left_when_another_is_there() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (next, _heard) = server(vec![READY]).await;
    let bench = bench(silent.local_addr().unwrap(), &[], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    let _asked = silent.accept().await.unwrap();
    bench.promote(target("database-2", next), 2);
    says(&mut client, READY).await;
}

#[tokio::test]
async fn a_thousand_connections_are_served_cut_and_forgotten() {
    const MANY: usize = 1000;
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    sockets::raise_file_limit(MANY * 8);
    let (primary, mut heard) = server(vec![READY]).await;
    let (next, mut heard_next) = server(vec![READY]).await;
    let listening = tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(_) = heard.recv() => {}
                Some(_) = heard_next.recv() => {}
                else => return,
            }
        }
    });
    let limits = Limits { connections: MANY, held: MANY, hold: Duration::from_secs(60) };
    let bench = bench(primary, &[], limits);
    let before = files();
    let mut clients = Vec::new();
    for _ in 0..MANY {
        clients.push(session(&bench, Kind::ReadWrite).await);
    }
    for client in &mut clients {
        client.write_all(QUERY).await.unwrap();
    }
    for client in &mut clients {
        says(client, QUERY).await;
    }
    bench.change(|targets| targets.primary = Err("it is gone".into()));
    for client in &mut clients {
        assert_eq!(refusal(client).await.0, "57P01");
    }
    drop(clients);
    nothing_left(&bench, limits).await;
    // And all of them held at once.
    let mut clients = Vec::new();
    for _ in 0..MANY {
        let mut client = connect(&bench, Kind::ReadWrite).await;
        client.write_all(&STARTUP).await.unwrap();
        clients.push(client);
    }
    while bench.gate.waiting() < MANY {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.promote(target("database-2", next), 2);
    for client in &mut clients {
        says(client, READY).await;
    }
    drop(clients);
    nothing_left(&bench, limits).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    // The ends of the test's own servers close a moment later.
    while files() > before {
        assert!(std::time::Instant::now() < deadline, "{} descriptors, {before} before", files());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    listening.abort();
}

/// Bytes that a seed makes, with what the protocol is made of among them.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&[u8]; 8] = [
        READY,
        QUERY,
        &STARTUP,
        &ENCRYPT,
        &CANCEL,
        b"N\0\0\0\x18RSyncRepWaitForLSN\0\0",
        b"D\0\0\0\x01",
        b"d\xff\xff\xff\xff",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::new();
    while bytes.len() < length {
        match random() % 4 {
            0 => bytes.extend_from_slice(WORDS[random() as usize % WORDS.len()]),
            _ => bytes.push(random() as u8),
        }
    }
    bytes
}

/// A server that says anything, and sometimes ends.
async fn babbler() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seeds = AtomicU64::new(1);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seed = seeds.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut heard = [0; 512];
                for round in 0..4 {
                    let said = bytes(seed * 7 + round, 300);
                    if stream.write_all(&said).await.is_err() || stream.read(&mut heard).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn hostile_bytes_on_both_sides_end_nothing_but_their_own_connection() {
    let limits = Limits { connections: 64, held: 64, hold: Duration::from_millis(300) };
    let bench = bench(babbler().await, &[], limits);
    for seed in 0..300 {
        let kind = if seed % 2 == 0 { Kind::ReadWrite } else { Kind::ReadOnly };
        let mut client = connect(&bench, kind).await;
        let begin: &[u8] = if seed % 3 == 0 { b"" } else { &STARTUP };
        let said = [begin, &bytes(seed + 1_000_000, 400)].concat();
        // The gate may have ended it already.
        let _ = client.write_all(&said).await;
        let _ = client.shutdown().await;
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut heard)).await;
        assert!(ended.is_ok(), "seed {seed} has no end");
    }
    nothing_left(&bench, limits).await;
}
