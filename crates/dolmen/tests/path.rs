//! The whole path, end to end, through the built binary: name, balancer, web, app, primary and replica.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::{Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

fn dig(site: &Site, arguments: &[&str]) -> String {
    let server = format!("@{}", site.address(1, 0).ip());
    let output =
        Command::new("dig").arg(server).args(["-p", "1053", "+tries=1", "+time=2"]).args(arguments).output();
    let output = output.expect("dig is installed (bind9-dnsutils)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_request_takes_the_whole_path() {
    let site = Site::guestbook(DOLMEN, 60);
    let up = site.up();
    for server in ["dns-1", "balancer-1", "web-2", "app-2", "gate-2", "database-2"] {
        assert!(up.out.contains(server), "a line for {server} in\n{}", up.out);
    }
    name_is_answered(&site);
    page_and_static_file(&site);
    requests_alternate(&site);
    entry_is_read_from_the_replica(&site);
    status_has_its_shape(&site);
    kill_leaves_the_site_up(&site);
    stop_leaves_nothing(&site);
    second_up_has_the_entries(&site);
}

fn name_is_answered(site: &Site) {
    assert_eq!(dig(site, &["+short", "www.foobar.com"]).trim(), "127.0.60.1");
    assert_eq!(dig(site, &["+short", "+tcp", "www.foobar.com"]).trim(), "127.0.60.1");
    assert!(dig(site, &["nothing.www.foobar.com"]).contains("status: NXDOMAIN"));
    assert!(dig(site, &["www.foobar.com", "MX"]).contains("status: NOERROR"));
    assert!(dig(site, &["www.example.org"]).contains("status: REFUSED"));
    assert!(dig(site, &["+short", "www.foobar.com", "SOA"]).contains("ns1.www.foobar.com."));
}

fn page_and_static_file(site: &Site) {
    let page = site.get("/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("balancer-1"), "the page says which servers the request passed");
    let style = site.get("/style.css");
    assert_eq!(style.status, 200);
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    let etag = style.header("etag").expect("a static file has an ETag").to_owned();
    let again = site.get_with("/style.css", &[&format!("If-None-Match: {etag}")]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    let part = site.get_with("/style.css", &["Range: bytes=0-9"]);
    assert_eq!((part.status, part.body.len()), (206, 10));
    assert_eq!(site.get("/.dolmen/health").status, 200, "the balancer answers for itself");
    assert_ne!(site.get("/../dolmen.toml").status, 200);
}

/// The servers that an answer passed, by its `Via`.
fn via(site: &Site) -> Vec<String> {
    let response = site.get("/healthz");
    assert_eq!(response.status, 200);
    let via: Vec<&str> =
        response.headers.iter().filter(|(name, _)| name == "via").map(|(_, v)| v.as_str()).collect();
    via.join(",").split(',').filter_map(|hop| hop.trim().split(' ').nth(1)).map(str::to_owned).collect()
}

fn requests_alternate(site: &Site) {
    let hops: Vec<Vec<String>> = (0..8).map(|_| via(site)).collect();
    let count = |name: &str| hops.iter().filter(|hops| hops.iter().any(|hop| hop == name)).count();
    for (name, expected) in [("balancer-1", 8), ("web-1", 4), ("web-2", 4), ("app-1", 4), ("app-2", 4)] {
        assert_eq!(count(name), expected, "answers through {name} of {hops:?}");
    }
}

fn entry_is_read_from_the_replica(site: &Site) {
    let entry = site.post_entry("Ada", "written to the primary");
    let id = entry["id"].clone();
    let listed = until("the entry in the list", Duration::from_secs(5), || {
        let list = site.get("/api/entries?limit=5").json();
        let entries = list.as_array().or_else(|| list["entries"].as_array())?.clone();
        entries.into_iter().find(|entry| entry["id"] == id)
    });
    assert_eq!(listed["message"], "written to the primary");
    assert!(site.get("/").text().contains("written to the primary"));
    // The list above came through a gate's read-only side, which leads to the replica alone.
    let gate = site.server("gate-1");
    assert!(gate["because"].as_str().is_some_and(|text| text.contains("read-only over 1 replica")), "{gate}");
}

fn status_has_its_shape(site: &Site) {
    let status = site.status();
    assert_eq!(status["site"], "www.foobar.com");
    assert_eq!((&status["generation"], &status["healthy"]), (&Value::from(1), &Value::from(true)));
    let machines = status["machines"].as_array().expect("machines");
    assert_eq!(machines.len(), 3);
    assert_eq!((&machines[0]["name"], &machines[0]["state"]), (&Value::from("alpha"), &Value::from("up")));
    let servers = status["servers"].as_array().expect("servers");
    assert!(servers.iter().filter(|server| server["state"] == "healthy").count() >= 7);
    for key in ["name", "role", "machine", "pid", "state", "because", "listen"] {
        assert!(servers.iter().all(|server| server.get(key).is_some()), "{key}");
    }
    let balancer = servers.iter().find(|server| server["role"] == "balancer").expect("a balancer");
    assert_eq!(balancer["listen"][0], "http://127.0.60.1:8080");
    let database = &status["database"];
    assert_eq!(database["primary"], "database-1");
    assert!(database["timeline"].as_u64().is_some_and(|timeline| timeline >= 1));
    let replica = &database["replicas"][0];
    assert_eq!(replica["name"], "database-2");
    assert_eq!((&replica["state"], &replica["synchronous"]), (&Value::from("streaming"), &Value::from(true)));
    assert!(replica["lag_bytes"].is_u64());
}

fn kill_leaves_the_site_up(site: &Site) {
    site.run(&["kill", "web-1"]).fine();
    for _ in 0..4 {
        assert_eq!(site.get("/").status, 200);
    }
    let status = site.run(&["status"]);
    assert_eq!(status.code, 1);
    assert!(status.says("killed by `dolmen kill`"), "{}", status.out);
    site.run(&["start", "web-1"]).fine();
    site.until_healthy();
}

fn stop_leaves_nothing(site: &Site) {
    site.run(&["stop"]).fine();
    let left = site.processes();
    assert!(left.is_empty(), "{left:?}");
    let status = site.run(&["status"]);
    assert_eq!(status.code, 1);
    assert!(status.says("is not up"), "{status:?}");
}

fn second_up_has_the_entries(site: &Site) {
    site.up();
    assert!(site.get("/").text().contains("written to the primary"));
}

#[test]
fn two_lines_are_a_whole_site() {
    let site = Site::new(DOLMEN, 61, "domain = \"two.example\"\n[app]\ncommand = \"python3 app.py\"\n");
    site.write("app.py", APP);
    site.up();
    let page = site.get("/anything");
    assert_eq!((page.status, page.text().as_str()), (200, "GET /anything through balancer-1, web-1, app-1"));
    assert_eq!(dig(&site, &["+short", "two.example"]).trim(), "127.0.61.1");
}

/// The smallest application: it says which way the request took.
const APP: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        via = ", ".join(hop.split()[1] for hop in ",".join(self.headers.get_all("Via") or []).split(",") if hop.strip())
        body = f"GET {self.path} through {via}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"#;
