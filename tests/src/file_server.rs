//! A real nginx that serves files.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::{Site, free_ports, until};

/// nginx on loopback, with the files below a folder. It ends when it is dropped.
pub struct FileServer {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl FileServer {
    /// Serves `FOLDER/files` of a site; `more` are further directives of its location.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(site: &Site, folder: &str, more: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports(1)[0]));
        let program =
            std::env::var("CUTOVER_TEST_NGINX").unwrap_or_else(|_| "/usr/sbin/nginx".to_owned());
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path temp;\n"))
            .collect();
        site.write(&format!("{folder}/files/kept"), "");
        site.write(
            &format!("{folder}/nginx.conf"),
            &format!(
                "daemon off;\npid nginx.pid;\nerror_log error.log;\nworker_processes 1;\nuser root;\nevents {{ worker_connections 64; }}\n\
                 http {{\n{paths}  log_format plain '$request_method $uri $status \"$http_range\" \"$http_if_none_match\"';\n  access_log access.log plain;\n  \
                 server {{ listen {address}; location / {{ root files; {more} }} }}\n}}\n"
            ),
        );
        let folder = site.path(folder);
        let child = Command::new(program)
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start nginx: on Debian, `apt-get install nginx-light`");
        let server = Self {
            child,
            folder,
            address,
        };
        until("nginx answers", || TcpStream::connect(address).is_ok());
        server
    }

    /// The address of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked: `METHOD PATH STATUS "RANGE" "IF-NONE-MATCH"`.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        // The workers end with their master, which a kill would not let tell them.
        let ended = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        if !ended.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
