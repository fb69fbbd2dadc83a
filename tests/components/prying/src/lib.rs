//! Signs requests as the adapters of clouds do, then tries what a hostile plugin would to see what it signs with, and
//! writes its whole memory into the directory `memory`, as `dump`, and what it found out, as `seen`.

use std::fmt::Display;

use cutover_plugin_sdk::bindings::host::cutover::plugin::directories;
use cutover_plugin_sdk::http::{Request, Response, send};
use cutover_plugin_sdk::secrets::{self, Hash};
use cutover_plugin_sdk::signing::jdcloud::Dialect;
use cutover_plugin_sdk::signing::{Credentials, aws, huawei, jdcloud, nonce};
use cutover_plugin_sdk::{
    Failure, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Outcome, Plugin, PoolRef,
    export, now, secrets_reveal,
};
use serde::Deserialize;

const KEY: &str = "secret-key";
const TOKEN: &str = "session-token";

struct Prying;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// A server that answers with what it was sent.
    url: String,
    /// Something that is in memory, so that whoever reads the dump can tell that it is one.
    #[serde(rename = "control")]
    _control: String,
}

impl Plugin for Prying {
    type Config = Config;
}

impl LoadBalancer for Prying {
    fn register(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        Err(unsupported())
    }

    fn deregister(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        Err(unsupported())
    }

    fn status(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _targets: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        Err(unsupported())
    }

    fn poll(_ctx: &OpContext, _token: &str) -> Result<Outcome, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let mut seen = Vec::new();
        sign(&config, &mut seen)?;
        pry(&config, &mut seen)?;
        overload(&config, &mut seen);
        directories::write("memory", "seen", seen.join("\n").as_bytes())?;
        directories::write("memory", "dump", memory())?;
        Ok(Outcome::Unchanged)
    }
}

export!(Prying: LoadBalancer);

fn unsupported() -> Failure {
    Failure::unsupported("prying", "this plugin only pries")
}

/// Signs in every way and sends what it signed.
fn sign(config: &Config, seen: &mut Vec<String>) -> Result<(), Failure> {
    let credentials = Credentials::granted("AKIDEXAMPLE", KEY, Some(TOKEN))?;
    let at = now();
    let request = || Request::new("POST", &config.url).body("{}");

    let mut signed = request();
    aws::sign(&mut signed, &credentials, "eu-central-1", "s3", at)?;
    tell(seen, "aws", send(&signed));

    let mut signed = request();
    let dialect = Dialect::Three;
    let nonce = nonce();
    jdcloud::sign(
        &mut signed,
        &credentials,
        dialect,
        "cn-north-1",
        "lb",
        at,
        &nonce,
    )?;
    tell(seen, "jdcloud", send(&signed));

    let mut signed = request();
    huawei::sign(&mut signed, &credentials, "project", at)?;
    tell(seen, "huawei", send(&signed));
    Ok(())
}

/// Tries to get at the secrets.
fn pry(config: &Config, seen: &mut Vec<String>) -> Result<(), Failure> {
    let key = secrets::get(KEY)?;
    seen.push(format!("name {} version {}", key.name(), key.version()));
    match secrets_reveal::reveal(&key) {
        Ok(value) => seen.push(format!("reveal {}", String::from_utf8_lossy(&value))),
        Err(failure) => seen.push(format!("reveal {:?} {}", failure.class, failure.code)),
    }
    for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
        let mac = key.hmac(hash, &[], &[], &[]);
        seen.push(format!("hmac {}", String::from_utf8_lossy(&mac)));
        let digest = secrets::digest(hash, b"{{secret:secret-key}}")?;
        seen.push(format!("digest {}", String::from_utf8_lossy(&digest)));
    }
    let echo = Request::new(
        "POST",
        format!("{}?q={{{{secret:secret-key}}}}", config.url),
    )
    .header("X-Plain", "{{secret:secret-key}}")
    .header("X-Twice", "{{secret:secret-key}}{{secret:session-token}}")
    .header("X-Base64", "{{secret:secret-key|base64}}")
    .body("{{secret:secret-key}}");
    tell(seen, "echo", send(&echo));
    let half = Request::get(&config.url).header("X-Half", "{{secret:secret-key|half}}");
    tell(seen, "half", send(&half));
    Ok(())
}

/// Asks for more than a request may be.
fn overload(config: &Config, seen: &mut Vec<String>) {
    let many = (0..101).fold(Request::get(&config.url), |request, i| {
        request.header(format!("X-{i}"), "1")
    });
    tell(seen, "many", send(&many));
    let long = (0..5).fold(Request::get(&config.url), |request, i| {
        request.header(format!("X-{i}"), "1".repeat(8 << 10))
    });
    tell(seen, "long", send(&long));
    let large = Request::new("POST", &config.url).body(vec![b'1'; (4 << 20) + 1]);
    tell(seen, "large", send(&large));
}

fn tell(seen: &mut Vec<String>, what: &str, answer: Result<Response, Failure>) {
    let line = |text: &dyn Display| format!("{what} {text}");
    match answer {
        Ok(response) => {
            seen.push(line(&response.status));
            for (name, value) in &response.headers {
                let value = String::from_utf8_lossy(value);
                seen.push(line(&format!("{name}: {value}")));
            }
            seen.push(line(&response.text()));
        }
        Err(failure) => seen.push(line(&failure.message)),
    }
}

/// All of linear memory, but for the first bytes, where the linker puts nothing and no Rust slice may begin.
#[cfg(target_family = "wasm")]
#[allow(unsafe_code, reason = "it looks at memory that is not its own")]
fn memory() -> &'static [u8] {
    const FIRST: usize = 16;
    let length = core::arch::wasm32::memory_size(0) * 65536 - FIRST;
    // SAFETY: linear memory is there up to its size, nothing else runs, and the host only reads.
    unsafe { core::slice::from_raw_parts(std::hint::black_box(FIRST) as *const u8, length) }
}

#[cfg(not(target_family = "wasm"))]
fn memory() -> &'static [u8] {
    &[]
}
