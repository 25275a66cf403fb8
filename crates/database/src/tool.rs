//! Runs one of PostgreSQL's tools to its end, with a time limit, keeping what it wrote.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use crate::child::Child;

/// What is kept of a tool's output.
const OUTPUT_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("{tool} cannot run: {error}")]
    Run { tool: String, error: io::Error },
    #[error("{tool} failed: {said}")]
    Failed { tool: String, said: String },
    #[error("{tool} took longer than {} s", limit.as_secs())]
    TooLong { tool: String, limit: Duration },
}

/// A command with a known environment: messages in English, and no `PG…` variable of whoever started us.
pub(crate) fn command(bin: &Path, tool: &str) -> Command {
    let mut command = Command::new(bin.join(tool));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").stdin(Stdio::null());
    // A PostgreSQL in a folder of its own may need its libraries named.
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

/// Runs it and returns its standard output. `progress` sees each line of standard error, where a carriage
/// return ends a line too. The tool is killed when the future is dropped.
pub(crate) async fn run(
    mut command: Command,
    limit: Duration,
    progress: impl FnMut(&str),
) -> Result<String, ToolError> {
    let tool =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    match tokio::time::timeout(limit, to_end(command, progress)).await {
        Err(_) => Err(ToolError::TooLong { tool, limit }),
        Ok(Err(error)) => Err(ToolError::Run { tool, error }),
        Ok(Ok((true, out, _))) => Ok(out),
        Ok(Ok((false, _, said))) => Err(ToolError::Failed { tool, said }),
    }
}

async fn to_end(mut command: Command, progress: impl FnMut(&str)) -> io::Result<(bool, String, String)> {
    let (mut child, pipes) = Child::spawn(&mut command)?;
    let (Some(out), Some(err)) = (pipes.stdout, pipes.stderr) else {
        return Err(io::Error::other("no pipes"));
    };
    let (out, said) = tokio::try_join!(all(out.into()), lines(err.into(), progress))?;
    let status = child.wait().await?;
    Ok((status.success(), out, if said.is_empty() { status.to_string() } else { said }))
}

async fn all(pipe: OwnedFd) -> io::Result<String> {
    let mut text = Vec::new();
    let mut pipe = Receiver::from_owned_fd(pipe)?.take(OUTPUT_BYTES as u64);
    pipe.read_to_end(&mut text).await?;
    // The rest is read and dropped, so that the tool does not wait for us.
    tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Returns the last line that says what went wrong, or else the last one.
async fn lines(pipe: OwnedFd, mut progress: impl FnMut(&str)) -> io::Result<String> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    let mut buffer = Vec::new();
    let (mut last, mut error) = (String::new(), None);
    while pipe.read_buf(&mut buffer).await? != 0 {
        while let Some(end) = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).trim().to_owned();
            if line.is_empty() {
                continue;
            }
            progress(&line);
            if line.contains("error: ") || line.contains("FATAL: ") {
                error = Some(line.clone());
            }
            last = line;
        }
        if buffer.len() > OUTPUT_BYTES {
            buffer.clear();
        }
    }
    Ok(error.unwrap_or(last))
}
