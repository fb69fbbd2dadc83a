//! The agent of a fresh connection ends the one of the connection before.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn start(program: &Path, word: &str) -> Child {
    Command::new(program)
        .args(["serve", word])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for an answer, and with it for the agent to be in charge.
fn answers(agent: &mut Child) -> bool {
    let question = b"{\"v\":1,\"type\":\"cached\",\"ask\":7,\"rootdir\":\"/\",\"caches\":[]}\n";
    agent.stdin.as_mut().unwrap().write_all(question).unwrap();
    let mut answer = String::new();
    let stdout = agent.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut answer).unwrap();
    answer.contains("\"ask\":7")
}

#[test]
fn an_agent_succeeds_the_one_with_the_same_word_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("agent");
    std::fs::copy(env!("CARGO_BIN_EXE_cutover-agent"), &program).unwrap();
    let mut first = start(&program, "one");
    let mut other = start(&program, "other");
    assert!(answers(&mut first) && answers(&mut other));

    let mut second = start(&program, "one");

    assert!(answers(&mut second));
    assert_eq!(first.wait().unwrap().signal(), Some(9));
    assert!(answers(&mut other));
    for mut agent in [second, other] {
        drop(agent.stdin.take());
        assert!(agent.wait().unwrap().success());
    }
}
