//! The web server between a balancer and app servers, without an agent: files, workers, and who is up.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use link::board::Board;
use link::{Line, Order, Secrets, Sockets, Start};
use plan::{Ground, NoFiles, Place, Plan, Site};
use relay::{Ended, Exchange, Handler, Serving, Settings, Stop};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that answers with its name and the head it saw.
struct Server {
    address: SocketAddr,
    stop: Stop,
    serving: Option<Serving>,
}

#[derive(Clone)]
struct Named(&'static str);

impl Handler for Named {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let request = exchange.request();
        let mut text = format!("{} {} {}\n", self.0, request.method(), request.target());
        for (name, value) in request.fields().iter() {
            text += &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        }
        exchange.reply(200, &[("x-app", self.0)], text.as_bytes()).await
    }
}

impl Server {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::default();
        let settings = Settings::new(plan().web.unwrap().timeouts);
        let serving = relay::serve(vec![listener], settings, stop.clone(), move |_| Named(name)).unwrap();
        Self { address, stop, serving: Some(serving) }
    }

    fn v4(&self) -> SocketAddrV4 {
        let SocketAddr::V4(address) = self.address else { panic!("bound to IPv4") };
        address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.drain(Duration::ZERO);
        if let Some(serving) = self.serving.take() {
            serving.wait();
        }
    }
}

fn plan() -> Plan {
    let site = Site::from_text("[web]\napp = [\"127.0.0.1:1\"]\n");
    let ground = Ground { place: Place::Up { block: 1 }, generation: 1, folder: "test", files: &NoFiles };
    site.plan(&ground).unwrap()
}

fn balancer_section() -> plan::Balancer {
    let site = Site::from_text("[balancer]\nservers = [\"127.0.0.1:1\"]\n");
    let ground = Ground { place: Place::Up { block: 1 }, generation: 1, folder: "test", files: &NoFiles };
    site.plan(&ground).unwrap().balancer.unwrap()
}

struct Web {
    address: SocketAddr,
    folder: PathBuf,
    orders: tokio::sync::watch::Sender<Order>,
    thread: Option<JoinHandle<Result<(), web::Error>>>,
    _site: tokio::sync::watch::Sender<Arc<link::report::SiteReport>>,
}

impl Web {
    /// With these app servers, of which the first is on its own machine, and that one's board.
    fn before(name: &str, apps: &[&Server], board: Option<Board>) -> Self {
        let folder = std::env::temp_dir().join(format!("dolmen-web-{name}-{}", std::process::id()));
        let root = folder.join("public");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(root.join("empty")).unwrap();
        put(&folder.join("secret.txt"), b"secret");
        put(&root.join("a.css"), b"0123456789");
        put(&root.join(".env"), b"secret");
        put(&root.join("sub/index.html"), b"<p>sub");
        put(&root.join("large.bin"), &vec![b'x'; 3_000_000]);
        let mut plan = plan();
        let me = plan.server("web-1").unwrap().clone();
        let section = plan.web.as_mut().unwrap();
        section.root = Some("public".into());
        let pattern = section.app.remove(0);
        for (index, server) in apps.iter().enumerate() {
            section.app.push(plan::Target {
                name: format!("app-{}", index + 1),
                address: server.address,
                machine: (index == 0).then(|| me.machine.clone()),
                ..pattern.clone()
            });
        }
        section.check.interval_ms = 50;
        section.access_log =
            Some(plan::AccessLog { path: Some(folder.join("access.log")), ..plan::AccessLog::default() });
        // Behind a balancer, which has said who the client is.
        plan.balancer = (name != "first").then(balancer_section);
        let (line, orders, site) = Line::unattached();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = Sockets::default();
        sockets.insert("http", listener);
        let start = Start {
            me,
            plan: Arc::new(plan),
            folder: PathBuf::new(),
            files: folder.clone(),
            programs: PathBuf::new(),
            sockets,
            board,
            secrets: Secrets::default(),
            succeeds: false,
            line,
        };
        let thread = std::thread::spawn(move || web::run(start));
        let web = Self { address, folder, orders, thread: Some(thread), _site: site };
        web.wait(|web| apps.is_empty() || web.get("/x").status == 200);
        web
    }

    fn wait(&self, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < PATIENCE, "waited in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    fn ask(&self, method: &str, path: &str, fields: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.orders.send_replace(Order::Stop { within: Duration::ZERO });
        let result = self.thread.take().unwrap().join().unwrap();
        std::fs::remove_dir_all(&self.folder).unwrap();
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    fn name(&self) -> &str {
        self.body.split(' ').next().unwrap_or_default()
    }
}

#[test]
fn files_come_with_type_tag_and_date() {
    let web = Web::before("files", &[], None);
    let answer = web.get("/a.css?v=1");
    assert_eq!((answer.status, answer.body.as_str()), (200, "0123456789"));
    assert_eq!(answer.field("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.field("content-length"), Some("10"));
    let tag = answer.field("etag").unwrap().to_owned();
    assert!(tag.starts_with('"') && answer.field("last-modified").is_some());
    let again = web.ask("GET", "/a.css", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((again.status, again.body.as_str(), again.field("etag")), (304, "", Some(tag.as_str())));
    let head = web.ask("HEAD", "/a.css", "");
    assert_eq!((head.status, head.body.as_str(), head.field("content-length")), (200, "", Some("10")));
    put(&web.folder.join("public/a.css"), b"changed");
    let changed = web.ask("GET", "/a.css", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((changed.status, changed.body.as_str()), (200, "changed"));
}

#[test]
fn ranges() {
    let web = Web::before("ranges", &[], None);
    let part = web.ask("GET", "/a.css", "Range: bytes=2-4\r\n");
    assert_eq!((part.status, part.body.as_str()), (206, "234"));
    assert_eq!(part.field("content-range"), Some("bytes 2-4/10"));
    let beyond = web.ask("GET", "/a.css", "Range: bytes=10-\r\n");
    assert_eq!((beyond.status, beyond.field("content-range")), (416, Some("bytes */10")));
    let large = web.ask("GET", "/large.bin", "Range: bytes=1000000-2999999\r\n");
    assert_eq!((large.status, large.body.len()), (206, 2_000_000));
    assert_eq!(web.ask("HEAD", "/a.css", "Range: bytes=2-4\r\n").status, 200);
}

#[test]
fn large_files_are_whole() {
    let web = Web::before("large", &[], None);
    assert_eq!(web.get("/large.bin").body.len(), 3_000_000);
}

#[test]
fn nothing_outside_the_root_and_no_dotfile() {
    let web = Web::before("outside", &[], None);
    std::os::unix::fs::symlink("../secret.txt", web.folder.join("public/link.txt")).unwrap();
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/sub/../../secret.txt",
        "/..%2fsecret.txt",
        "/link.txt",
        "/.env",
    ] {
        let answer = web.get(path);
        assert!(answer.status == 404 && !answer.body.contains("secret"), "{path} {answer:?}");
    }
}

#[test]
fn folders_have_an_index() {
    let web = Web::before("folders", &[], None);
    assert_eq!(web.get("/sub/").body, "<p>sub");
    let redirect = web.get("/sub?a=b");
    assert_eq!((redirect.status, redirect.field("location")), (308, Some("/sub/?a=b")));
    assert_eq!(web.get("/empty/").status, 404);
    assert_eq!(web.get("/").status, 404);
}

#[test]
fn without_an_app_the_rest_is_nobodys() {
    let web = Web::before("alone", &[], None);
    assert_eq!(web.get("/missing").status, 404);
    let answer = web.ask("POST", "/a.css", "Content-Length: 0\r\n");
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")));
    assert_eq!(web.get("/.dolmen/health").body, "ok\n");
}

#[test]
fn the_rest_goes_to_the_app_servers_in_turn() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let web = Web::before("turns", &[&one, &two], None);
    web.wait(|web| web.get("/").name() != web.get("/").name());
    let names: Vec<_> = (0..6).map(|_| web.get("/").name().to_owned()).collect();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    assert_eq!(web.get("/a.css").body, "0123456789", "files come first");
    let post = web.ask(
        "POST",
        "/a.css",
        "Content-Length: 0\r\nVia: 1.1 balancer-1\r\nX-Forwarded-For: 9.9.9.9\r\nX-Request-Id: abc\r\n",
    );
    for line in ["via: 1.1 balancer-1, 1.1 web-1\n", "X-Forwarded-For: 9.9.9.9\n", "X-Request-Id: abc\n"] {
        assert!(post.body.contains(line), "{line:?} {}", post.body);
    }
    assert_eq!(post.field("via"), Some("1.1 web-1"));
}

#[test]
fn the_own_machines_workers_are_asked_straight() {
    let (app, worker, other) = (Server::start("app"), Server::start("worker"), Server::start("other"));
    let board = Board::create().unwrap();
    let shared = Board::open(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
    board.set(0, Some(worker.v4()));
    let web = Web::before("straight", &[&app], Some(shared));
    let answer = web.ask("GET", "/", "Via: 1.1 balancer-1\r\n");
    assert_eq!(answer.name(), "worker");
    assert!(answer.body.contains("via: 1.1 balancer-1, 1.1 web-1, 1.1 app-1\n"), "{}", answer.body);
    assert_eq!(answer.field("via"), Some("1.1 app-1, 1.1 web-1"));
    web.wait(|_| board.busy(0) == 0);
    // A worker that refuses is passed over, even for a POST.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let SocketAddr::V4(gone) = gone else { panic!("bound to IPv4") };
    board.set(0, Some(gone));
    board.set(1, Some(other.v4()));
    for _ in 0..4 {
        assert_eq!(web.ask("POST", "/", "Content-Length: 0\r\n").name(), "other");
    }
    board.clear();
    // Without a ready worker the app server is asked, once its first check was good.
    web.wait(|web| web.get("/").name() == "app");
}

#[test]
fn without_an_app_server_files_are_still_there() {
    let app = Server::start("app");
    let web = Web::before("down", &[&app], None);
    drop(app);
    web.wait(|web| web.get("/").status == 503);
    let answer = web.ask("GET", "/", "X-Request-Id: <b>\r\n");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    assert!(answer.body.contains("Request &lt;b&gt;"), "{}", answer.body);
    assert_eq!(web.get("/a.css").status, 200);
}

#[test]
fn without_a_balancer_it_says_who_the_client_is() {
    let app = Server::start("app");
    let web = Web::before("first", &[&app], None);
    let answer = web.ask("GET", "/", "X-Forwarded-For: 6.6.6.6\r\nX-Request-Id: mine\r\n");
    assert!(answer.body.contains("x-forwarded-for: 127.0.0.1\n"), "{}", answer.body);
    assert!(!answer.body.contains("6.6.6.6") && !answer.body.contains("mine"), "{}", answer.body);
}
