//! One site on its own block of loopback addresses, in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::http::{self, Response};
use crate::processes::Processes;
use crate::until;

/// An application in Python that answers every request with the variable `TOKEN` that its workers were given.
pub const TOKEN_APP: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["TOKEN"].encode())
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn fine(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    pub fn says(&self, text: &str) -> bool {
        self.out.contains(text) || self.err.contains(text)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

/// A site for one test. It is stopped, and all that it left is removed, when this is dropped.
#[derive(Debug)]
pub struct Site {
    dolmen: PathBuf,
    pub folder: PathBuf,
    pub block: u8,
}

impl Site {
    /// A site file with the text given, in an empty folder.
    pub fn new(dolmen: &str, block: u8, text: &str) -> Self {
        let site = Self::empty(dolmen, block);
        site.write("dolmen.toml", text);
        site
    }

    /// A copy of the example site; `dolmen` is the binary, with `guestbook` beside it.
    pub fn guestbook(dolmen: &str, block: u8) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guestbook");
        let site = Self::empty(dolmen, block);
        std::fs::create_dir_all(site.folder.join("public")).expect("a folder can be made");
        std::fs::copy(example.join("dolmen.toml"), site.folder.join("dolmen.toml"))
            .expect("the example has a site file");
        for file in std::fs::read_dir(example.join("public")).expect("the example has static files").flatten()
        {
            std::fs::copy(file.path(), site.folder.join("public").join(file.file_name()))
                .expect("a file can be copied");
        }
        site
    }

    /// The same site, with commands given by another binary.
    pub fn by(&self, dolmen: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(dolmen);
        command.args(arguments).current_dir(&self.folder).env("NO_COLOR", "1");
        command
    }

    fn empty(dolmen: &str, block: u8) -> Self {
        let folder = std::env::temp_dir().join(format!("dolmen-site-{block}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let folder = folder.canonicalize().expect("the folder was just made");
        Self { dolmen: dolmen.into(), folder, block }
    }

    #[allow(clippy::disallowed_methods, reason = "a test file need not survive a crash")]
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("a file can be written");
    }

    /// The binary.
    pub fn program(&self) -> &Path {
        &self.dolmen
    }

    /// Where `.dolmen` leads.
    pub fn state(&self) -> PathBuf {
        let link = self.folder.join(".dolmen");
        link.canonicalize().unwrap_or(link)
    }

    /// The command, ready to run in the site's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.by(&self.dolmen, arguments)
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().expect("dolmen can be run").into()
    }

    /// `dolmen up --detach` on the site's block.
    #[track_caller]
    pub fn try_up(&self) -> Ran {
        self.run(&["up", "--detach", "--block", &format!("127.0.{}", self.block)])
    }

    #[track_caller]
    pub fn up(&self) -> Ran {
        let ran = self.try_up();
        if ran.code != 0 {
            eprintln!("{}", self.logs());
        }
        ran.fine()
    }

    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let ran = self.run(&["status", "--json"]);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("not a status: {error}: {ran:?}"))
    }

    /// One server's entry in the status.
    #[track_caller]
    pub fn server(&self, name: &str) -> serde_json::Value {
        let status = self.status();
        let servers = status["servers"].as_array().expect("there are servers");
        servers.iter().find(|server| server["name"] == name).expect("the server is in the status").clone()
    }

    #[track_caller]
    pub fn pid(&self, name: &str) -> u32 {
        self.server(name)["pid"].as_u64().expect("the server has a process") as u32
    }

    /// Waits until all servers are healthy, and those before them have seen it too.
    #[track_caller]
    pub fn until_healthy(&self) {
        until("a healthy site", Duration::from_secs(30), || {
            let status = self.run(&["status"]);
            (status.code == 0 && !status.says("down:")).then_some(())
        });
    }

    /// An address on machine number `machine` (from 1).
    pub fn address(&self, machine: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, self.block, machine], port))
    }

    /// The load balancer of the example.
    pub fn front(&self) -> SocketAddr {
        self.address(1, 8080)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.get_with(path, &[])
    }

    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[&str]) -> Response {
        http::get(self.front(), path, headers).expect("the balancer answers")
    }

    /// Posts an entry to the guestbook and returns it.
    #[track_caller]
    pub fn post_entry(&self, name: &str, message: &str) -> serde_json::Value {
        let entry = serde_json::json!({ "name": name, "message": message });
        let response = http::post(self.front(), "/api/entries", &entry).expect("the balancer answers");
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()
    }

    /// The processes of this site.
    pub fn processes(&self) -> Processes {
        Processes::of(&[&self.state(), &self.folder])
    }

    /// The last lines of all logs, for a test that fails.
    pub fn logs(&self) -> String {
        logs(&self.state())
    }
}

/// The last lines of all logs in a state folder.
pub(crate) fn logs(state: &Path) -> String {
    let mut text = String::new();
    for machine in std::fs::read_dir(state.join("machines")).into_iter().flatten().flatten() {
        for log in std::fs::read_dir(machine.path().join("logs")).into_iter().flatten().flatten() {
            text.push_str(&last_lines(&log.path()));
        }
    }
    text
}

pub(crate) fn last_lines(log: &Path) -> String {
    let content = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = content.lines().collect();
    let last = &lines[lines.len().saturating_sub(30)..];
    format!("--- {}\n{}\n", log.display(), last.join("\n"))
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let state = self.state();
        let stopped = self.run(&["stop"]);
        let left = self.processes();
        let stopped_or_never_up = stopped.code == 0 || stopped.says("never started");
        for folder in [&state, &self.folder] {
            if folder.exists()
                && let Err(error) = std::fs::remove_dir_all(folder)
            {
                eprintln!("cannot remove {}: {error}", folder.display());
            }
        }
        if !std::thread::panicking() {
            assert!(stopped_or_never_up, "{stopped:?}");
            assert!(left.is_empty(), "processes were left: {left:?}");
        }
    }
}
