//! Who may speak to an agent without a certificate of the site: whoever holds the key of a token.
//!
//! A token's key is proven in the handshake itself (RFC 8446 section 4.4.3), so that nobody hears a byte of the
//! agent API, not even the site's name, who has neither a certificate nor a token. What a guest may ask is
//! decided later, by the agent; being let in means only that it gets a sentence for an answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::fingerprint::Fingerprint;

/// Whose keys are good without a certificate, and whose are bad with one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    guests: BTreeSet<Fingerprint>,
    revoked: BTreeSet<Fingerprint>,
}

impl Guests {
    /// From now on these are the keys of guests.
    pub fn replace(&self, keys: impl IntoIterator<Item = Fingerprint>) {
        self.lock().guests = keys.into_iter().collect();
    }

    /// From now on these keys are nobody's, and will never be anybody's. Conversations with them end at their next word.
    pub fn revoke(&self, keys: impl IntoIterator<Item = Fingerprint>) {
        self.lock().revoked.extend(keys);
    }

    pub fn revoked(&self) -> Vec<Fingerprint> {
        self.lock().revoked.iter().copied().collect()
    }

    pub fn has_revoked(&self, key: &Fingerprint) -> bool {
        self.lock().revoked.contains(key)
    }

    fn has(&self, key: &Fingerprint) -> bool {
        self.lock().guests.contains(key)
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Accepts what the site's authority signed, and guests.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) own: Arc<dyn ClientCertVerifier>,
    pub(super) guests: Guests,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A guest's certificate is signed by nobody in any list.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let key = Fingerprint::of(&ParsedCertificate::try_from(end_entity)?.subject_public_key_info());
        if self.guests.has_revoked(&key) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        let error = match self.own.verify_client_cert(end_entity, intermediates, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        if self.guests.has(&key) { Ok(ClientCertVerified::assertion()) } else { Err(error) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.own.supported_verify_schemes()
    }
}
