//! Running the whole program against real servers.
//!
//! [`Site`] is a workspace in a temporary folder with the `cutover` program; [`HaProxy`] and [`Nginx`] are real ones on loopback, and
//! so is [`Prometheus`]; [`Hosts`] machines with an sshd each; [`Service`] answers and counts; [`Clients`] send requests and count every
//! outcome, [`Wrk`] sends as many as it can, [`Visitors`] tell who answered them; [`LateAnswers`] hold back what a server said; [`cloud`] has fake clouds,
//! [`FileServer`] has files, [`GitServer`] repositories, [`SeaweedFs`] holds objects and [`Moto`] plays AWS, and both check signatures. What a test starts is stopped when it is dropped.

pub mod cloud;

mod clients;
mod dry_run;
mod file_server;
mod git_server;
mod haproxy;
mod hosts;
mod http;
mod late;
mod load;
mod moto;
mod nginx;
mod object_stores;
mod prometheus;
mod service;
mod site;
mod transcript;
mod wrk;

pub use clients::{Clients, Count};
pub use dry_run::assert_as_planned;
pub use file_server::FileServer;
pub use git_server::GitServer;
pub use haproxy::{HaProxy, Server};
pub use hosts::{Hosts, skip};
pub use http::WebServer;
pub use late::LateAnswers;
pub use load::{Connections, Pace, Visitors, Visits, visits};
pub use moto::Moto;
pub use nginx::Nginx;
pub use object_stores::SeaweedFs;
pub use prometheus::Prometheus;
pub use service::Service;
pub use site::{Answer, Site, copy_folder, free_ports, target_folder, until};
pub use wrk::{Load, Wrk};
