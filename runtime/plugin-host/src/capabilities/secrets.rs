//! `cutover:plugin/secrets`: handles of secrets, and what can be computed with a secret without seeing it.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use memchr::memmem;
use model::PluginName;
use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha512};
use wasmtime::component::Resource;

use crate::bindings::cutover::plugin::secrets::{self, Hash};
use crate::bindings::cutover::plugin::secrets_reveal;
use crate::bindings::cutover::plugin::types::Failure;
use crate::call::State;
use crate::failure::{self, FailureClass, code};
use crate::pattern::Capability;
use crate::plugin::Shared;
use crate::secret::Secret;

/// A secret that a plugin may use, by the name that it asked for.
#[allow(unreachable_pub, reason = "the generated bindings export it")]
pub struct Handle {
    name: String,
    value: Secret,
}

/// The failure for a secret that is granted, and that the operator gave no value.
pub(crate) fn no_value(plugin: &PluginName, name: &str) -> failure::Failure {
    let message = format!("secret `{name}` of plugin `{plugin}` is granted, but has no value");
    failure::Failure::host(FailureClass::NotFound, code::INVALID, message)
}

/// How a place for a secret begins and ends in a text. Between them stands the secret's name, and after a `|` the form
/// that it takes.
const OPEN: &[u8] = b"{{secret:";
const CLOSE: &[u8] = b"}}";

impl Shared {
    /// Puts secrets in the places that the value of a header leaves for them.
    pub(crate) fn fill(&self, template: &str) -> Result<Secret, failure::Failure> {
        let filled = self.expand(template.as_bytes(), |secret| self.permissions.check(secret))?;
        if filled.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            let plugin = &self.name;
            let message = format!(
                "a secret of plugin `{plugin}` does not fit in a header: it has several lines"
            );
            return Err(failure::Failure::host(
                FailureClass::Invalid,
                code::INVALID,
                message,
            ));
        }
        Ok(Secret::new(filled))
    }

    /// Puts secrets in the places that a text leaves for them, where they may be used.
    fn expand(
        &self,
        template: &[u8],
        may_use: impl Fn(&Capability) -> Result<(), failure::Failure>,
    ) -> Result<Vec<u8>, failure::Failure> {
        let mut filled = Vec::new();
        let mut rest = template;
        while let Some((before, after)) = split_once(rest, OPEN) {
            let plugin = &self.name;
            let place = split_once(after, CLOSE)
                .and_then(|(place, after)| Some((std::str::from_utf8(place).ok()?, after)));
            let Some((place, after)) = place else {
                return Err(failure::Failure::protocol(format!(
                    "plugin `{plugin}` left `{{{{secret:` open in a text"
                )));
            };
            let (name, form) = match place.split_once('|') {
                Some((name, form)) => (name, Some(form)),
                None => (place, None),
            };
            may_use(&Capability::Secret(name.to_owned()))?;
            let Some(secret) = self.secrets.get(name) else {
                return Err(no_value(plugin, name));
            };
            filled.extend_from_slice(before);
            match form {
                None => filled.extend_from_slice(secret.trimmed()),
                Some("base64") => {
                    filled.extend_from_slice(BASE64_STANDARD.encode(secret.trimmed()).as_bytes());
                }
                Some(form) => {
                    return Err(failure::Failure::protocol(format!(
                        "plugin `{plugin}` wants secret `{name}` as `{form}`; the one form there is, is `base64`"
                    )));
                }
            }
            rest = after;
        }
        filled.extend_from_slice(rest);
        Ok(filled)
    }
}

impl secrets::Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<Resource<Handle>, Failure>> {
        if let Err(denied) = self.allow(&Capability::Secret(name.clone())) {
            return Ok(Err(denied));
        }
        let Some(value) = self.plugin.secrets.get(&name).cloned() else {
            let failure = no_value(&self.plugin.name, &name);
            return Ok(Err(self.fail(failure)));
        };
        Ok(Ok(self.table.push(Handle { name, value })?))
    }

    fn digest(
        &mut self,
        algorithm: Hash,
        text: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, Failure>> {
        let (plugin, effect, function) = (Arc::clone(&self.plugin), self.effect, self.function);
        let filled = plugin.expand(&text, |secret| plugin.check(effect, function, secret));
        Ok(match filled {
            Ok(filled) => Ok(match algorithm {
                Hash::Sha1 => Sha1::digest(filled).to_vec(),
                Hash::Sha256 => Sha256::digest(filled).to_vec(),
                Hash::Sha512 => Sha512::digest(filled).to_vec(),
            }),
            Err(failure) => Err(self.fail(failure)),
        })
    }
}

impl secrets::HostSecret for State {
    fn name(&mut self, handle: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&handle)?.name.clone())
    }

    fn version(&mut self, handle: Resource<Handle>) -> wasmtime::Result<String> {
        let handle = self.table.get(&handle)?;
        Ok(handle.value.version(&handle.name))
    }

    fn hmac(
        &mut self,
        handle: Resource<Handle>,
        algorithm: Hash,
        prefix: Vec<u8>,
        suffix: Vec<u8>,
        data: Vec<u8>,
    ) -> wasmtime::Result<Vec<u8>> {
        let secret = self.table.get(&handle)?.value.trimmed();
        let key = [&prefix, secret, &suffix].concat();
        Ok(match algorithm {
            Hash::Sha1 => Hmac::<Sha1>::new_from_slice(&key)?
                .chain_update(data)
                .finalize()
                .into_bytes()
                .to_vec(),
            Hash::Sha256 => Hmac::<Sha256>::new_from_slice(&key)?
                .chain_update(data)
                .finalize()
                .into_bytes()
                .to_vec(),
            Hash::Sha512 => Hmac::<Sha512>::new_from_slice(&key)?
                .chain_update(data)
                .finalize()
                .into_bytes()
                .to_vec(),
        })
    }

    fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl secrets_reveal::Host for State {
    fn reveal(&mut self, _secret: Resource<Handle>) -> wasmtime::Result<Result<Vec<u8>, Failure>> {
        Ok(Err(self.fail_unsupported("secrets-reveal.reveal")))
    }
}

/// What stands before the first `separator` and what stands behind it.
fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memmem::find(text, separator)?;
    Some((&text[..at], &text[at + separator.len()..]))
}
