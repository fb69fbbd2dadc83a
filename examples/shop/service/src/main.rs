//! The example's service: a small HTTP server that says which version answers, and its own health check.
//!
//! `shop-service serve ADDRESS VERSION` answers `/healthz` with 200 and everything else with `shop VERSION`, and the header
//! `x-instance` names the instance that it was deployed to; `shop-service check ADDRESS VERSION` waits until a server there
//! answers with that version.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, io, thread};

/// How long `check` waits for a server that is still starting.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["serve", address, version] => serve(address, version),
        ["check", address, version] => check(address, version),
        _ => Err(io::Error::other(
            "usage: shop-service serve|check ADDRESS VERSION",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "shop-service: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, version: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let instance = env::var("CUTOVER_INSTANCE_ID").unwrap_or_default();
    for connection in listener.incoming() {
        let (connection, version, instance) = (connection?, version.to_owned(), instance.clone());
        thread::spawn(move || answer(connection, &version, &instance));
    }
    Ok(())
}

/// Answers the requests of one connection until the client closes it, or asks for its end.
fn answer(mut connection: TcpStream, version: &str, instance: &str) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(connection.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        let mut closes = false;
        while reader.read_line(&mut header)? > 0 && !header.trim().is_empty() {
            closes |= header.trim().eq_ignore_ascii_case("connection: close");
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or("/");
        let body = if path == "/healthz" {
            "ok\n".to_owned()
        } else {
            format!("shop {version}\n")
        };
        // In one piece: the second of two small ones would wait for the client to acknowledge the first.
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-instance: {instance}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(answer.as_bytes())?;
        if closes {
            return Ok(());
        }
    }
}

fn check(address: &str, version: &str) -> io::Result<()> {
    let began = Instant::now();
    loop {
        let found = get(address);
        match found {
            Ok(body) if body.trim() == format!("shop {version}") => return Ok(()),
            Ok(body) => {
                return Err(io::Error::other(format!(
                    "{address} answers `{}`",
                    body.trim()
                )));
            }
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn get(address: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(
        connection,
        "GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n"
    )?;
    connection.shutdown(std::net::Shutdown::Write)?;
    let mut response = String::new();
    connection.read_to_string(&mut response)?;
    response
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .ok_or_else(|| io::Error::other("no HTTP answer"))
}
