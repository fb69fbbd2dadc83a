//! The keys that sign: the host's, and one for tests.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::Failure;
use crate::secrets::{self, Hash, Secret};

/// Where a text has a secret filled in.
const PLACE: &str = "{{secret:";

/// What can be computed with a secret key without having it.
pub trait Key {
    /// HMAC-SHA-256 of `data` with `prefix` and the secret as the key.
    fn hmac_sha256(&self, prefix: &[u8], data: &[u8]) -> [u8; 32];

    /// SHA-256 of a text in which `{{secret:NAME}}` and `{{secret:NAME|base64}}` stand for secrets.
    ///
    /// # Errors
    /// `denied` where a secret is not granted.
    fn digest(&self, text: &str) -> Result<[u8; 32], Failure>;
}

/// A secret that the operator granted, by the handle that [`secrets::get`] gives.
impl Key for Secret {
    fn hmac_sha256(&self, prefix: &[u8], data: &[u8]) -> [u8; 32] {
        exactly(&self.hmac(Hash::Sha256, prefix, &[], data))
    }

    fn digest(&self, text: &str) -> Result<[u8; 32], Failure> {
        secrets::digest(Hash::Sha256, text.as_bytes()).map(|digest| exactly(&digest))
    }
}

/// The host's hashes are as long as they are defined to be.
fn exactly(hash: &[u8]) -> [u8; 32] {
    hash.try_into()
        .expect("the host's SHA-256 is 32 bytes long")
}

/// A key that is there in plain text, for native tests.
///
/// In a component it would put the secret into the memory that the host keeps secrets out of: use
/// [`Credentials::granted`] there.
///
/// ```
/// use cutover_plugin_sdk::signing::{Key, Plain};
///
/// let key = Plain::new("SKEXAMPLE").with_secret("session-token", "b");
///
/// assert_eq!(key.digest("a{{secret:session-token}}c")?[..4], [0xba, 0x78, 0x16, 0xbf]);
/// # Ok::<_, cutover_plugin_sdk::Failure>(())
/// ```
#[derive(Clone, Default)]
pub struct Plain {
    key: Vec<u8>,
    secrets: BTreeMap<String, String>,
}

impl Plain {
    /// A key of known value.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.into(),
            secrets: BTreeMap::new(),
        }
    }

    /// Adds a secret that [`Key::digest`] fills in.
    #[must_use]
    pub fn with_secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }
}

impl Key for Plain {
    fn hmac_sha256(&self, prefix: &[u8], data: &[u8]) -> [u8; 32] {
        hmac_sha256(&[prefix, &self.key].concat(), data)
    }

    fn digest(&self, text: &str) -> Result<[u8; 32], Failure> {
        let mut text = text.to_owned();
        for (name, value) in &self.secrets {
            text = text.replace(&format!("{PLACE}{name}}}}}"), value);
            text = text.replace(
                &format!("{PLACE}{name}|base64}}}}"),
                &base64(value.as_bytes()),
            );
        }
        if text.contains(PLACE) {
            let message = "the test has no value for a secret that is signed";
            return Err(Failure::denied("signing.secret", message));
        }
        Ok(sha256(text.as_bytes()))
    }
}

/// Shows nothing of the key, so that a failed test of somebody's real key does not print it.
impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plain([redacted])")
    }
}

/// The granted secrets that sign, by their names: a part of the configuration of a plugin.
///
/// ```
/// use cutover_plugin_sdk::signing::Secrets;
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     #[serde(default)]
///     secrets: Secrets,
/// }
///
/// let config: Config = cutover_plugin_sdk::parse_config("{}")?;
/// assert_eq!(config.secrets.secret_key, "secret-key");
/// assert_eq!(config.secrets.session_token, None);
///
/// let config: Config = cutover_plugin_sdk::parse_config(r#"{"secrets": {"session_token": "token"}}"#)?;
/// assert_eq!(config.secrets.secret_key, "secret-key");
/// assert_eq!(config.secrets.session_token.as_deref(), Some("token"));
/// # Ok::<(), cutover_plugin_sdk::Failure>(())
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    #[serde(default = "usual_secret_key")]
    pub secret_key: String,
    /// Where the credentials are temporary ones.
    pub session_token: Option<String>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            secret_key: usual_secret_key(),
            session_token: None,
        }
    }
}

fn usual_secret_key() -> String {
    "secret-key".to_owned()
}

impl Secrets {
    /// The credentials that these secrets are, together with the id of their access key.
    ///
    /// # Errors
    /// As [`Credentials::granted`].
    pub fn credentials(
        &self,
        access_key: impl Into<String>,
    ) -> Result<Credentials<Secret>, Failure> {
        Credentials::granted(access_key, &self.secret_key, self.session_token.as_deref())
    }
}

/// Who signs.
#[derive(Debug)]
pub struct Credentials<K> {
    /// The id of the key, which every request says in the open.
    pub access_key: String,
    pub secret_key: K,
    /// The name of the granted secret that holds the session token, where the credentials are temporary ones.
    pub session_token: Option<String>,
}

impl Credentials<Secret> {
    /// Credentials whose secret parts the operator granted under these names.
    ///
    /// # Errors
    /// `denied` with the line that would grant it, `not-found` when the secret has no value.
    ///
    /// ```no_run
    /// use cutover_plugin_sdk::signing::Credentials;
    ///
    /// # fn main() -> Result<(), cutover_plugin_sdk::Failure> {
    /// let credentials = Credentials::granted("AKIDEXAMPLE", "secret-key", None)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn granted(
        access_key: impl Into<String>,
        secret_key: &str,
        session_token: Option<&str>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            access_key: access_key.into(),
            secret_key: secrets::get(secret_key)?,
            session_token: session_token.map(str::to_owned),
        })
    }
}

impl<K: Key> Credentials<K> {
    /// Hashes a canonical request, in the host where a secret is to be filled in.
    pub(super) fn digest(&self, text: &str) -> Result<[u8; 32], Failure> {
        if text.contains(PLACE) {
            self.secret_key.digest(text)
        } else {
            Ok(sha256(text.as_bytes()))
        }
    }

    /// The header value that the host fills the session token into.
    pub(super) fn token_header(&self, form: &str) -> Option<String> {
        let name = self.session_token.as_ref()?;
        Some(format!("{PLACE}{name}{form}}}}}"))
    }
}

pub(super) fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// With a key that is no secret of the operator's: derived from one, or a test's.
pub(super) fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 with padding. The host does it in components; here it is for tests.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let digit = usize::try_from(group >> (18 - 6 * place) & 63).unwrap_or_default();
            text.push(if place <= chunk.len() {
                char::from(DIGITS[digit])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_have_their_known_values() {
        // FIPS 180-4, and RFC 4231, case 2.
        assert_eq!(
            hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hex(&Plain::new("efe").hmac_sha256(b"J", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn base64_has_its_known_values() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_key_for_tests_shows_nothing_of_itself_and_misses_no_secret() {
        let key = Plain::new("hunter2").with_secret("token", "hunter3");

        assert!(!format!("{key:?}").contains("hunter"));
        assert!(key.digest("{{secret:token|base64}}").is_ok());
        assert!(key.digest("{{secret:other}}").is_err());
    }
}
