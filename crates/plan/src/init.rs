//! The first `dolmen.toml` of an application, guessed from the files beside it. The guess is written with
//! its reason, so that somebody who knows better sees what to change.

use crate::section::web::DEFAULT_ROOT;

/// Folders in which the pages of a static site are found, the surest first.
const PAGE_FOLDERS: [&str; 8] = ["public", "dist", "build", "_site", "site", "htdocs", "www", "docs"];

/// What is known of the folder of an application.
#[derive(Clone, Copy)]
pub struct Folder<'a> {
    pub name: &'a str,
    /// The names of the files and folders in it, and `FOLDER/index.html` for folders with a page.
    pub names: &'a [String],
    /// The text of a file in it, if it can be read.
    pub read: &'a dyn Fn(&str) -> Option<String>,
}

/// The text of a site file for the application in this folder.
pub fn init(folder: &Folder<'_>) -> String {
    match guess(folder) {
        Guess::Program { because, command } => whole_site(&because, &command),
        Guess::Pages { root } => static_site(&root),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Guess {
    Program { because: String, command: String },
    Pages { root: String },
}

fn guess(folder: &Folder<'_>) -> Guess {
    let has = |name: &str| folder.names.iter().any(|known| known == name);
    let program = |because: &str, command: String| Guess::Program { because: because.to_owned(), command };
    if has("Procfile")
        && let Some(command) = (folder.read)("Procfile").as_deref().and_then(procfile_command)
    {
        return program("Procfile has a line for web", command);
    }
    if has("manage.py") {
        return program("manage.py is there, so this is Django", django_command(folder));
    }
    if has("wsgi.py") {
        return program("wsgi.py is there", "gunicorn wsgi".to_owned());
    }
    if has("config.ru") || has("Gemfile") {
        let command = "sh -c 'exec bundle exec puma --bind \"tcp://$HOST:$PORT\"'";
        return program("a Gemfile or config.ru is there, so this is Ruby", command.to_owned());
    }
    if has("Cargo.toml") {
        return program("Cargo.toml names this binary; copy it here after each build", cargo_binary(folder));
    }
    if has("go.mod") {
        return program("go.mod names this module; `go build` puts its binary here", go_binary(folder));
    }
    if has("app.py") || has("main.py") {
        let file = if has("app.py") { "app.py" } else { "main.py" };
        return program(&format!("{file} is there"), format!("python3 {file}"));
    }
    if has("package.json") {
        return program("package.json is there", "npm start".to_owned());
    }
    match page_folder(folder) {
        Some(root) => Guess::Pages { root },
        None => program(
            "nothing here says what starts the application, so this is only an example",
            "python3 app.py".to_owned(),
        ),
    }
}

fn page_folder(folder: &Folder<'_>) -> Option<String> {
    let has = |name: &str| folder.names.iter().any(|known| known == name);
    let with_page = PAGE_FOLDERS.iter().find(|name| has(&format!("{name}/index.html")));
    match with_page {
        Some(name) => Some((*name).to_owned()),
        None if has("index.html") => Some(".".to_owned()),
        None => has(DEFAULT_ROOT).then(|| DEFAULT_ROOT.to_owned()),
    }
}

/// The line of the process that answers requests. It is meant for a shell, so it gets one.
fn procfile_command(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("web:"))?;
    let command = line.trim();
    match crate::command::words(command) {
        Ok(_) => Some(command.to_owned()),
        Err(_) if command.is_empty() || command.contains('\'') || command.contains('\0') => None,
        Err(_) => Some(format!("sh -c 'exec {command}'")),
    }
}

/// gunicorn where it is asked for, else the server that Django itself brings.
fn django_command(folder: &Folder<'_>) -> String {
    let asks_for_gunicorn = ["requirements.txt", "pyproject.toml"]
        .iter()
        .filter_map(|name| (folder.read)(name))
        .any(|text| text.contains("gunicorn"));
    let package =
        (folder.read)("manage.py").as_deref().and_then(settings_package).filter(|_| asks_for_gunicorn);
    match package {
        Some(package) => format!("gunicorn {package}.wsgi"),
        None => "sh -c 'exec python3 manage.py runserver --noreload \"$HOST:$PORT\"'".to_owned(),
    }
}

/// The package whose settings manage.py names: `os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")`.
fn settings_package(text: &str) -> Option<String> {
    let words = text.split(['"', '\'']);
    let package =
        words.filter_map(|word| word.strip_suffix(".settings")).find(|package| is_plain(package))?;
    Some(package.to_owned())
}

/// `[[bin]] name`, or else `[package] name`.
fn cargo_binary(folder: &Folder<'_>) -> String {
    let manifest = (folder.read)("Cargo.toml").and_then(|text| text.parse::<toml::Table>().ok());
    let name_in = |table: &toml::Value| table.get("name").and_then(toml::Value::as_str).map(str::to_owned);
    let named = manifest.as_ref().and_then(|manifest| {
        let binary = manifest.get("bin").and_then(|bins| bins.get(0)).and_then(name_in);
        binary.or_else(|| manifest.get("package").and_then(name_in))
    });
    plain_or_folder(named, folder)
}

fn go_binary(folder: &Folder<'_>) -> String {
    let module = (folder.read)("go.mod")
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("module ")).map(str::to_owned));
    let is_version = |part: &&str| part.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    let last =
        module.and_then(|path| path.trim().rsplit('/').find(|part| !is_version(part)).map(str::to_owned));
    plain_or_folder(last, folder)
}

fn plain_or_folder(name: Option<String>, folder: &Folder<'_>) -> String {
    let name = name.unwrap_or_else(|| folder.name.to_owned());
    if is_plain(&name) { name } else { "app".to_owned() }
}

/// A word that means the same in TOML, in a command line and in the file system.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn whole_site(because: &str, command: &str) -> String {
    let command = quoted(command);
    format!(
        r#"# The site of this application. `dolmen check` finds every mistake in this file, `dolmen plan` shows
# what will run where, and `dolmen up` runs it all on this computer.

domain = "www.example.com"      # the name that people type

[app]
# {because}.
# It is started with HOST and PORT, where it must answer, and with DATABASE_URL and DATABASE_REPLICA_URL.
# No shell reads this line; write sh -c '…' if you need one.
command = {command}
# workers = 2                   # processes on each machine
# health = "/"                  # a path that answers 2xx when the application can serve

# [app.environment]             # what else the application is given; secrets come from elsewhere
# SECRET_KEY = "env:SECRET_KEY" # or "file:secrets/key"

# Everything below has a default. This is how to have more than one machine:

# [machines]                    # name = address
# alpha = "203.0.113.10"
# beta  = "203.0.113.11"
# gamma = "203.0.113.12"

# [balancer]
# on = ["alpha"]

# [web]
# on = ["beta", "gamma"]
# root = "public"               # a file here is served; anything else goes to the application

# [database]
# on = ["beta", "gamma"]        # PostgreSQL; the first is the first primary, the others are replicas
# url = "env:DATABASE_URL"      # or, in place of `on`, a database that somebody else runs
"#
    )
}

fn static_site(root: &str) -> String {
    let root = quoted(root);
    format!(
        r#"# A site of files. `dolmen check` finds every mistake in this file, `dolmen plan` shows what will run
# where, and `dolmen up` runs it all on this computer.

domain = "www.example.com"      # the name that people type

[dns]                           # answers for the name

[balancer]                      # takes the requests

[web]                           # serves the files
root = {root}

# Everything else has a default. This is how to have more than one machine:

# [machines]                    # name = address
# alpha = "203.0.113.10"
# beta  = "203.0.113.11"
# gamma = "203.0.113.12"
"#
    )
}
