//! What machines believe of their site: what its authority signed, wherever they have it from.
//!
//! Control keeps records for whoever holds the key of any machine. What the site is, who belongs to it and what each
//! machine is to know bear a signature of the authority beside that (ECDSA, P-256), so that a machine that was taken over
//! cannot speak for the site. Signed is a text and not a value, since two versions may write a value differently.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::SigningKey as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::authority::{Authority, AuthorityError, Identity};

/// What nothing else begins with that the authority signs: a certificate is DER.
const BEGINS: &str = "dolmen record 1";

/// A text, and the authority's word for it.
#[derive(Debug, Serialize, Deserialize)]
struct Vouched {
    text: String,
    signature: String,
}

#[derive(Debug, thiserror::Error)]
pub enum VouchError {
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    #[error("the site's authority does not vouch for it: somebody else has put it there")]
    Stranger,
    #[error(transparent)]
    Meaning(#[from] serde_json::Error),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Authority {
    /// The value of this record of the site, for all machines to believe.
    pub fn vouch(&self, site: &str, key: &str, value: &impl Serialize) -> Result<Value, VouchError> {
        let text = serde_json::to_string(value)?;
        let signature = STANDARD.encode(self.key_pair().sign(&signed(site, key, &text))?);
        Ok(serde_json::to_value(Vouched { text, signature })?)
    }
}

impl Identity {
    /// What this record of the site says, if the authority vouches for it.
    pub fn believe<T: DeserializeOwned>(&self, site: &str, key: &str, value: Value) -> Result<T, VouchError> {
        let Vouched { text, signature } = serde_json::from_value(value).map_err(|_| VouchError::Stranger)?;
        let signature = STANDARD.decode(signature).map_err(|_| VouchError::Stranger)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.authority_key())
            .verify(&signed(site, key, &text), &signature)
            .map_err(|_| VouchError::Stranger)?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// With the names of site and record, so that nobody can put one in the place of another. Neither has a line end.
fn signed(site: &str, key: &str, text: &str) -> Vec<u8> {
    [BEGINS, site, key, text].join("\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_authority_signed_for_this_record_is_believed() {
        let root = std::env::temp_dir().join(format!("dolmen-vouched-{}", std::process::id()));
        let open = |name: &str| {
            std::fs::create_dir_all(root.join(name)).unwrap();
            let authority = Authority::open(&root.join(name)).unwrap();
            authority.issue("beta", &root.join(name)).unwrap();
            (authority, Identity::open(&root.join(name)).unwrap())
        };
        let ((ours, beta), (theirs, _)) = (open("ours"), open("theirs"));
        let value = ours.vouch("a.example", "site/plan", &7).unwrap();
        let believed =
            |site: &str, key: &str, value: &Value| beta.believe::<u32>(site, key, value.clone()).ok();
        assert_eq!(believed("a.example", "site/plan", &value), Some(7));
        assert_eq!(believed("b.example", "site/plan", &value), None);
        assert_eq!(believed("a.example", "site/machines", &value), None);
        let mut changed = value.clone();
        changed["text"] = "8".into();
        assert_eq!(believed("a.example", "site/plan", &changed), None);
        let foreign = theirs.vouch("a.example", "site/plan", &7).unwrap();
        assert_eq!(believed("a.example", "site/plan", &foreign), None);
        assert_eq!(believed("a.example", "site/plan", &serde_json::json!(7)), None);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
