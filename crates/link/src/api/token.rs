//! A token: by it a machine that has nothing yet joins a site, once and soon.
//!
//! It carries where to ask, the fingerprint of the site's authority, so that the machine knows the site when it
//! meets it, and the seed of a key, so that the site knows the machine. The key is proven in the TLS handshake; the
//! site keeps only its fingerprint, so that nobody who reads the site's state can join with it. Whoever sees a
//! token can use it in place of the one that it was made for: it is a secret until it was used or is late.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::authority::AuthorityError;
use super::fingerprint::{Fingerprint, LENGTH};

const BEGINS: &str = "dolmen-";
const VERSION: u8 = 1;
const SEED: usize = 32;
const CHECK: usize = 4;

/// No token is longer: names have at most 253 letters.
const LIMIT: usize = 2048;

/// An Ed25519 key without its public half (RFC 8410 section 7), before the seed.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub site: String,
    /// The machine that may join by it.
    pub machine: String,
    /// The machine that made it and alone takes it, and where its agent answers.
    pub issuer: String,
    pub address: SocketAddr,
    pub authority: Fingerprint,
    seed: [u8; SEED],
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is no token: `dolmen token` prints one, which begins with {BEGINS}")]
    NoToken,
    #[error("the token is damaged: a part of it is missing or was changed")]
    Damaged,
    #[error("the token was made by a newer dolmen (form {0}, this one knows {VERSION})")]
    Newer(u8),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a token for {} of {}", self.machine, self.site)
    }
}

impl Token {
    /// A new token. `seed` comes from a good source of randomness.
    pub fn new(
        site: &str,
        machine: &str,
        at: (&str, SocketAddr),
        authority: Fingerprint,
        seed: [u8; SEED],
    ) -> Self {
        let (issuer, address) = (at.0.to_owned(), at.1);
        Self { site: site.to_owned(), machine: machine.to_owned(), issuer, address, authority, seed }
    }

    /// The text that is given to whoever sits at the machine. A secret.
    pub fn reveal(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.authority.0);
        bytes.extend(self.seed);
        let names = [&self.site, &self.machine, &self.issuer, &self.address.to_string()];
        bytes.extend(names.map(String::as_str).join("\n").into_bytes());
        let check = Fingerprint::of(&bytes).0;
        bytes.extend(&check[..CHECK]);
        format!("{BEGINS}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let rest = text.strip_prefix(BEGINS).filter(|rest| rest.len() <= LIMIT).ok_or(TokenError::NoToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(rest).map_err(|_| TokenError::Damaged)?;
        let (bytes, check) = bytes.split_last_chunk::<CHECK>().ok_or(TokenError::Damaged)?;
        if Fingerprint::of(bytes).0[..CHECK] != check[..] {
            return Err(TokenError::Damaged);
        }
        match bytes.split_first() {
            Some((&VERSION, rest)) => Self::read(rest).ok_or(TokenError::Damaged),
            Some((newer, _)) => Err(TokenError::Newer(*newer)),
            None => Err(TokenError::Damaged),
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (authority, bytes) = bytes.split_first_chunk::<LENGTH>()?;
        let (seed, names) = bytes.split_first_chunk::<SEED>()?;
        let mut names = std::str::from_utf8(names).ok()?.split('\n');
        let token = Self {
            site: names.next()?.to_owned(),
            machine: names.next()?.to_owned(),
            issuer: names.next()?.to_owned(),
            address: names.next()?.parse().ok()?,
            authority: Fingerprint(*authority),
            seed: *seed,
        };
        names.next().is_none().then_some(token)
    }

    /// What the site keeps of it.
    pub fn key(&self) -> Result<Fingerprint, AuthorityError> {
        Ok(Fingerprint::of(&self.pair()?.subject_public_key_info()))
    }

    fn pair(&self) -> Result<KeyPair, AuthorityError> {
        let pkcs8 = [&PKCS8[..], &self.seed].concat();
        let key = PrivatePkcs8KeyDer::from(pkcs8);
        Ok(KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)?)
    }

    /// Shows the token's key, and trusts only the authority of its fingerprint.
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, AuthorityError> {
        let pair = self.pair()?;
        let certificate =
            CertificateParams::new(vec![format!("{}.guest", self.machine)])?.self_signed(&pair)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let known = Arc::new(ByFingerprint { authority: self.authority, provider: Arc::clone(&provider) });
        let key = PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(known)
            .with_client_auth_cert(vec![certificate.der().clone()], key)?;
        Ok(Arc::new(config))
    }
}

/// Trusts the authority of this fingerprint, whose certificate the other side sends, and everything that it signed.
#[derive(Debug)]
struct ByFingerprint {
    authority: Fingerprint,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates.iter().find(|sent| Fingerprint::of(sent) == self.authority);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        let address = "203.0.113.10:7400".parse().unwrap();
        Token::new("www.foobar.com", "beta", ("alpha", address), Fingerprint::of(b"authority"), [7; SEED])
    }

    #[test]
    fn it_is_read_back_and_does_not_show_itself() {
        let text = token().reveal();
        assert_eq!(Token::parse(&format!(" {text}\n")).unwrap(), token());
        assert!(!format!("{:?}", token()).contains(&text[10..20]));
        assert_eq!(token().key().unwrap(), token().key().unwrap());
    }

    #[test]
    fn what_was_changed_or_cut_is_refused() {
        let text = token().reveal();
        for place in BEGINS.len()..text.len() {
            let other = if text.as_bytes()[place] == b'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &text[..place], &text[place + 1..]);
            assert!(Token::parse(&changed).is_err(), "{changed}");
            assert!(Token::parse(&text[..place]).is_err());
        }
        for wrong in ["", "dolmen-", "dolmen-AAAA", "eyJhbGciOiJIUzI1NiJ9"] {
            assert!(Token::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Token::parse(&"x".repeat(10_000)), Err(TokenError::NoToken));
    }
}
