//! The application of the case `path`: the cheapest worker that is still a program of its own.
//!
//! Every request is answered at once with the same 1 KiB. It listens on HOST and PORT from its environment, as a
//! worker of any app server does. One thread for each connection, requests read up to the empty line and no
//! further: clients here send no bodies. It must never be the bottleneck, and its processor time is not counted.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

const BODY_BYTES: usize = 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;
const STACK_BYTES: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let variable =
        |name: &str| std::env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")));
    let listener = TcpListener::bind(format!("{}:{}", variable("HOST")?, variable("PORT")?))?;
    let answer = answer();
    loop {
        let (stream, _) = listener.accept()?;
        let answer = answer.clone();
        // An error ends one connection; its client has gone away.
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || serve(stream, &answer).ok())?;
    }
}

fn answer() -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + BODY_BYTES, b'x');
    answer
}

fn serve(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; HEAD_BYTES_MAX];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            stream.write_all(answer)?;
            filled = 0;
        }
    }
}
