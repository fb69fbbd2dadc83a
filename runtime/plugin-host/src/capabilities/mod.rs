//! What the host does on a plugin's behalf, one file for each WIT interface. Every function checks the grant first,
//! bounds what it reads, and answers with a failure instead of trapping.

pub(crate) mod cancel;
pub(crate) mod config;
pub(crate) mod directories;
pub(crate) mod http;
pub(crate) mod logging;
pub(crate) mod output;
pub(crate) mod programs;
pub(crate) mod progress;
pub(crate) mod secrets;
pub(crate) mod sink;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod target;

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::cutover::{deployment_kind, package_source, plugin};
use crate::call::State;

/// Links everything that a component may import. A component that imports an interface has not been granted it: the
/// grant is checked at each use, because Python and JavaScript components import whole worlds.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    plugin::types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::logging::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::progress::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::config::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::cancel::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::secrets::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::secrets_reveal::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::state::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::sockets::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::programs::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::directories::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    plugin::http::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    package_source::sink::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    deployment_kind::lifecycle::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    deployment_kind::target::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    Ok(())
}
