//! moto, which plays AWS on loopback and checks signatures and policies.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::cloud::{program, python};
use crate::object_stores::{end, status};
use crate::{free_ports, until};

/// moto with what a script made in it. It ends when it is dropped.
pub struct Moto {
    child: Child,
    _folder: TempDir,
    /// `http://HOST:PORT`
    pub endpoint: String,
    made: BTreeMap<String, String>,
}

/// What comes before a script.
const BEFORE: &str = r#"
import boto3, json, sys, urllib.request
endpoint = sys.argv[1]
client = lambda name: boto3.client(name, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="setup", aws_secret_access_key="setup")
"#;

/// What comes after it: from then on signatures and policies are checked.
const AFTER: &str = r#"
request = urllib.request.Request(endpoint + "/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}, method="POST")
urllib.request.urlopen(request).read()
print(json.dumps(made))
"#;

impl Moto {
    /// Starts it and runs a script, of which everything is allowed. The script has boto3's clients by `client(NAME)` and `arguments` as
    /// `sys.argv[2:]`, and says in `made` what the test has to know of what it made: texts by their names.
    ///
    /// # Panics
    /// When it cannot be started, and when the script fails.
    #[must_use]
    pub fn start(script: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_ports(1)[0];
        let log = File::create(folder.path().join("log")).expect("make a log");
        let child = Command::new(program("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start moto");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut moto = Self {
            child,
            _folder: folder,
            endpoint: format!("http://{address}"),
            made: BTreeMap::new(),
        };
        until("moto answers", || {
            status(address, "/moto-api/data.json") == Some(200)
        });
        let arguments = [&[moto.endpoint.as_str()], arguments].concat();
        let printed = python(&format!("{BEFORE}{script}{AFTER}"), &arguments).ok();
        moto.made = serde_json::from_str(&printed.stdout).expect("texts by their names");
        moto
    }

    /// What the script made, by the name that it gave it.
    ///
    /// # Panics
    /// When it has made no such thing.
    #[must_use]
    pub fn made(&self, name: &str) -> &str {
        &self.made[name]
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
