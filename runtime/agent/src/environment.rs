//! The environment of a script: a clean base, the account's own, then what the request gives.
//!
//! Nothing else of the agent's environment reaches a script. Limits (`ulimit`) do: they are what whoever started the
//! agent set, for that is where an operator sets them, and the agent changes none.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use rustix::process::geteuid;

use crate::account::Account;
use crate::protocol::Cause;
use crate::shim::Failure;

/// Where programs are looked for by a script that runs as another account, and when the agent itself was not told.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a script that runs as the agent's account has of the agent's own environment.
const KEPT: [&str; 5] = ["PATH", "HOME", "USER", "LOGNAME", "LANG"];

/// What a script that runs as another account has of it.
const KEPT_OF_ANOTHER: [&str; 1] = ["LANG"];

/// Refuses what no environment can hold.
pub(crate) fn check(given: &[(String, String)]) -> Result<(), Failure> {
    let impossible = given
        .iter()
        .find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0'));
    match impossible {
        Some((key, _)) => {
            let reason = format!(
                "the environment variable `{}` cannot be set",
                key.escape_debug()
            );
            Err(Failure::new(Cause::Invalid, reason))
        }
        None => Ok(()),
    }
}

/// The environment of a script that runs as `account`, or as the agent's own when there is none.
pub(crate) fn of_script(
    given: &[(String, String)],
    account: Option<&Account>,
) -> Vec<(OsString, OsString)> {
    let another = account.filter(|account| account.uid != geteuid());
    let kept: &[&str] = match another {
        Some(_) => &KEPT_OF_ANOTHER,
        None => &KEPT,
    };
    let mut environment = vec![(OsString::from("PATH"), OsString::from(DEFAULT_PATH))];
    let mut set = |key: &OsStr, value: OsString| {
        // A shell may take the first of two entries with one name, or the last.
        environment.retain(|(present, _)| present != key);
        environment.push((key.to_owned(), value));
    };
    for key in kept {
        if let Some(value) = std::env::var_os(key) {
            set(key.as_ref(), value);
        }
    }
    // A service manager may start the agent with neither, and a script with `set -u` stumbles over that.
    let is_bare = account.is_none()
        && ["HOME", "USER", "LOGNAME"]
            .iter()
            .any(|key| std::env::var_os(key).is_none());
    // A worker does not learn of it when its own account is given another home.
    static OWN: OnceLock<Option<Account>> = OnceLock::new();
    let own = || OWN.get_or_init(|| Account::numbered(geteuid())).as_ref();
    if let Some(account) = account.or_else(|| is_bare.then(own).flatten()) {
        set("HOME".as_ref(), account.home.clone().into());
        set("USER".as_ref(), account.name.clone().into());
        set("LOGNAME".as_ref(), account.name.clone().into());
    }
    for (key, value) in given {
        set(key.as_ref(), value.into());
    }
    environment
}

#[cfg(test)]
mod tests {
    use rustix::process::{Gid, Uid};

    use super::*;

    fn value(environment: &[(OsString, OsString)], key: &str) -> Vec<String> {
        let found = environment.iter().filter(|(name, _)| name == key);
        found
            .map(|(_, value)| value.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn another_account_has_its_own_home_and_a_stated_path() {
        let account = Account {
            name: "deploy".to_owned(),
            uid: Uid::from_raw(geteuid().as_raw() + 1),
            gid: Gid::from_raw(1),
            groups: Vec::new(),
            home: "/home/deploy".to_owned(),
        };

        let environment = of_script(&[], Some(&account));

        assert_eq!(value(&environment, "PATH"), [DEFAULT_PATH]);
        assert_eq!(value(&environment, "HOME"), ["/home/deploy"]);
        assert_eq!(value(&environment, "USER"), ["deploy"]);
        assert_eq!(value(&environment, "LOGNAME"), ["deploy"]);
    }

    #[test]
    fn what_is_given_wins_and_is_there_once() {
        let given = [("PATH", "/a"), ("X", "1"), ("PATH", "/b")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));

        let environment = of_script(&given, None);

        assert_eq!(value(&environment, "PATH"), ["/b"]);
        assert_eq!(value(&environment, "X"), ["1"]);
    }
}
