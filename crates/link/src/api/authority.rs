//! The site's own certificate authority, and the identities that it issues.
//!
//! It is made at the site's first start and never leaves the state folder of the machine that made it. A name
//! in a certificate is a machine's, or [`OPERATOR`] for the commands of whoever may read that folder.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::disk::{self, Access};
use crate::{Secret, Secrets};

/// The name of whoever gives orders.
pub const OPERATOR: &str = "operator";

/// Under this name, which no public DNS has, stand all machines and the operator.
const SUFFIX: &str = "dolmen.internal";

/// The files of an identity, which are also the names of its secrets.
const CERTIFICATE: &str = "agent.crt";
const KEY: &str = "agent.key";
const AUTHORITY: &str = "ca.crt";

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
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The authority's key. Only the machine that made the site has one.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Reads the authority in this folder, or makes it at the first start.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let (key_file, certificate_file) = (folder.join("ca.key"), folder.join("ca.crt"));
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

    /// Writes a new identity of this name into `folder`: `agent.crt`, `agent.key`, and the authority beside.
    pub fn issue(&self, name: &str, folder: &Path) -> Result<(), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![format!("{name}.{SUFFIX}")])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        disk::replace(&folder.join(AUTHORITY), self.certificate.as_bytes(), Access::Everyone)?;
        disk::replace(&folder.join(KEY), key.serialize_pem().as_bytes(), Access::Owner)?;
        disk::replace(&folder.join(CERTIFICATE), certificate.pem().as_bytes(), Access::Everyone)?;
        Ok(())
    }
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

    /// The same as secrets, for a server that may not read the machine's folder.
    pub fn secrets(folder: &Path) -> std::io::Result<Secrets> {
        let mut secrets = Secrets::default();
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
        Self::new(certificate(CERTIFICATE)?, key, certificate(AUTHORITY)?)
    }

    fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, AuthorityError> {
        let chain = vec![certificate];
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = [&rustls::version::TLS13];
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, AuthorityError> {
    ServerName::try_from(format!("{name}.{SUFFIX}")).map_err(|_| AuthorityError::Name(name.to_owned()))
}
