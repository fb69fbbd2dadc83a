//! Object storages on loopback that check signatures: SeaweedFS, and moto with a bucket.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use crate::cloud::{program, python};
use crate::{Moto, free_ports, until};

/// A real SeaweedFS with its gateway for S3. It ends when the last who uses it drops it.
pub struct SeaweedFs {
    child: Child,
    _folder: TempDir,
    /// `http://HOST:PORT`
    pub endpoint: String,
}

/// The one that tests of a process share: it takes seconds to start.
static SHARED: Mutex<Weak<SeaweedFs>> = Mutex::new(Weak::new());

impl SeaweedFs {
    pub const ACCESS_KEY: &str = "AKTEST";
    pub const SECRET_KEY: &str = "SKTEST-not-to-be-seen";
    /// A key that may read objects and not list them.
    pub const READER: (&str, &str) = ("AKREAD", "SKREAD");

    /// Starts it, unless it runs for another test.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        started
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(path("data")).expect("make a folder");
        let identity = |name: &str, (access, secret): (&str, &str), actions: &[&str]| {
            serde_json::json!({
                "name": name,
                "credentials": [{"accessKey": access, "secretKey": secret}],
                "actions": actions
            })
        };
        let all = ["Admin", "Read", "Write", "List", "Tagging"];
        let config = serde_json::json!({"identities": [
            identity("tests", (Self::ACCESS_KEY, Self::SECRET_KEY), &all),
            identity("reader", Self::READER, &["Read:shop"]),
        ]});
        fs::write(path("s3.json"), config.to_string()).expect("write the identities");
        // Every port that it has a default for has to be given: they may be taken.
        let ports = free_ports(8);
        let options = [
            ("-ip", "127.0.0.1".to_owned()),
            ("-ip.bind", "127.0.0.1".to_owned()),
            ("-dir", path("data")),
            ("-master.port", ports[0].to_string()),
            ("-master.port.grpc", ports[1].to_string()),
            ("-master.telemetry", "false".to_owned()),
            ("-master.volumeSizeLimitMB", "64".to_owned()),
            ("-volume.port", ports[2].to_string()),
            ("-volume.port.grpc", ports[3].to_string()),
            // Each bucket takes several; they are only as large as what is in them.
            ("-volume.max", "100".to_owned()),
            ("-filer", "true".to_owned()),
            ("-filer.port", ports[4].to_string()),
            ("-filer.port.grpc", ports[5].to_string()),
            ("-filer.localSocket", path("filer.sock")),
            ("-s3", "true".to_owned()),
            ("-s3.port", ports[6].to_string()),
            ("-s3.port.grpc", ports[7].to_string()),
            ("-s3.port.iceberg", "0".to_owned()),
            ("-s3.port.lance", "0".to_owned()),
            ("-s3.localSocket", path("s3.sock")),
            ("-s3.config", path("s3.json")),
        ];
        let log = File::create(path("log")).expect("make a log");
        let child = Command::new(program("weed"))
            .arg("server")
            .args(options.map(|(name, value)| format!("{name}={value}")))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start SeaweedFS");
        let address = SocketAddr::from(([127, 0, 0, 1], ports[6]));
        let seaweed = Self {
            child,
            _folder: folder,
            endpoint: format!("http://{address}"),
        };
        until("SeaweedFS answers", || status(address, "/") == Some(403));
        // A volume has to be there before the first object is.
        until("SeaweedFS takes objects", || {
            seaweed
                .run("s3.create_bucket(Bucket='shop')\ns3.put_object(Bucket='shop', Key='ready', Body=b'')")
                .is_ok()
        });
        seaweed
    }

    /// Runs a script with boto3's client as `s3`; what it prints.
    ///
    /// # Errors
    /// What the script says when it fails.
    pub fn run(&self, script: &str) -> Result<String, String> {
        boto3(&self.endpoint, (Self::ACCESS_KEY, Self::SECRET_KEY), script)
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// As an object storage: with a bucket `shop`, a key that never expires (`id`, `secret`), and temporary credentials (`short_id`,
/// `short_secret`, `token`).
const BUCKET: &str = r#"
client("s3").create_bucket(Bucket="shop")
policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
iam = client("iam")
iam.create_user(UserName="tests")
iam.put_user_policy(UserName="tests", PolicyName="all", PolicyDocument=policy)
key = iam.create_access_key(UserName="tests")["AccessKey"]
trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}]})
role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
iam.put_role_policy(RoleName="reader", PolicyName="all", PolicyDocument=policy)
short = client("sts").assume_role(RoleArn=role, RoleSessionName="tests")["Credentials"]
made = {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"],
  "short_id": short["AccessKeyId"], "short_secret": short["SecretAccessKey"], "token": short["SessionToken"]}
"#;

impl Moto {
    /// Starts it as an object storage.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn with_bucket() -> Self {
        Self::start(BUCKET, &[])
    }

    /// As [`SeaweedFs::run`].
    ///
    /// # Errors
    /// What the script says when it fails.
    pub fn run(&self, script: &str) -> Result<String, String> {
        boto3(
            &self.endpoint,
            (self.made("id"), self.made("secret")),
            script,
        )
    }
}

fn boto3(endpoint: &str, (id, secret): (&str, &str), script: &str) -> Result<String, String> {
    let before = "
import sys, boto3
from botocore.config import Config
endpoint, id, secret = sys.argv[1:4]
s3 = boto3.client('s3', endpoint_url=endpoint, region_name='us-east-1', aws_access_key_id=id, aws_secret_access_key=secret,
                  config=Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 8, 'mode': 'standard'}))
";
    let answer = python(&format!("{before}{script}"), &[endpoint, id, secret]);
    match answer.code {
        0 => Ok(answer.stdout),
        _ => Err(answer.stderr),
    }
}

/// The status that a path is answered with.
pub(crate) fn status(address: SocketAddr, path: &str) -> Option<u16> {
    let mut connection = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

pub(crate) fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}
