//! The site's own certificate authority, and the identities that it issues.
//!
//! It is made at the site's first start. Only machines that may issue certificates have its key, and they get it
//! sealed. A name in a certificate is a machine's, or [`OPERATOR`] for the commands of whoever may read the state
//! folder of such a machine.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::fingerprint::Fingerprint;
use super::guests::{Clients, Guests};
use super::shown::Shown;
use super::validity::{Validity, lifetime};
use crate::disk::{self, Access};
use crate::{Secret, Secrets};

/// The name of whoever gives orders.
pub const OPERATOR: &str = "operator";

/// Under this name, which no public DNS has, stand all machines and the operator.
const SUFFIX: &str = "dolmen.internal";

/// The files of an identity, which are also the names of its secrets.
pub(super) const CERTIFICATE: &str = "agent.crt";
pub(super) const KEY: &str = "agent.key";
pub(super) const AUTHORITY: &str = "ca.crt";
/// Whose keys were revoked, among the secrets of a server.
pub(super) const REVOKED: &str = "revoked";
/// Never beside an identity.
const AUTHORITY_KEY: &str = "ca.key";

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot use a certificate: {0}")]
    Use(#[from] rustls::Error),
    #[error("cannot trust clients of the authority: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("{file} holds no certificate or key: {error}")]
    Pem { file: String, error: rustls::pki_types::pem::Error },
    #[error("{0} cannot be a name in a certificate")]
    Name(String),
    #[error("the other side shows no certificate")]
    NoCertificate,
    #[error("a certificate cannot be read: {0}")]
    Read(String),
    #[error("the list of revoked keys cannot be read: {0}")]
    Revoked(#[from] serde_json::Error),
    #[error("the agent gave no keys by which servers of other machines could be reached")]
    NoDelegate,
    #[error("the time cannot stand in a certificate: {0}")]
    Time(#[from] time::error::ComponentRange),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The authority's key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Reads the authority in this folder, or makes it at the first start.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let (key_file, certificate_file) = (folder.join(AUTHORITY_KEY), folder.join(AUTHORITY));
        if !certificate_file.exists() {
            // The certificate is written last: while it is missing, the key was never used.
            let key = KeyPair::generate()?;
            disk::replace(&key_file, key.serialize_pem().as_bytes(), Access::Owner)?;
            let certificate = authority_params()?.self_signed(&key)?;
            disk::replace(&certificate_file, certificate.pem().as_bytes(), Access::Everyone)?;
        }
        let key = KeyPair::from_pem(&std::fs::read_to_string(&key_file)?)?;
        let certificate = std::fs::read_to_string(&certificate_file)?;
        Ok(Self { issuer: Issuer::new(authority_params()?, key), certificate })
    }

    /// Puts the authority of a site that another machine began into this folder.
    pub fn adopt(folder: &Path, key: &Secret, certificate: &str) -> Result<Self, AuthorityError> {
        // In the order of `open`: the certificate says that the key is there.
        disk::replace(&folder.join(AUTHORITY_KEY), key.reveal().as_bytes(), Access::Owner)?;
        disk::replace(&folder.join(AUTHORITY), certificate.as_bytes(), Access::Everyone)?;
        Self::open(folder)
    }

    /// The key in this folder, to be sealed for another machine; None where there is no authority.
    pub fn key(folder: &Path) -> std::io::Result<Option<Secret>> {
        match std::fs::read_to_string(folder.join(AUTHORITY_KEY)) {
            Ok(text) if folder.join(AUTHORITY).exists() => Ok(Some(Secret::new(text))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn key_pair(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// The authority's own certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// By what others know this authority.
    pub fn fingerprint(&self) -> Result<Fingerprint, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let pem = |error| AuthorityError::Pem { file: AUTHORITY.into(), error };
        Ok(Fingerprint::of(&certificate.map_err(pem)?))
    }

    /// Writes a new identity of this name into `folder`: `agent.crt`, `agent.key`, and the authority beside.
    pub fn issue(&self, name: &str, folder: &Path) -> Result<(), AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = named(name, now_s())?.signed_by(&key, &self.issuer)?;
        disk::replace(&folder.join(KEY), key.serialize_pem().as_bytes(), Access::Owner)?;
        put(folder, &certificate.pem(), &self.certificate)
    }

    /// Writes an identity of this name for the key of another one, which is beside its certificate: what is revoked for
    /// one is revoked for both.
    pub fn issue_beside(&self, name: &str, other: &Path, folder: &Path) -> Result<(), AuthorityError> {
        let text = std::fs::read_to_string(other.join(KEY))?;
        let certificate = named(name, now_s())?.signed_by(&KeyPair::from_pem(&text)?, &self.issuer)?;
        disk::replace(&folder.join(KEY), text.as_bytes(), Access::Owner)?;
        put(folder, &certificate.pem(), &self.certificate)
    }

    /// Writes a new certificate of this name for the key in `folder`.
    pub fn renew(&self, name: &str, folder: &Path) -> Result<(), AuthorityError> {
        let key = KeyPair::from_pem(&std::fs::read_to_string(folder.join(KEY))?)?;
        let certificate = named(name, now_s())?.signed_by(&key, &self.issuer)?;
        put(folder, &certificate.pem(), &self.certificate)
    }

    /// A new certificate for the name and key in this one, which somebody has proven to hold.
    pub fn renewed(&self, certificate: &CertificateDer<'_>) -> Result<String, AuthorityError> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let key = rcgen::SubjectPublicKeyInfo::from_der(&key)?;
        Ok(named(&name_in(certificate)?, now_s())?.signed_by(&key, &self.issuer)?.pem())
    }

    /// A certificate of this name for the key of a request, whatever else the request asks for. The key itself
    /// stays where the request was made.
    pub fn sign(&self, name: &str, request: &str) -> Result<String, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        Ok(named(name, now_s())?.signed_by(&request.public_key, &self.issuer)?.pem())
    }
}

/// Makes a key in `folder`, or takes the one that is there, and the request for a certificate of it.
pub fn request(folder: &Path, name: &str) -> Result<String, AuthorityError> {
    let file = folder.join(KEY);
    if !file.exists() {
        disk::replace(&file, KeyPair::generate()?.serialize_pem().as_bytes(), Access::Owner)?;
    }
    let key = KeyPair::from_pem(&std::fs::read_to_string(&file)?)?;
    // What the certificate is for is the authority's to say.
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params.serialize_request(&key)?.pem()?)
}

/// The key that a request was made for.
pub fn requested_key(request: &str) -> Result<Fingerprint, AuthorityError> {
    use rcgen::PublicKeyData;
    let request = CertificateSigningRequestParams::from_pem(request)?;
    Ok(Fingerprint::of(&request.public_key.subject_public_key_info()))
}

/// Puts an issued certificate beside its key.
pub fn put(folder: &Path, certificate: &str, authority: &str) -> Result<(), AuthorityError> {
    disk::replace(&folder.join(AUTHORITY), authority.as_bytes(), Access::Everyone)?;
    disk::replace(&folder.join(CERTIFICATE), certificate.as_bytes(), Access::Everyone)?;
    Ok(())
}

/// The machine that a certificate of ours is for.
pub fn name_in(certificate: &CertificateDer<'_>) -> Result<String, AuthorityError> {
    let parsed = parse(certificate)?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.map(str::to_owned).ok_or_else(|| AuthorityError::Read("it names nobody".into()))
}

pub(super) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<x509_parser::certificate::X509Certificate<'a>, AuthorityError> {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|error| AuthorityError::Read(error.to_string()))
}

pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(super) fn named(name: &str, now_s: u64) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(vec![format!("{name}.{SUFFIX}")])?;
    let validity = Validity::of(lifetime(), now_s);
    let time = |seconds: u64| time::OffsetDateTime::from_unix_timestamp(seconds.cast_signed());
    (params.not_before, params.not_after) = (time(validity.begins_s)?, time(validity.ends_s)?);
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The same every time, since the issuer is made anew from it at each start.
fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "dolmen site authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// One side's certificate and key, ready for both ends of a connection.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    clients: Arc<dyn ClientCertVerifier>,
    /// The authority's public key (SubjectPublicKeyInfo, RFC 5280 section 4.1).
    authority: Arc<[u8]>,
    shown: Arc<Shown>,
    /// Whose keys were revoked, where somebody keeps an eye on that.
    pub(super) guests: Guests,
}

impl Identity {
    /// Reads what [`Authority::issue`] wrote.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let pem =
            |file: &str, error| AuthorityError::Pem { file: folder.join(file).display().to_string(), error };
        let certificate =
            |file: &str| CertificateDer::from_pem_file(folder.join(file)).map_err(|error| pem(file, error));
        let key = PrivateKeyDer::from_pem_file(folder.join(KEY)).map_err(|e| pem(KEY, e))?;
        Self::new(certificate(CERTIFICATE)?, key, certificate(AUTHORITY)?)
    }

    /// The same as secrets, for a server that may not read the machine's folder, with the keys that were revoked.
    pub fn secrets(folder: &Path, revoked: &[Fingerprint]) -> std::io::Result<Secrets> {
        let mut secrets = Secrets::default();
        secrets.insert(REVOKED, Secret::new(serde_json::to_string(revoked)?));
        for file in [CERTIFICATE, KEY, AUTHORITY] {
            secrets.insert(file, Secret::new(std::fs::read_to_string(folder.join(file))?));
        }
        Ok(secrets)
    }

    /// The identity among the secrets that a server was given.
    pub fn given(secrets: &Secrets) -> Result<Self, AuthorityError> {
        let text =
            |file: &str| secrets.get(file).map(|secret| secret.reveal().as_bytes()).unwrap_or_default();
        let pem = |file: &str, error| AuthorityError::Pem { file: format!("the secret {file}"), error };
        let certificate =
            |file: &str| CertificateDer::from_pem_slice(text(file)).map_err(|error| pem(file, error));
        let key = PrivateKeyDer::from_pem_slice(text(KEY)).map_err(|error| pem(KEY, error))?;
        let identity = Self::new(certificate(CERTIFICATE)?, key, certificate(AUTHORITY)?)?;
        if let Some(revoked) = secrets.get(REVOKED) {
            identity.revoke(serde_json::from_str::<Vec<Fingerprint>>(revoked.reveal())?);
        }
        Ok(identity)
    }

    /// Shows the certificate of a newer one from now on, and knows whom that one knows to be revoked. All clones do.
    pub fn renew(&self, newer: &Identity) {
        self.shown.replace(newer.shown.now());
        self.guests.revoke(newer.guests.revoked());
    }

    /// From when until when the certificate that it shows is good.
    pub fn validity(&self) -> Result<Validity, AuthorityError> {
        let shown = self.shown.now();
        let validity = parse(shown.end_entity_cert()?)?.validity().clone();
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        Ok(Validity { begins_s: seconds(validity.not_before), ends_s: seconds(validity.not_after) })
    }

    pub fn guests(&self) -> Guests {
        self.guests.clone()
    }

    fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, AuthorityError> {
        // With the authority's own certificate, which a machine with nothing but a token knows by its fingerprint.
        let chain = vec![certificate, authority.clone()];
        let authority_key = ParsedCertificate::try_from(&authority)?.subject_public_key_info();
        let authority_key = Arc::from(authority_key.as_ref());
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = [&rustls::version::TLS13];
        let shown = Arc::new(Shown::new(chain, key, &provider)?);
        let clients = verifier(&roots, &provider)?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(Arc::clone(&clients))
            .with_cert_resolver(Arc::clone(&shown) as _);
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::clone(&shown) as _);
        let (server, client) = (Arc::new(server), Arc::new(client));
        Ok(Self { server, client, clients, authority: authority_key, shown, guests: Guests::default() })
    }

    pub(super) fn authority_key(&self) -> &[u8] {
        &self.authority
    }

    /// Whether the site's authority vouches for this certificate.
    pub(super) fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        self.clients.verify_client_cert(certificate, &[], UnixTime::now()).is_ok()
    }

    /// From now on it has nothing to do with whom shows one of these keys.
    pub fn revoke(&self, keys: impl IntoIterator<Item = Fingerprint>) {
        self.guests.revoke(keys);
    }

    /// The same, having nothing to do with whom shows a key that these call revoked.
    pub fn heeding(&self, guests: Guests) -> Self {
        Self { guests, ..self.clone() }
    }

    /// The same for a door that lets in, beside the site's own, whoever shows one of the guests' keys, and that has
    /// nothing to do with whom shows a revoked one, at either end.
    pub fn welcoming(&self, guests: Guests) -> Result<Self, AuthorityError> {
        let clients = Arc::new(Clients { own: Arc::clone(&self.clients), guests: guests.clone() });
        let mut server = ServerConfig::builder_with_provider(Arc::clone(self.server.crypto_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&self.server.cert_resolver));
        // A resumed session would not be asked for its certificate again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { server: Arc::new(server), guests, ..self.clone() })
    }
}

/// Accepts whom this authority vouches for.
pub(super) fn clients(
    authority: CertificateDer<'static>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, AuthorityError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    verifier(&Arc::new(roots), provider)
}

fn verifier(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, AuthorityError> {
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?)
}

pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, AuthorityError> {
    ServerName::try_from(format!("{name}.{SUFFIX}")).map_err(|_| AuthorityError::Name(name.to_owned()))
}
