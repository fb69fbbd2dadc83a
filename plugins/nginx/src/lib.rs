//! nginx as a load balancer and a traffic router, through include files.
//!
//! A pool is an upstream, whose servers stand in a file of their own; a split is a `split_clients` in a file. Each change is
//! tested by nginx before nginx reads it, and proven to be live by a version that nginx serves. Deliberately absent: the
//! rest of the configuration, which is the operator's, and health checks of nginx, which has none: where `health` says so, the
//! members are asked when cutover has to know.

mod config;
mod members;
mod nginx;
mod router;
mod servers;

use std::time::Duration;

use cutover_plugin_sdk::{
    Diagnostic, Failure, HOST_STAMPS, LoadBalancer, Member, MemberResult, MemberStatus, OpContext,
    Outcome, Plugin, PoolRef, Purpose, Router, Share, Side, Split, Weight, Weights, ask,
    directories, export, http, per_member, programs,
};

use config::Config;
use members::Members;
use nginx::{Change, Nginx as Changer, Ran, Until, World};
use router::{NO_SERVER, Router as Splitter};
use servers::Servers;

/// How long nginx may take to test its configuration. Large ones take seconds.
const PROGRAM_LIMIT: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a member may take to answer. It is far above what a health check takes, and many are asked in one call.
const MEMBER_LIMIT: Duration = Duration::from_secs(1);
const ANSWER_LIMIT: usize = 64 << 10;

struct Nginx;

impl Plugin for Nginx {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

/// What the operator granted.
struct Granted<'a>(&'a Config);

impl World for Granted<'_> {
    fn read(&self, file: &str) -> Result<Option<String>, Failure> {
        directories::read_text(&self.0.directory, file)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
        directories::write_text(&self.0.directory, file, text)
    }

    fn run(&self, program: &str, arguments: &[String]) -> Result<Ran, Failure> {
        let limit = u64::try_from(PROGRAM_LIMIT.as_millis()).unwrap_or(u64::MAX);
        let output = programs::run(program, arguments, None, limit)?;
        Ok(Ran {
            code: output.exit_code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn status(&self) -> Result<String, Failure> {
        let config::Status { address, path } = &self.0.status;
        let host = address.trim_start_matches("tcp:");
        let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        let answer = ask(address, request.as_bytes(), CONNECT_LIMIT, ANSWER_LIMIT)?;
        Ok(body(&String::from_utf8_lossy(&answer)))
    }

    fn member(&self, url: &str) -> Result<u16, Failure> {
        let answer = http::send(&http::Request::get(url).timeout(MEMBER_LIMIT))?;
        Ok(answer.status)
    }
}

/// The body of an answer with status 200, else its first line.
fn body(answer: &str) -> String {
    let first = answer.lines().next().unwrap_or_default();
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) if first.split(' ').nth(1) == Some("200") => body.to_owned(),
        _ => first.to_owned(),
    }
}

/// Reads an upstream's servers, edits them and makes that live.
fn edit(
    ctx: &OpContext,
    pool: &PoolRef,
    until: Until,
    target_ids: &[&str],
    mut edit: impl FnMut(&mut Servers, &str) -> Result<(), Failure>,
) -> Result<Vec<MemberResult>, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    let changer = Changer {
        world: &Granted(&config),
        config: &config,
    };
    let file = Config::servers_file(config.upstream(&pool.id)?);
    let before = changer.text(&file, NO_SERVER)?;
    let mut servers = Servers::parse(&before);
    let before = servers.text();
    let mut refused: Vec<(&str, Failure)> = Vec::new();
    for id in target_ids {
        let mut edited = servers.clone();
        match edit(&mut edited, id) {
            Ok(()) => servers = edited,
            Err(failure) => refused.push((id, failure)),
        }
    }
    let change = Change {
        file,
        before,
        after: servers.text(),
    };
    let outcome = changer.apply(&[change], until, ctx.dry_run)?;
    Ok(per_member(target_ids.iter().copied(), |id| {
        match refused.iter().find(|(refused, _)| *refused == id) {
            Some((_, failure)) => Err(failure.clone()),
            None => Ok(outcome.clone()),
        }
    }))
}

fn ids(members: &[Member]) -> Vec<&str> {
    members
        .iter()
        .map(|member| member.target_id.as_str())
        .collect()
}

impl LoadBalancer for Nginx {
    fn register(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let well = |server: &servers::Server| members::well(&Granted(&config), &config, server);
        edit(ctx, pool, Until::Live, &ids(members), |servers, id| {
            let member = members.iter().find(|member| member.target_id == id);
            let Some(member) = member else {
                return Ok(());
            };
            servers.put(id, &member.address, member.port, member.weight)?;
            let server = servers.find(id);
            server.map_or(Ok(()), &well)
        })
    }

    fn deregister(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        edit(ctx, pool, Until::Drained, &ids(members), |servers, id| {
            servers.take_out(id);
            Ok(())
        })
    }

    fn status(
        ctx: &OpContext,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let changer = Changer {
            world: &Granted(&config),
            config: &config,
        };
        if ctx.dry_run {
            // Before a release, so that it does not begin where nginx would refuse every change.
            changer.test()?;
        }
        let standing = changer.standing()?;
        let file = Config::servers_file(config.upstream(&pool.id)?);
        let members = Members::new(
            &changer,
            &changer.file(&file, NO_SERVER, standing)?,
            standing,
        );
        let asked = match target_ids {
            [] => members.all(),
            asked => asked.to_vec(),
        };
        let status = |target_id: String| {
            let (phase, reason) = members.phase(&target_id)?;
            Ok(MemberStatus {
                target_id,
                phase,
                open_connections: None,
                reason,
                observed_at: HOST_STAMPS,
            })
        };
        asked.into_iter().map(status).collect()
    }

    fn poll(_ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
        poll(token)
    }
}

impl Weights for Nginx {
    fn set(
        ctx: &OpContext,
        pool: &PoolRef,
        weights: &[Weight],
    ) -> Result<Vec<MemberResult>, Failure> {
        let ids: Vec<&str> = weights
            .iter()
            .map(|weight| weight.target_id.as_str())
            .collect();
        edit(ctx, pool, Until::Live, &ids, |servers, id| {
            let weight = weights.iter().find(|weight| weight.target_id == id);
            weight.map_or(Ok(()), |weight| servers.weigh(id, weight.weight))
        })
    }
}

impl Router for Nginx {
    fn check(
        _ctx: &OpContext,
        sides: &[Side],
        _purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let changer = Changer {
            world: &Granted(&config),
            config: &config,
        };
        match Splitter::new(&changer, sides) {
            Ok(splitter) => splitter.check(),
            Err(failure) => Ok(vec![Diagnostic::error("", &failure.message)]),
        }
    }

    fn get(_ctx: &OpContext, sides: &[Side]) -> Result<Split, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let changer = Changer {
            world: &Granted(&config),
            config: &config,
        };
        Splitter::new(&changer, sides)?.get()
    }

    fn set(
        ctx: &OpContext,
        sides: &[Side],
        expected_revision: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let changer = Changer {
            world: &Granted(&config),
            config: &config,
        };
        Splitter::new(&changer, sides)?.set(expected_revision, shares, ctx.dry_run)
    }

    fn poll(_ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
        poll(token)
    }
}

fn poll(token: &str) -> Result<Outcome, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    let changer = Changer {
        world: &Granted(&config),
        config: &config,
    };
    changer.poll(token)
}

export!(Nginx: LoadBalancer, Weights, Router);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_an_answer_is_what_follows_its_head() {
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nserver: nginx\r\n\r\n17 42\n"),
            "17 42\n"
        );
        assert_eq!(
            body("HTTP/1.1 404 Not Found\r\n\r\n17"),
            "HTTP/1.1 404 Not Found"
        );
        assert_eq!(body(""), "");
    }
}
