//! Real PostgreSQL: a primary, a replica and a gate, each a process of its own, on 127.0.41.x.

#[path = "real/site.rs"]
mod site;

use std::time::{Duration, Instant};

use site::{Site, until};

/// Not a test: what a server of these tests runs. See [`site::be_a_server`].
#[test]
fn server_process() {
    site::be_a_server();
}

async fn number(client: &tokio_postgres::Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_is_written_through_the_gate_is_read_from_the_replica() {
    let site = Site::new("replicates", 1, "");
    let begun = Instant::now();
    let servers = ["database-1", "database-2", "gate-1"].map(|server| site.start(server));
    site.healthy("database-1");
    println!("primary after {:?}", begun.elapsed());
    site.healthy("database-2");
    site.synchronous();
    site.gate_ready();
    println!("all after {:?}", begun.elapsed());
    let writer = site.client("gate-1", "read-write").await.unwrap();
    writer.batch_execute("CREATE TABLE entry (message text)").await.unwrap();
    writer.execute("INSERT INTO entry VALUES ('hello')", &[]).await.unwrap();
    let names = writer.query_one("SHOW synchronous_standby_names", &[]).await.unwrap();
    assert_eq!(names.get::<_, String>(0), "ANY 1 (\"database-2\")");
    let mine = writer.query_one("SHOW work_mem", &[]).await.unwrap();
    assert_eq!(mine.get::<_, String>(0), "8MB");
    let reader = site.client("gate-1", "read-only").await.unwrap();
    let recovery =
        reader.query_one("SELECT pg_is_in_recovery(), host(inet_client_addr())", &[]).await.unwrap();
    assert!(recovery.get::<_, bool>(0), "the read-only gate leads to the replica");
    assert_eq!(recovery.get::<_, String>(1), "127.0.41.1", "from its own machine's address");
    let mut seen = 0;
    let deadline = Instant::now() + Duration::from_secs(5);
    while seen == 0 && Instant::now() < deadline {
        seen = number(&reader, "SELECT count(*) FROM entry").await;
    }
    assert_eq!(seen, 1);
    // The second start, on what is there.
    drop((writer, reader));
    servers.into_iter().rev().for_each(site::Running::stop);
    assert_eq!(site.processes(), 0);
    let begun = Instant::now();
    let _servers = ["database-1", "database-2", "gate-1"].map(|server| site.start(server));
    site.healthy("database-1");
    site.healthy("database-2");
    site.gate_ready();
    println!("second start after {:?}", begun.elapsed());
    let reader = site.client("gate-1", "read-only").await.unwrap();
    assert_eq!(number(&reader, "SELECT count(*) FROM entry").await, 1);
}
