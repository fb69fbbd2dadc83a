//! `cutover:plugin/secrets`: handles of secrets, and what can be computed with a secret without seeing it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use model::PluginName;
use sha1::Sha1;
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

impl Shared {
    /// Puts secrets in the places that a text leaves for them.
    pub(crate) fn fill(&self, template: &str) -> Result<Secret, failure::Failure> {
        const OPEN: &str = "{{secret:";
        let mut filled = Vec::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let plugin = &self.name;
            let Some((name, after)) = after.split_once("}}") else {
                return Err(failure::Failure::protocol(format!(
                    "plugin `{plugin}` left `{OPEN}` open in a header"
                )));
            };
            self.permissions
                .check(&Capability::Secret(name.to_owned()))?;
            let Some(secret) = self.secrets.get(name) else {
                return Err(no_value(plugin, name));
            };
            filled.extend_from_slice(before.as_bytes());
            // A line feed at the end of a secret's file would end the header.
            filled.extend_from_slice(secret.expose().trim_ascii());
            rest = after;
        }
        filled.extend_from_slice(rest.as_bytes());
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
        let key = [&prefix, self.table.get(&handle)?.value.expose(), &suffix].concat();
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
