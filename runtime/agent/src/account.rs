//! Accounts of the instance, as `/etc/passwd` and `/etc/group` name them.
//!
//! Directory services are not asked: that needs the C library's plug-ins, which a static program cannot load.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Gid, Uid};

/// A user with everything that running as it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups, the primary one included.
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: String,
}

/// A name that cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no user `{name}` in /etc/passwd")]
    NoUser { name: String },
    #[error("there is no group `{name}` in /etc/group")]
    NoGroup { name: String },
    #[error("read {path}")]
    Read {
        path: &'static str,
        #[source]
        source: io::Error,
    },
}

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

impl Account {
    /// Finds a user by its number.
    pub(crate) fn numbered(uid: Uid) -> Option<Self> {
        let (users, groups) = (read(USERS).ok()?, read(GROUPS).ok()?);
        let user = users
            .lines()
            .map(fields)
            .find(|fields| id(fields[2]) == Some(uid.as_raw()))?;
        user_in(&users, &groups, user[0])
    }

    /// Finds a user by its name.
    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        user_in(&read(USERS)?, &read(GROUPS)?, name).ok_or_else(|| Error::NoUser {
            name: name.to_owned(),
        })
    }
}

/// Finds a group by its name.
pub(crate) fn group_named(name: &str) -> Result<Gid, Error> {
    let text = read(GROUPS)?;
    text.lines()
        .map(fields)
        .find(|fields| fields[0] == name)
        .and_then(|fields| id(fields[2]))
        .map(Gid::from_raw)
        .ok_or_else(|| Error::NoGroup {
            name: name.to_owned(),
        })
}

fn read(path: &'static str) -> Result<String, Error> {
    let bytes = fs::read(Path::new(path)).map_err(|source| Error::Read { path, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn user_in(users: &str, groups: &str, name: &str) -> Option<Account> {
    let user = users.lines().map(fields).find(|fields| fields[0] == name)?;
    let (uid, gid) = (Uid::from_raw(id(user[2])?), Gid::from_raw(id(user[3])?));
    let mut all = vec![gid];
    for group in groups.lines().map(fields) {
        if let Some(extra) = id(group[2]).map(Gid::from_raw)
            && group[3].split(',').any(|member| member == name)
            && !all.contains(&extra)
        {
            all.push(extra);
        }
    }
    let home = if user[5].is_empty() { "/" } else { user[5] };
    Some(Account {
        name: name.to_owned(),
        uid,
        gid,
        groups: all,
        home: home.to_owned(),
    })
}

/// The colon-separated fields of a line; those that are not there are empty.
fn fields(line: &str) -> [&str; 7] {
    let mut fields = [""; 7];
    for (field, text) in fields.iter_mut().zip(line.split(':')) {
        *field = text;
    }
    fields
}

/// A user or group id. The highest number means "leave as it is" to the kernel and names nobody.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\n# odd\ndeploy:x:1000:1000:,,,:/home/deploy:/bin/sh\nodd:x:abc:1::\nbare:x:7:8\n";
    const GROUPS: &str = "root:x:0:\ndeploy:x:1000:\nadm:x:4:syslog,deploy\nwww:x:33:deploy\ndeployers:x:34:deployer\n";

    #[test]
    fn a_user_comes_with_its_groups_and_home() {
        let user = user_in(USERS, GROUPS, "deploy").unwrap();

        assert_eq!(user.uid.as_raw(), 1000);
        assert_eq!(
            user.groups
                .iter()
                .map(|gid| gid.as_raw())
                .collect::<Vec<_>>(),
            [1000, 4, 33]
        );
        assert_eq!(user.home, "/home/deploy");
    }

    #[test]
    fn unknown_and_unreadable_users_are_nobody() {
        assert_eq!(user_in(USERS, GROUPS, "ghost"), None);
        assert_eq!(user_in(USERS, GROUPS, "odd"), None);
        assert_eq!(user_in(USERS, GROUPS, "bare").unwrap().home, "/");
    }
}
