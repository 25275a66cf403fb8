//! What `dolmen init` writes for each kind of application is right as it stands.

use std::path::Path;

use plan::{Files, Folder, Ground, Place, Plan, Site, init, render};

struct Names<'a>(&'a [String]);

impl Files for Names<'_> {
    fn is_folder(&self, path: &Path) -> bool {
        let inside = format!("{}/", path.display());
        path == Path::new(".") || self.0.iter().any(|name| name.starts_with(&inside))
    }

    fn is_file(&self, path: &Path) -> bool {
        self.0.iter().any(|name| Path::new(name) == path)
    }
}

/// The plan of what is written for a folder with these files and their texts.
fn written(files: &[(&str, &str)]) -> Plan {
    let names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    let read =
        |name: &str| files.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    let text = init(&Folder { name: "shop", names: &names, read: &read });
    let site = Site::from_text(&text);
    let files = Names(&names);
    let ground = Ground { place: Place::Up { block: 1 }, generation: 1, folder: "shop", files: &files };
    site.plan(&ground)
        .unwrap_or_else(|mistakes| panic!("{}\n{text}", render(&mistakes, &text, "dolmen.toml", false)))
}

#[track_caller]
fn check(files: &[(&str, &str)], command: &str) {
    assert_eq!(written(files).app.expect("there is an application").command, command);
}

#[test]
fn programs() {
    check(&[("package.json", "{}")], "npm start");
    check(&[("app.py", "")], "python3 app.py");
    check(&[("main.py", ""), ("package.json", "{}")], "python3 main.py");
    let manage = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'store.settings')";
    check(&[("manage.py", manage), ("requirements.txt", "django\ngunicorn\n")], "gunicorn store.wsgi");
    check(&[("manage.py", "")], "sh -c 'exec python3 manage.py runserver --noreload \"$HOST:$PORT\"'");
    check(&[("Gemfile", "")], "sh -c 'exec bundle exec puma --bind \"tcp://$HOST:$PORT\"'");
    check(&[("Cargo.toml", "[package]\nname = \"store\"\n")], "store");
    check(&[("Cargo.toml", "[package]\nname = \"a\"\n[[bin]]\nname = \"b\"\n")], "b");
    check(&[("Cargo.toml", "this is not TOML")], "shop");
    check(&[("go.mod", "module example.com/store/v2\n\ngo 1.24\n")], "store");
    check(&[("go.mod", "")], "shop");
    check(&[("Procfile", "worker: x\nweb: gunicorn app\n")], "gunicorn app");
    check(&[("Procfile", "web: run -p $PORT\n")], "sh -c 'exec run -p $PORT'");
    check(&[], "python3 app.py");
}

#[test]
fn pages() {
    for (files, root) in [
        (&[("public/index.html", "")][..], "public"),
        (&[("dist/index.html", ""), ("index.html", "")][..], "dist"),
        (&[("index.html", "")][..], "."),
    ] {
        let plan = written(files);
        assert_eq!(plan.app, None);
        assert_eq!(plan.web.expect("there are pages").root.as_deref(), Some(Path::new(root)));
    }
}
