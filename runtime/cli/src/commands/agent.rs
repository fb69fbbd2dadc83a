//! `cutover agent run` and `cutover agent confine`, as the conductor starts them.

use crate::args::Agent;
use crate::failure::{Failure, Kind};

pub(crate) fn run(command: &Agent) -> Result<(), Failure> {
    match command {
        Agent::Run => agent::serve(std::io::stdin(), std::io::stdout())
            .map_err(|error| Failure::new(Kind::Bug, error)),
        Agent::Confine => agent::confine::serve().map_err(|error| Failure::new(Kind::Bug, error)),
    }
}
