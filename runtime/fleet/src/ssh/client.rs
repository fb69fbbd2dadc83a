//! How the program `ssh` is called.

use std::path::{Path, PathBuf};

use model::Ssh;
use tokio::process::Command;

/// What a call of `ssh` is to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It makes the connection, and lets others share it as long as it lives.
    Master,
    /// It shares the connection.
    Guest,
}

/// Options that hold for every call, over whatever the configuration says. Host keys are not among them: how they are
/// checked is the configuration's to say, and without one an unknown key is refused, for nobody is there to be asked.
const OPTIONS: [&str; 10] = [
    "BatchMode=yes",
    // Two unanswered questions, and the one before them, are the time that a host may be silent.
    "ServerAliveCountMax=2",
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RequestTTY=no",
    "RemoteCommand=none",
    // Its messages say why a host is not reached.
    "LogLevel=INFO",
];

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) program: PathBuf,
}

impl Client {
    /// A call that runs a command line on a host.
    pub(crate) fn command(&self, ssh: &Ssh, role: Role, control: &Path, line: &str) -> Command {
        let seconds = ssh.settings.connect_timeout.as_secs().max(1);
        let mut command = Command::new(&self.program);
        for option in OPTIONS {
            command.args(["-o", option]);
        }
        command
            .arg("-o")
            .arg(format!("ConnectTimeout={seconds}"))
            .arg("-o")
            .arg(format!("ServerAliveInterval={}", (seconds / 3).max(1)))
            .arg("-o")
            .arg(match role {
                Role::Master => "ControlMaster=yes",
                Role::Guest => "ControlMaster=no",
            })
            .arg("-S")
            .arg(control)
            .args(["-e", "none"]);
        if let Some(user) = &ssh.address.user {
            command.args(["-l", user]);
        }
        if let Some(port) = ssh.address.port {
            command.arg("-p").arg(port.to_string());
        }
        command
            .args(["--", &ssh.address.host, line])
            .kill_on_drop(true);
        command
    }
}

/// A word of a command line, for whatever shell the user has.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{SshAddress, SshSettings};

    use super::*;

    fn line(address: &str, timeout: u64) -> String {
        let ssh = Ssh {
            address: SshAddress::parse(address).unwrap(),
            settings: SshSettings {
                connect_timeout: Duration::from_secs(timeout),
                ..SshSettings::default()
            },
        };
        let client = Client {
            program: "ssh".into(),
        };
        let command = client.command(&ssh, Role::Master, Path::new("/run/c/0"), "true");
        let words: Vec<_> = command
            .as_std()
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn user_and_port_are_left_to_the_configuration_where_they_are_left_out() {
        let bare = line("ssh://web-1", 10);
        assert!(
            bare.ends_with("-S /run/c/0 -e none -- web-1 true"),
            "{bare}"
        );

        let full = line("ssh://deploy@[fe80::1]:2222", 10);
        assert!(
            full.ends_with("-e none -l deploy -p 2222 -- fe80::1 true"),
            "{full}"
        );
    }

    #[test]
    fn host_keys_are_checked_and_a_silent_host_is_noticed_in_time() {
        let line = line("ssh://web-1", 9);

        assert!(!line.contains("StrictHostKeyChecking"), "{line}");
        assert!(line.contains("ConnectTimeout=9 "), "{line}");
        assert!(line.contains("ServerAliveInterval=3 "), "{line}");
    }

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("/home/o'neil/x"), r"'/home/o'\''neil/x'");
    }
}
