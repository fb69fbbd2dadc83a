//! `cutover:plugin/config`: the plugin's configuration, which the caller of the host gave with the call.

use crate::bindings::cutover::plugin::{config, types};
use crate::call::State;

impl types::Host for State {}

impl config::Host for State {
    fn get(&mut self) -> wasmtime::Result<String> {
        Ok(self.config.clone())
    }
}
