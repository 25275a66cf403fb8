//! Both ends of an agent API connection: TLS, greeting, then frames.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::authority::{AuthorityError, Identity, OPERATOR, now_s, server_name};
use super::fingerprint::Fingerprint;
use super::guests::Guests;
use super::{Answer, Ask, Greeting, Token, VERSION};
use crate::frame::{self, FrameError};

/// How long connecting, the handshake and the greeting may take together.
const OPENING: Duration = Duration::from_secs(3);

/// The largest greeting in bytes: those of a later version may say more.
const GREETING: usize = 4 * 1024;

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
    /// Has no certificate of the site, but this key, which a token gave.
    Guest(Fingerprint),
}

/// An open connection of either side.
#[derive(Debug)]
pub struct Conversation {
    stream: TlsStream<TcpStream>,
    /// What the other end has shown, its key, and where it is said when that is revoked.
    certificate: CertificateDer<'static>,
    with: Fingerprint,
    guests: Guests,
    /// How far the clock at the other end is ahead of ours, if it said so.
    ahead_s: Option<i64>,
}

impl Conversation {
    fn new(stream: TlsStream<TcpStream>, guests: Guests) -> Result<Self, AuthorityError> {
        let shown = stream.get_ref().1.peer_certificates();
        let with = key(shown)?;
        let certificate = shown.and_then(|all| all.first()).cloned().ok_or(AuthorityError::NoCertificate)?;
        Ok(Self { stream, certificate: certificate.into_owned(), with, guests, ahead_s: None })
    }

    /// The certificate of the other end, whose key it has proven to hold.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// How far the clock at the other end is ahead of ours; an earlier version does not say it.
    pub fn ahead_s(&self) -> Option<i64> {
        self.ahead_s
    }

    pub async fn ask(&mut self, ask: &Ask) -> Result<(), FrameError> {
        self.still_trusted()?;
        frame::write(&mut self.stream, ask).await
    }

    /// The next answer; a refusal is an error.
    pub async fn answer(&mut self) -> Result<Answer, ApiError> {
        let answer = frame::read(&mut self.stream, frame::LIMIT).await?;
        self.still_trusted()?;
        match answer {
            Answer::Refused { because } => Err(ApiError::Refused(because)),
            answer => Ok(answer),
        }
    }

    /// The next ask, of at most so many bytes: those to an agent are short, and many may come at one time.
    pub async fn asked(&mut self, limit: usize) -> Result<Ask, FrameError> {
        let ask = frame::read(&mut self.stream, limit).await?;
        self.still_trusted()?;
        Ok(ask)
    }

    pub async fn say(&mut self, answer: &Answer) -> Result<(), FrameError> {
        self.still_trusted()?;
        frame::write(&mut self.stream, answer).await
    }

    fn still_trusted(&self) -> Result<(), FrameError> {
        if self.guests.has_revoked(&self.with) {
            return Err(FrameError::Unexpected("the key at the other end was revoked".into()));
        }
        Ok(())
    }

    async fn greet(&mut self, site: &str) -> Result<(), ApiError> {
        let clock_s = Some(now_s());
        frame::write(&mut self.stream, &Greeting { version: VERSION, site: site.to_owned(), clock_s })
            .await?;
        let theirs: Greeting = frame::read(&mut self.stream, GREETING).await?;
        self.ahead_s = theirs.clock_s.map(|theirs| theirs.cast_signed() - now_s().cast_signed());
        if theirs.version.abs_diff(VERSION) > 1 {
            return Err(ApiError::Version { theirs: theirs.version });
        }
        if theirs.site != site {
            return Err(ApiError::OtherSite { ours: site.to_owned(), theirs: theirs.site });
        }
        Ok(())
    }
}

/// The key of the other side's certificate.
fn key(certificates: Option<&[CertificateDer<'_>]>) -> Result<Fingerprint, AuthorityError> {
    let certificate = certificates.and_then(|all| all.first()).ok_or(AuthorityError::NoCertificate)?;
    Ok(Fingerprint::of(&ParsedCertificate::try_from(certificate)?.subject_public_key_info()))
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
        let mut conversation = Conversation::new(stream.into(), identity.guests.clone())?;
        conversation.still_trusted()?;
        conversation.greet(site).await?;
        Ok(conversation)
    };
    timeout(OPENING, open).await.unwrap_or(Err(ApiError::Slow(address)))
}

/// Connects to the agent that gave this token, and only to it, with the token's key.
pub async fn call_as_guest(token: &Token) -> Result<Conversation, ApiError> {
    let address = token.address;
    let name = server_name(&token.issuer)?;
    let config = token.client()?;
    let open = async {
        let tcp = |error| ApiError::Connect { address, error };
        let stream = TcpStream::connect(address).await.map_err(tcp)?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(tcp)?;
        let mut conversation = Conversation::new(stream.into(), Guests::default())?;
        conversation.greet(&token.site).await?;
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
            let caller = self.caller(&stream)?;
            let mut conversation = Conversation::new(stream.into(), self.identity.guests.clone())?;
            conversation.greet(&self.site).await?;
            Ok((conversation, caller))
        };
        timeout(OPENING, open).await.unwrap_or(Err(ApiError::Slow(peer)))
    }

    fn caller(&self, stream: &tokio_rustls::server::TlsStream<TcpStream>) -> Result<Caller, AuthorityError> {
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        // The handshake does not succeed without one.
        let Some(certificate) = certificates.first() else { return Err(AuthorityError::NoCertificate) };
        if !self.identity.trusts(certificate) {
            return Ok(Caller::Guest(key(Some(certificates))?));
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let operator = rustls::client::verify_server_name(&parsed, &server_name(OPERATOR)?).is_ok();
        Ok(if operator { Caller::Operator } else { Caller::Agent })
    }
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
            let _: Ask = conversation.asked(frame::LIMIT).await?;
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

    fn token(authority: Fingerprint, address: SocketAddr, seed: u8) -> Token {
        Token::new("www.foobar.com", "gamma", ("beta", address), authority, [seed; 32])
    }

    async fn as_guest(token: &Token) -> Result<Answer, ApiError> {
        let mut conversation = call_as_guest(token).await?;
        conversation.ask(&Ask::Status).await?;
        conversation.answer().await
    }

    #[tokio::test]
    async fn the_key_of_a_token_is_let_in_as_a_guest_and_no_other_key_is() {
        let folder = Folder::new("guest");
        let authority = folder.0.join("authority");
        let guests = Guests::default();
        let identity = folder.identity(&authority, "beta");
        let fingerprint = Authority::open(&authority).unwrap().fingerprint().unwrap();

        let (address, served) = door(identity.welcoming(guests.clone()).unwrap()).await;
        let known = token(fingerprint, address, 1);
        guests.replace([known.key().unwrap()]);
        assert!(matches!(as_guest(&known).await, Ok(Answer::Done)));
        assert_eq!(served.await.unwrap().unwrap(), Caller::Guest(known.key().unwrap()));

        let (address, served) = door(identity.welcoming(guests.clone()).unwrap()).await;
        assert!(as_guest(&token(fingerprint, address, 2)).await.is_err());
        assert!(served.await.unwrap().is_err());

        let (address, served) = door(identity).await;
        assert!(as_guest(&token(fingerprint, address, 1)).await.is_err(), "this door has no guests");
        assert!(served.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_token_is_not_shown_to_another_site_or_another_machine() {
        let folder = Folder::new("shown");
        let authority = folder.0.join("authority");
        let identity = folder.identity(&authority, "beta");
        let (address, served) = door(identity.welcoming(Guests::default()).unwrap()).await;
        let other = token(Fingerprint::of(b"another authority"), address, 1);
        assert!(matches!(as_guest(&other).await, Err(ApiError::Connect { .. })));
        assert!(served.await.unwrap().is_err());

        let fingerprint = Authority::open(&authority).unwrap().fingerprint().unwrap();
        let (address, served) = door(identity.welcoming(Guests::default()).unwrap()).await;
        let mut elsewhere = token(fingerprint, address, 1);
        elsewhere.issuer = "alpha".into();
        assert!(matches!(as_guest(&elsewhere).await, Err(ApiError::Connect { .. })));
        assert!(served.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_revoked_key_ends_what_is_said_and_is_not_let_in_again() {
        let folder = Folder::new("revoked");
        let authority = folder.0.join("authority");
        let guests = Guests::default();
        let gamma = folder.identity(&authority, "gamma");
        let request = super::super::request(&folder.0.join("gamma"), "gamma").unwrap();
        let key = super::super::requested_key(&request).unwrap();
        let identity = folder.identity(&authority, "beta").welcoming(guests.clone()).unwrap();

        let (address, served) = door(identity.clone()).await;
        let mut conversation = call(&gamma, "www.foobar.com", "beta", address).await.unwrap();
        guests.revoke([key]);
        conversation.ask(&Ask::Status).await.unwrap();
        assert!(conversation.answer().await.is_err());
        assert!(served.await.unwrap().is_err());

        let (address, served) = door(identity.clone()).await;
        assert!(talk(&gamma, "beta", address).await.is_err());
        assert!(served.await.unwrap().is_err());

        let (address, served) = door(gamma).await;
        assert!(talk(&identity, "gamma", address).await.is_err(), "nor is it listened to");
        assert!(served.await.unwrap().is_err());
    }

    /// What a stranger is sent before the connection ends.
    async fn sent_to(hostile: Vec<u8>) -> Vec<u8> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let folder = Folder::new(&format!("hostile-{}", hostile.len()));
        let identity = folder.identity(&folder.0.join("authority"), "beta");
        let (address, served) = door(identity.welcoming(Guests::default()).unwrap()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be cut off in the middle.
        drop(stream.write_all(&hostile).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        assert!(served.await.unwrap().is_err());
        answer
    }

    #[tokio::test]
    async fn bytes_that_are_no_handshake_get_an_alert_at_most() {
        let frame = |length: u32| [&length.to_be_bytes()[..], b"{\"version\":1}"].concat();
        for hostile in [frame(13), frame(u32::MAX), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0x16; 1 << 20]] {
            let answer = sent_to(hostile).await;
            assert!(answer.len() <= 16, "{} bytes", answer.len());
        }
    }
}
