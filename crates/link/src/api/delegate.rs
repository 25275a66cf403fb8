//! The keys by which servers know each other: their machine makes them, and signs them with its own.
//!
//! A machine's own key opens control and the agents, so a server whose account runs the site's programs must not hold
//! it. A delegated key opens other servers and nothing else: what it shows was not signed by the authority, and no door
//! takes that. After its certificate it shows the machine's, which the authority did sign.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use plan::{Plan, Server, Target};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use super::authority::{
    AUTHORITY, AuthorityError, CERTIFICATE, KEY, REVOKED, clients, name_in, named, now_s, parse, server_name,
};
use super::fingerprint::Fingerprint;
use super::guests::{Clients, Guests};
use super::shown::Shown;
use crate::{Secret, Secrets};

/// Secrets of a server that holds a delegated key.
const DELEGATED: &str = "server.crt";
const DELEGATED_KEY: &str = "server.key";

/// A delegated key, ready for both ends of a connection. Clones show the same.
#[derive(Clone, Debug)]
pub struct Delegate {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    shown: Arc<Shown>,
    guests: Guests,
}

impl Delegate {
    /// A new one, as secrets, made with the key of the machine whose identity is in this folder.
    pub fn secrets(folder: &Path, revoked: &[Fingerprint]) -> Result<Secrets, AuthorityError> {
        let read = |file: &str| std::fs::read_to_string(folder.join(file));
        let (certificate, authority) = (read(CERTIFICATE)?, read(AUTHORITY)?);
        let name = name_in(&from_pem(CERTIFICATE, &certificate)?)?;
        let mut machine = CertificateParams::new(Vec::new())?;
        machine.distinguished_name = rcgen::DistinguishedName::new();
        machine.distinguished_name.push(DnType::CommonName, &name);
        let issuer = Issuer::new(machine, KeyPair::from_pem(&read(KEY)?)?);
        let key = KeyPair::generate()?;
        let delegated = named(&format!("servers.{name}"), now_s())?.signed_by(&key, &issuer)?;
        let mut secrets = Secrets::default();
        secrets.insert(DELEGATED, Secret::new(delegated.pem()));
        secrets.insert(DELEGATED_KEY, Secret::new(key.serialize_pem()));
        secrets.insert(CERTIFICATE, Secret::new(certificate));
        secrets.insert(AUTHORITY, Secret::new(authority));
        secrets.insert(REVOKED, Secret::new(serde_json::to_string(revoked)?));
        Ok(secrets)
    }

    /// The one that a server was given to talk to others in this plan; None: it was given none, and needs none.
    pub(crate) fn for_plan(plan: &Plan, secrets: &Secrets) -> Result<Option<Self>, AuthorityError> {
        let needs_none = secrets.get(DELEGATED).is_none() && !plan.encrypted;
        if needs_none { Ok(None) } else { Self::given(secrets).map(Some) }
    }

    /// The one among the secrets that a server was given.
    pub fn given(secrets: &Secrets) -> Result<Self, AuthorityError> {
        let text = |file: &str| secrets.get(file).map(|secret| secret.reveal()).unwrap_or_default();
        let certificate = |file: &str| from_pem(file, text(file));
        let key = PrivateKeyDer::from_pem_slice(text(DELEGATED_KEY).as_bytes());
        let key = key.map_err(|error| AuthorityError::Pem { file: DELEGATED_KEY.into(), error })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = [&rustls::version::TLS13];
        let chain = vec![certificate(DELEGATED)?, certificate(CERTIFICATE)?];
        let shown = Arc::new(Shown::new(chain, key, &provider)?);
        let guests = Guests::default();
        guests.revoke(serde_json::from_str::<Vec<Fingerprint>>(text(REVOKED))?);
        let own = clients(certificate(AUTHORITY)?, &provider)?;
        let verifier = Arc::new(Delegates(Clients { own, guests: guests.clone() }));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::clone(&shown) as _);
        // A resumed session would not be asked for its certificate again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::clone(&shown) as _);
        Ok(Self { server: Arc::new(server), client: Arc::new(client), shown, guests })
    }

    /// Shows what a newer one shows from now on, and knows whom that one knows to be revoked. All clones do.
    pub fn renew(&self, newer: &Delegate) {
        self.shown.replace(newer.shown.now());
        self.guests.revoke(newer.guests.revoked());
    }

    /// How many keys it knows to be revoked.
    pub fn revoked(&self) -> usize {
        self.guests.revoked().len()
    }

    /// For connections that other servers make.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// What connections from `me` to this target are to be made with, when it may not be reached without.
    pub fn way(
        keys: Option<&Self>,
        plan: &Plan,
        me: &Server,
        target: &Target,
    ) -> Result<Option<(Arc<ClientConfig>, ServerName<'static>)>, AuthorityError> {
        let Some(machine) = plan.reached_in_tls(me, target) else { return Ok(None) };
        keys.ok_or(AuthorityError::NoDelegate)?.client(machine).map(Some)
    }

    /// For connections to servers of a machine, and the name by which they are known.
    pub fn client(&self, machine: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>), AuthorityError> {
        Ok((Arc::clone(&self.client), server_name(machine)?))
    }
}

fn from_pem(file: &str, text: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    let certificate = CertificateDer::from_pem_slice(text.as_bytes());
    certificate.map_err(|error| AuthorityError::Pem { file: file.to_owned(), error })
}

/// Accepts what a machine of the site has signed: one of those that these accept, which is no guest.
#[derive(Debug)]
struct Delegates(Clients);

impl Delegates {
    /// The certificate of the machine that signed this one.
    fn machine<'c>(
        &self,
        delegated: &CertificateDer<'_>,
        after_it: &'c [CertificateDer<'c>],
        now: UnixTime,
    ) -> Result<ParsedCertificate<'c>, Error> {
        let [machine, ..] = after_it else { return Err(CertificateError::UnknownIssuer.into()) };
        self.0.verify_client_cert(machine, &[], now)?;
        let known = ParsedCertificate::try_from(machine)?;
        let wrong = |_| CertificateError::BadEncoding;
        let (machine, delegated) = (parse(machine).map_err(wrong)?, parse(delegated).map_err(wrong)?);
        let key = &machine.public_key().subject_public_key.data;
        let signature = &delegated.signature_value.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(delegated.tbs_certificate.as_ref(), signature)
            .map_err(|_| CertificateError::BadSignature)?;
        let validity = delegated.validity();
        let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        match now.as_secs().cast_signed() {
            now if now < begins => Err(CertificateError::NotValidYet.into()),
            now if now > ends => Err(CertificateError::Expired.into()),
            _ => Ok(known),
        }
    }
}

impl ClientCertVerifier for Delegates {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // What is shown is signed by a machine.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.machine(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Delegates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let machine = self.machine(end_entity, intermediates, now)?;
        rustls::client::verify_server_name(&machine, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Authority, Door, Identity, call};
    use super::*;
    use crate::disk;
    use std::path::PathBuf;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("dolmen-delegate-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        /// The folder of a machine of the site of this authority.
        fn machine(&self, authority: &str, name: &str) -> PathBuf {
            let (authority, folder) = (self.0.join(authority), self.0.join(format!("{authority}-{name}")));
            std::fs::create_dir_all(&authority).unwrap();
            std::fs::create_dir_all(&folder).unwrap();
            Authority::open(&authority).unwrap().issue(name, &folder).unwrap();
            folder
        }
    }

    impl Folder {
        /// One in which a delegated key of this machine stands as if it were a machine's own.
        fn child(&self, machine: &Path) -> PathBuf {
            let (secrets, child) = (Delegate::secrets(machine, &[]).unwrap(), self.0.join("child"));
            std::fs::create_dir_all(&child).unwrap();
            for (file, of) in [(CERTIFICATE, DELEGATED), (KEY, DELEGATED_KEY), (AUTHORITY, AUTHORITY)] {
                let text = secrets.get(of).unwrap().reveal().as_bytes();
                disk::replace(&child.join(file), text, disk::Access::Owner).unwrap();
            }
            child
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn delegate(folder: &Path, revoked: &[Fingerprint]) -> Delegate {
        Delegate::given(&Delegate::secrets(folder, revoked).unwrap()).unwrap()
    }

    /// Whether both ends of a connection from one to the other, who is expected to be of this machine, are content.
    async fn meets(client: &Delegate, machine: &str, server: &Delegate) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, name) = client.client(machine).unwrap();
        let calls = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut stream = TlsConnector::from(config).connect(name, stream).await?;
            // In TLS 1.3 a client hears only now whether it was accepted.
            tokio::io::AsyncReadExt::read_u8(&mut stream).await
        };
        let answers = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(server.server()).accept(stream).await?;
            tokio::io::AsyncWriteExt::write_u8(&mut stream, 1).await?;
            tokio::io::AsyncWriteExt::flush(&mut stream).await
        };
        let (called, answered) = tokio::join!(calls, answers);
        called.is_ok() && answered.is_ok()
    }

    #[tokio::test]
    async fn servers_of_one_site_know_each_other_by_machine() {
        let folder = Folder::new("know");
        let alpha = delegate(&folder.machine("site", "alpha"), &[]);
        let beta = delegate(&folder.machine("site", "beta"), &[]);
        assert!(meets(&alpha, "beta", &beta).await);
        assert!(!meets(&alpha, "gamma", &beta).await, "it is another machine");
        let stranger = delegate(&folder.machine("other", "beta"), &[]);
        assert!(!meets(&alpha, "beta", &stranger).await && !meets(&stranger, "beta", &beta).await);
        // A newer key of the same machine.
        beta.renew(&delegate(&folder.0.join("site-beta"), &[]));
        assert!(meets(&alpha, "beta", &beta).await && meets(&beta, "alpha", &alpha).await);
    }

    #[tokio::test]
    async fn a_revoked_machine_is_refused_at_both_ends() {
        let folder = Folder::new("revoked");
        let gone = folder.machine("site", "beta");
        let pem = std::fs::read_to_string(gone.join(CERTIFICATE)).unwrap();
        let certificate = from_pem(CERTIFICATE, &pem).unwrap();
        let key = ParsedCertificate::try_from(&certificate).unwrap().subject_public_key_info();
        let beta = delegate(&gone, &[]);
        let alpha = delegate(&folder.machine("site", "alpha"), &[]);
        assert!(meets(&alpha, "beta", &beta).await && meets(&beta, "alpha", &alpha).await);
        alpha.renew(&delegate(&folder.0.join("site-alpha"), &[Fingerprint::of(&key)]));
        assert!(!meets(&alpha, "beta", &beta).await && !meets(&beta, "alpha", &alpha).await);
    }

    #[tokio::test]
    async fn what_a_delegated_key_or_a_machine_signs_for_others_is_nothing() {
        let folder = Folder::new("signs");
        let (alpha, beta) = (folder.machine("site", "alpha"), folder.machine("site", "beta"));
        let honest = delegate(&alpha, &[]);
        // Shows beta's certificate after what alpha has signed, and so speaks for beta.
        let mut forged = Delegate::secrets(&alpha, &[]).unwrap();
        let pem = std::fs::read_to_string(beta.join(CERTIFICATE)).unwrap();
        forged.insert(CERTIFICATE, Secret::new(pem));
        assert!(!meets(&honest, "beta", &Delegate::given(&forged).unwrap()).await);
        // A server that signs on with its delegated key, as if that were a machine's.
        let child = folder.child(&alpha);
        assert!(!meets(&honest, "alpha", &delegate(&child, &[])).await);
        assert!(!meets(&honest, "servers.alpha", &delegate(&child, &[])).await);
    }

    #[tokio::test]
    async fn no_door_takes_a_delegated_key() {
        let folder = Folder::new("door");
        let (alpha, beta) = (folder.machine("site", "alpha"), folder.machine("site", "beta"));
        let child = folder.child(&alpha);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door { listener, identity: Identity::open(&beta).unwrap(), site: "www.foobar.com".into() };
        let served = tokio::spawn(async move {
            for _ in 0..2 {
                let (stream, peer) = door.accept().await.unwrap();
                if door.welcome(stream, peer).await.is_ok() {
                    return true;
                }
            }
            false
        });
        // With the delegated certificate alone, and with the machine's after it.
        let alone = Identity::open(&child).unwrap();
        assert!(call(&alone, "www.foobar.com", "beta", address).await.is_err());
        let (config, name) = delegate(&alpha, &[]).client("beta").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        drop(TlsConnector::from(config).connect(name, stream).await);
        assert!(!served.await.unwrap());
    }
}
