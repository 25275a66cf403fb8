//! Both ends of an agent API connection: TLS, greeting, then frames.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::server::ParsedCertificate;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::authority::{AuthorityError, Identity, OPERATOR, server_name};
use super::{Answer, Ask, Greeting, VERSION};
use crate::frame::{self, FrameError};

/// How long connecting, the handshake and the greeting may take together.
const OPENING: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("no agent answers at {address}: {error}")]
    Connect { address: SocketAddr, error: std::io::Error },
    #[error("the agent at {0} does not answer in time")]
    Slow(SocketAddr),
    #[error("the other side speaks version {theirs} of the agent API, this one version {VERSION}")]
    Version { theirs: u32 },
    #[error("the agent at the other side belongs to the site {theirs}, not {ours}")]
    OtherSite { ours: String, theirs: String },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Refused(String),
}

/// Who is at the other end, by its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Operator,
    Agent,
}

/// An open connection of either side.
#[derive(Debug)]
pub struct Conversation {
    stream: TlsStream<TcpStream>,
}

impl Conversation {
    pub async fn ask(&mut self, ask: &Ask) -> Result<(), FrameError> {
        frame::write(&mut self.stream, ask).await
    }

    /// The next answer; a refusal is an error.
    pub async fn answer(&mut self) -> Result<Answer, ApiError> {
        match frame::read(&mut self.stream).await? {
            Answer::Refused { because } => Err(ApiError::Refused(because)),
            answer => Ok(answer),
        }
    }

    pub async fn asked(&mut self) -> Result<Ask, FrameError> {
        frame::read(&mut self.stream).await
    }

    pub async fn say(&mut self, answer: &Answer) -> Result<(), FrameError> {
        frame::write(&mut self.stream, answer).await
    }

    async fn greet(&mut self, site: &str) -> Result<(), ApiError> {
        frame::write(&mut self.stream, &Greeting { version: VERSION, site: site.to_owned() }).await?;
        let theirs: Greeting = frame::read(&mut self.stream).await?;
        if theirs.version.abs_diff(VERSION) > 1 {
            return Err(ApiError::Version { theirs: theirs.version });
        }
        if theirs.site != site {
            return Err(ApiError::OtherSite { ours: site.to_owned(), theirs: theirs.site });
        }
        Ok(())
    }
}

/// Connects to the agent of the machine of this name, and only to it.
pub async fn call(
    identity: &Identity,
    site: &str,
    machine: &str,
    address: SocketAddr,
) -> Result<Conversation, ApiError> {
    let name = server_name(machine)?;
    let open = async {
        let tcp = |error| ApiError::Connect { address, error };
        let stream = TcpStream::connect(address).await.map_err(tcp)?;
        stream.set_nodelay(true).map_err(tcp)?;
        let stream = TlsConnector::from(identity.client.clone()).connect(name, stream).await.map_err(tcp)?;
        let mut conversation = Conversation { stream: stream.into() };
        conversation.greet(site).await?;
        Ok(conversation)
    };
    timeout(OPENING, open).await.unwrap_or(Err(ApiError::Slow(address)))
}

/// Where an agent answers.
pub struct Door {
    pub listener: TcpListener,
    pub identity: Identity,
    pub site: String,
}

impl Door {
    /// The next TCP connection; who it is, is found out by [`Door::welcome`], beside other connections.
    pub async fn accept(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    /// Handshake and greeting. Nobody without a certificate of our authority gets past it.
    pub async fn welcome(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<(Conversation, Caller), ApiError> {
        let open = async {
            let tcp = |error| ApiError::Connect { address: peer, error };
            stream.set_nodelay(true).map_err(tcp)?;
            let stream = TlsAcceptor::from(self.identity.server.clone()).accept(stream).await.map_err(tcp)?;
            let caller = caller(&stream)?;
            let mut conversation = Conversation { stream: stream.into() };
            conversation.greet(&self.site).await?;
            Ok((conversation, caller))
        };
        timeout(OPENING, open).await.unwrap_or(Err(ApiError::Slow(peer)))
    }
}

fn caller(stream: &tokio_rustls::server::TlsStream<TcpStream>) -> Result<Caller, AuthorityError> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let Some(certificate) = certificates.first() else { return Ok(Caller::Agent) };
    let parsed = ParsedCertificate::try_from(certificate)?;
    let operator = rustls::client::verify_server_name(&parsed, &server_name(OPERATOR)?).is_ok();
    Ok(if operator { Caller::Operator } else { Caller::Agent })
}

#[cfg(test)]
mod tests {
    use super::super::Authority;
    use super::*;
    use std::path::{Path, PathBuf};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("dolmen-door-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn identity(&self, authority: &Path, name: &str) -> Identity {
            let folder = self.0.join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::create_dir_all(authority).unwrap();
            Authority::open(authority).unwrap().issue(name, &folder).unwrap();
            Identity::open(&folder).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    async fn door(identity: Identity) -> (SocketAddr, tokio::task::JoinHandle<Result<Caller, ApiError>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door { listener, identity, site: "www.foobar.com".into() };
        let task = tokio::spawn(async move {
            let (stream, peer) = door.accept().await.unwrap();
            let (mut conversation, caller) = door.welcome(stream, peer).await?;
            let _: Ask = conversation.asked().await?;
            conversation.say(&Answer::Done).await?;
            Ok(caller)
        });
        (address, task)
    }

    async fn talk(identity: &Identity, machine: &str, address: SocketAddr) -> Result<Answer, ApiError> {
        let mut conversation = call(identity, "www.foobar.com", machine, address).await?;
        conversation.ask(&Ask::Status).await?;
        conversation.answer().await
    }

    #[tokio::test]
    async fn the_operator_is_known_and_a_machine_is_not_the_operator() {
        let folder = Folder::new("known");
        let authority = folder.0.join("authority");
        for (name, expected) in [(OPERATOR, Caller::Operator), ("gamma", Caller::Agent)] {
            let (address, served) = door(folder.identity(&authority, "beta")).await;
            let caller = folder.identity(&authority, name);
            assert!(matches!(talk(&caller, "beta", address).await, Ok(Answer::Done)));
            assert_eq!(served.await.unwrap().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_stranger_gets_no_answer() {
        let folder = Folder::new("stranger");
        let (address, served) = door(folder.identity(&folder.0.join("authority"), "beta")).await;
        let stranger = folder.identity(&folder.0.join("other-authority"), "mallory");
        assert!(talk(&stranger, "beta", address).await.is_err());
        assert!(served.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_machine_that_is_another_one_is_refused() {
        let folder = Folder::new("other");
        let authority = folder.0.join("authority");
        let (address, served) = door(folder.identity(&authority, "beta")).await;
        let caller = folder.identity(&authority, OPERATOR);
        assert!(talk(&caller, "gamma", address).await.is_err());
        assert!(served.await.unwrap().is_err());
    }
}
