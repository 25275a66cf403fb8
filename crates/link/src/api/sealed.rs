//! Secrets for one machine, which anybody may carry and nobody else can read: HPKE (RFC 9180) with X25519.
//!
//! What control keeps of secrets is kept in this form only, in its log and in its snapshots.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Access};

/// What this is used for, so that it cannot be taken for anything else.
const INFO: &[u8] = b"dolmen sealed secrets 1";

const FILE: &str = "sealing.json";

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("cannot seal or open: {0}")]
    Hpke(#[from] rustls::Error),
    #[error("a sealed text is damaged")]
    Text(#[from] base64::DecodeError),
    #[error("what was sealed cannot be read: {0}")]
    Meaning(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A sealed value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// RFC 9180 section 5: what the receiver makes the key of.
    encapsulated: String,
    ciphertext: String,
}

/// A machine's own key for what is sealed for it.
#[derive(Serialize, Deserialize)]
pub struct SealingKey {
    public: String,
    secret: String,
}

impl SealingKey {
    /// Reads the key in this folder, or makes it.
    pub fn open(folder: &Path) -> Result<Self, SealError> {
        let file = folder.join(FILE);
        if let Some(kept) = disk::read_json(&file)? {
            return Ok(kept);
        }
        let (public, secret) = SUITE.generate_key_pair()?;
        let key = Self { public: STANDARD.encode(&public.0), secret: STANDARD.encode(secret.secret_bytes()) };
        disk::replace_json(&file, &key, Access::Owner)?;
        Ok(key)
    }

    /// What others seal with.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Opens what was sealed for this key and for this purpose.
    pub fn open_sealed<T: DeserializeOwned>(&self, purpose: &str, sealed: &Sealed) -> Result<T, SealError> {
        let encapsulated = EncapsulatedSecret(STANDARD.decode(&sealed.encapsulated)?);
        let secret = HpkePrivateKey::from(STANDARD.decode(&self.secret)?);
        let ciphertext = STANDARD.decode(&sealed.ciphertext)?;
        let plain = SUITE.open(&encapsulated, INFO, purpose.as_bytes(), &ciphertext, &secret)?;
        Ok(serde_json::from_slice(&plain)?)
    }
}

impl Sealed {
    /// Seals a value for whoever has the secret half of this key. `purpose`: what it is, and whose; it is not
    /// secret, and a value does not open for another one.
    pub fn new(key: &str, purpose: &str, value: &impl Serialize) -> Result<Self, SealError> {
        let key = HpkePublicKey(STANDARD.decode(key)?);
        let plain = serde_json::to_vec(value)?;
        let (encapsulated, ciphertext) = SUITE.seal(INFO, purpose.as_bytes(), &plain, &key)?;
        Ok(Self { encapsulated: STANDARD.encode(encapsulated.0), ciphertext: STANDARD.encode(ciphertext) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machine_it_is_for_can_open_it() {
        let folder = std::env::temp_dir().join(format!("dolmen-sealed-{}", std::process::id()));
        let open = |name: &str| {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            SealingKey::open(&folder.join(name)).unwrap()
        };
        let (beta, gamma) = (open("beta"), open("gamma"));
        let sealed = Sealed::new(beta.public(), "secrets of beta", &"the password").unwrap();
        assert!(!serde_json::to_string(&sealed).unwrap().contains("password"));
        assert_eq!(open("beta").open_sealed::<String>("secrets of beta", &sealed).unwrap(), "the password");
        assert!(gamma.open_sealed::<String>("secrets of beta", &sealed).is_err());
        assert!(beta.open_sealed::<String>("secrets of gamma", &sealed).is_err());
        let damaged = Sealed { ciphertext: STANDARD.encode(b"something else, long enough"), ..sealed };
        assert!(beta.open_sealed::<String>("secrets of beta", &damaged).is_err());
        assert!(Sealed::new("AAAA", "secrets of beta", &1).is_err(), "not a key");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
