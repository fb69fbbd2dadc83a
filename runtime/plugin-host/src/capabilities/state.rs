//! `cutover:plugin/state`: linked so that components which import it load; not carried out.

use crate::bindings::cutover::plugin::state;
use crate::bindings::cutover::plugin::types::Failure;
use crate::call::State;

impl state::Host for State {
    fn get(&mut self, _key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Failure>> {
        Ok(Err(self.fail_unsupported("state.get")))
    }

    fn put(
        &mut self,
        _key: String,
        _expected: Option<u64>,
        _value: Vec<u8>,
    ) -> wasmtime::Result<Result<u64, Failure>> {
        Ok(Err(self.fail_unsupported("state.put")))
    }
}
