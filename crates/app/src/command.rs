//! Where the program of `command` is: in the application files, beside the dolmen binary, or on PATH.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plan::command::CommandError;

/// A command that can be started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
}

/// Why a command cannot be started. The sentences end a line that begins with the worker.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("{0}: {hint}", hint = .0.hint())]
    Words(#[from] CommandError),
    #[error("the application files {} are not there", .0.display())]
    Files(PathBuf),
    #[error(
        "\"{name}\" is neither in the application files, nor beside dolmen, nor on PATH: install it, or correct [app] command"
    )]
    Nowhere { name: String },
    #[error("{} may not be executed: chmod +x it, or name its interpreter first in [app] command", .0.display())]
    NotExecutable(PathBuf),
}

/// The places where programs are sought, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) files: &'a Path,
    pub(crate) programs: &'a Path,
    pub(crate) path: &'a OsStr,
}

/// Splits the command line and finds its program.
pub(crate) fn find(line: &str, places: Places<'_>) -> Result<Command, Missing> {
    let mut words = plan::command::words(line)?.into_iter();
    let name = words.next().ok_or(CommandError::Empty)?;
    if !places.files.is_dir() {
        return Err(Missing::Files(places.files.to_owned()));
    }
    // As in a shell, a name with a slash is a path and not sought on PATH.
    let elsewhere: Vec<PathBuf> = if name.contains('/') {
        Vec::new()
    } else {
        std::iter::once(places.programs.to_owned()).chain(std::env::split_paths(places.path)).collect()
    };
    let all = || std::iter::once(places.files).chain(elsewhere.iter().map(PathBuf::as_path));
    let found = all().map(|folder| folder.join(&name)).find(|path| is_program(path));
    if let Some(program) = found {
        return Ok(Command { program, arguments: words.collect() });
    }
    let nearly = all().map(|folder| folder.join(&name)).find(|path| path.is_file());
    Err(nearly.map_or(Missing::Nowhere { name }, Missing::NotExecutable))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, Permissions};

    #[test]
    fn a_program_is_sought_in_order() {
        let root = std::env::temp_dir().join(format!("dolmen-command-{}", std::process::id()));
        let (files, programs, path) = (root.join("files"), root.join("programs"), root.join("path"));
        for (folder, name, mode) in [
            (&files, "both", 0o755),
            (&programs, "both", 0o755),
            (&programs, "beside", 0o755),
            (&path, "installed", 0o755),
            (&files, "script.py", 0o644),
            (&files, "installed", 0o644),
        ] {
            fs::create_dir_all(folder).unwrap();
            let file = File::create(folder.join(name)).unwrap();
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
        }
        let places = Places { files: &files, programs: &programs, path: path.as_os_str() };
        let program = |line: &str| find(line, places).map(|command| command.program);
        assert_eq!(program("both --now"), Ok(files.join("both")));
        assert_eq!(program("beside"), Ok(programs.join("beside")));
        assert_eq!(program("installed 'a b'"), Ok(path.join("installed")));
        assert_eq!(find("installed 'a b'", places).unwrap().arguments, ["a b"]);
        assert_eq!(program("./both"), Ok(files.join("./both")));
        assert_eq!(program("script.py"), Err(Missing::NotExecutable(files.join("script.py"))));
        assert_eq!(program("./beside"), Err(Missing::Nowhere { name: "./beside".into() }));
        assert_eq!(program("a 'b"), Err(Missing::Words(CommandError::OpenQuote('\''))));
        let gone = Places { files: Path::new("/nonexistent"), ..places };
        assert!(matches!(find("both", gone), Err(Missing::Files(_))));
        fs::remove_dir_all(&root).unwrap();
    }
}
