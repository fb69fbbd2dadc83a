//! A conductor that reaches the world through a proxy alone: packages and plugins' requests.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use cutover_tests::{Answer, Site, WebServer};

/// A proxy that joins every tunnel with one server, whatever it is asked for. It ends when it is dropped.
struct Proxy {
    address: SocketAddr,
    /// Where the tunnels were to lead.
    asked: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, is_over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::default());
        let thread = thread::spawn({
            let (asked, is_over) = (Arc::clone(&asked), Arc::<AtomicBool>::clone(&is_over));
            move || {
                let mut tunnels = Vec::new();
                for client in listener.incoming().flatten() {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let asked = Arc::clone(&asked);
                    tunnels.push(thread::spawn(move || tunnel(client, server, &asked)));
                }
                for tunnel in tunnels {
                    let _ = tunnel.join();
                }
            }
        });
        Self {
            address,
            asked,
            is_over,
            thread: Some(thread),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tunnel(mut client: TcpStream, server: SocketAddr, asked: &Mutex<Vec<String>>) {
    // The client says nothing more before it is told that the tunnel is there.
    let mut lines = BufReader::new(client.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let _ = lines.find(String::is_empty);
    let Some(to) = request
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
    else {
        return;
    };
    asked.lock().unwrap().push(to.to_owned());
    let Ok(mut server) = TcpStream::connect(server) else {
        return;
    };
    let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let answers = thread::spawn(move || {
        let _ = copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    let _ = answers.join();
}

/// Two instances, a gate between them that asks `health.example`, and a server of packages that is healthy.
fn shop() -> (Site, WebServer) {
    let site = Site::with_instances(
        2,
        "        strategy: {type: rolling, batches: 2}\n        gates:\n          \
         - {name: answers, plugin: http-check, interval: 1s, config: {url: \"http://health.example/healthz\"}}\n",
    );
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let plugins = "plugins:\n  http-check:\n    component: http-check\n    grants: {http: [\"http://health.example\"]}\n";
    site.write("cutover.yaml", &format!("{plugins}{groups}"));
    site.traced_package("v1", "1.4.0", "");
    site.pack("v1", "v1.tar.gz");
    let archive = std::fs::read(site.path("v1.tar.gz")).unwrap();
    let server = WebServer::start(move |path| match path {
        "/shop-1.4.0.tar.gz" => WebServer::found(&archive),
        "/healthz" => WebServer::found(b"fine"),
        _ => WebServer::status("404 Not Found"),
    });
    (site, server)
}

/// Deploys a package where only these variables speak of proxies.
fn deploy(site: &Site, package: &str, variables: &[(&str, &str)]) -> Answer {
    let mut command = site.command(&["deploy", "shop/web", "--package", package]);
    for name in ["all_proxy", "http_proxy", "https_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    Answer::from(output)
}

const PACKAGE: &str = "http://packages.example/shop-1.4.0.tar.gz";

#[test]
fn packages_and_requests_of_plugins_go_through_the_proxy() {
    let (site, server) = shop();
    let proxy = Proxy::to(server.address());

    // Nobody here knows the names: the proxy does.
    deploy(&site, PACKAGE, &[("HTTP_PROXY", &proxy.url())]).ok();

    let report = site.report();
    assert_eq!(report["status"], "SUCCEEDED");
    let asked = proxy.asked();
    for host in ["packages.example:80", "health.example:80"] {
        assert!(asked.iter().any(|to| to == host), "{host}: {asked:?}");
    }
    let served = server.asked();
    assert!(
        served
            .iter()
            .any(|head| head.starts_with("get /healthz ") && head.contains("host: health.example")),
        "{served:?}"
    );
}

#[test]
fn a_host_that_is_to_be_asked_directly_is() {
    let (site, server) = shop();
    let proxy = Proxy::to(server.address());
    let package = server.url("/shop-1.4.0.tar.gz");

    let variables = [("all_proxy", &*proxy.url()), ("NO_PROXY", "127.0.0.1")];
    deploy(&site, &package, &variables).ok();

    let asked = proxy.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|to| to == "health.example:80"),
        "{asked:?}"
    );
}

#[test]
fn a_proxy_that_cannot_be_used_is_named_by_its_variable_and_without_its_password() {
    let (site, _server) = shop();

    let variables = [("http_proxy", "socks5://ann:hunter2@proxy.example:1080")];
    let answer = deploy(&site, PACKAGE, &variables);

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    let problem = "the environment variable `http_proxy` names a proxy of another kind than HTTP: write `http://HOST:PORT`";
    assert!(answer.stderr.contains(problem), "{}", answer.stderr);
    assert!(!answer.stderr.contains("hunter2"), "{}", answer.stderr);
    site.assert_untouched();
}
