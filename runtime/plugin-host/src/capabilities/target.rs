//! `cutover:deployment-kind/target`: linked so that deployment kinds load; not carried out. A deployment kind is
//! asked for recipes of hooks and built-in actions only.

use wasmtime::component::Resource;

use crate::bindings::cutover::deployment_kind::lifecycle;
use crate::bindings::cutover::deployment_kind::target::{
    ExecOptions, ExecResult, FileStat, Host, HostHandle,
};
use crate::bindings::cutover::plugin::types::{Attribute, Failure};
use crate::call::State;

/// One deployment target. No value of it is ever made.
#[allow(unreachable_pub, reason = "the generated bindings export it")]
pub enum Handle {}

impl lifecycle::Host for State {}

impl Host for State {}

impl HostHandle for State {
    async fn id(&mut self, handle: Resource<Handle>) -> wasmtime::Result<String> {
        match *self.table.get(&handle)? {}
    }

    async fn attributes(&mut self, handle: Resource<Handle>) -> wasmtime::Result<Vec<Attribute>> {
        match *self.table.get(&handle)? {}
    }

    async fn exec(
        &mut self,
        _handle: Resource<Handle>,
        _argv: Vec<String>,
        _options: ExecOptions,
    ) -> wasmtime::Result<Result<ExecResult, Failure>> {
        Ok(Err(self.fail_unsupported("target.exec")))
    }

    async fn stat(
        &mut self,
        _: Resource<Handle>,
        _: String,
    ) -> wasmtime::Result<Result<Option<FileStat>, Failure>> {
        Ok(Err(self.fail_unsupported("target.stat")))
    }

    async fn read(
        &mut self,
        _: Resource<Handle>,
        _: String,
        _: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Failure>> {
        Ok(Err(self.fail_unsupported("target.read")))
    }

    async fn write(
        &mut self,
        _handle: Resource<Handle>,
        _path: String,
        _data: Vec<u8>,
        _mode: u32,
    ) -> wasmtime::Result<Result<(), Failure>> {
        Ok(Err(self.fail_unsupported("target.write")))
    }

    async fn place(
        &mut self,
        _: Resource<Handle>,
        _: String,
        _: String,
    ) -> wasmtime::Result<Result<(), Failure>> {
        Ok(Err(self.fail_unsupported("target.place")))
    }

    async fn swap_link(
        &mut self,
        _: Resource<Handle>,
        _: String,
        _: String,
    ) -> wasmtime::Result<Result<(), Failure>> {
        Ok(Err(self.fail_unsupported("target.swap-link")))
    }

    async fn remove(
        &mut self,
        _: Resource<Handle>,
        _: String,
    ) -> wasmtime::Result<Result<(), Failure>> {
        Ok(Err(self.fail_unsupported("target.remove")))
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
