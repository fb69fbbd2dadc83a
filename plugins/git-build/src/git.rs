//! What git is told, and what its answers mean.

use cutover_plugin_sdk::{Command, Failure, FailureClass};

use crate::config::Config;
use crate::reference::{Reference, Transport};

/// How many branches, and how many tags, a message names.
const NAMED: usize = 10;
/// How much of what git says a message has, in characters.
const QUOTED: usize = 500;

/// No program of the repository's, or of anybody's configuration, runs with git, and nothing goes on when it has ended.
const SETTINGS: [&str; 8] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
];

/// The empty tree, which every repository has, by the length of its ids.
const EMPTY_TREES: [&str; 2] = [
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
];

/// The environment that git runs in wherever it runs: it asks nobody, speaks one protocol, and reads no configuration but
/// the one that the operator names.
pub(crate) fn environment(config: &Config, transport: Transport) -> Vec<(&'static str, String)> {
    let file = config.config_file.as_deref().unwrap_or("/dev/null");
    [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", file),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ALLOW_PROTOCOL", transport.protocols()),
        // A connection that others share would have to be kept somewhere.
        (
            "GIT_SSH_COMMAND",
            "ssh -o BatchMode=yes -o ControlMaster=no -o ControlPath=none",
        ),
        // Messages are read by this plugin, too.
        ("LC_ALL", "C"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// The arguments that ask for references. Without names all branches and tags are meant.
pub(crate) fn list(url: &str, names: &[String]) -> Vec<String> {
    let mut arguments = vec!["ls-remote", "--quiet"];
    if names.is_empty() {
        arguments.extend(["--heads", "--tags"]);
    }
    arguments.extend(["--", url]);
    let names = names.iter().map(String::as_str);
    arguments
        .into_iter()
        .chain(names)
        .map(str::to_owned)
        .collect()
}

/// The names under which a revision may be there.
pub(crate) fn candidates(name: &str) -> Vec<String> {
    if name.starts_with("refs/") {
        return vec![name.to_owned(), format!("{name}^{{}}")];
    }
    vec![
        format!("refs/heads/{name}"),
        format!("refs/tags/{name}"),
        format!("refs/tags/{name}^{{}}"),
    ]
}

/// A commit that a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) commit: String,
    /// The whole name.
    pub(crate) name: String,
}

/// Finds a revision among the references that git lists. None where it is not there.
pub(crate) fn find(listed: &str, name: &str) -> Result<Option<Found>, Failure> {
    let mut found: Vec<Found> = Vec::new();
    let candidates = candidates(name);
    for (commit, reference) in references(listed) {
        // A pattern of git's also fits what merely ends like it.
        if !candidates.iter().any(|candidate| candidate == reference) {
            continue;
        }
        // An annotated tag is an object of its own; the commit that it is put on follows it.
        let name = reference.strip_suffix("^{}").unwrap_or(reference);
        found.retain(|found| found.name != name);
        found.push(Found {
            commit: commit.to_owned(),
            name: name.to_owned(),
        });
    }
    if found.len() > 1 {
        let names: Vec<_> = found
            .iter()
            .map(|found| format!("`{}`", found.name))
            .collect();
        return Err(Failure::invalid(
            "git-build.ambiguous",
            format!("`{name}` is a branch and a tag"),
        )
        .hint(format!(
            "write the whole name behind `#`: {}",
            names.join(" or ")
        )));
    }
    Ok(found.pop())
}

/// Ids and names.
fn references(listed: &str) -> impl Iterator<Item = (&str, &str)> {
    listed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(id, _)| matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The shortest part of a commit's id that is taken for one, as git itself writes it.
const SHORTEST: usize = 7;

/// Whether a name may be the beginning of a commit's id.
pub(crate) fn is_short_id(name: &str) -> bool {
    (SHORTEST..64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Finds the commit whose id begins so among those that branches and tags are at. A repository elsewhere tells no others.
pub(crate) fn find_short(listed: &str, short: &str) -> Result<Option<Found>, Failure> {
    let peeled: Vec<&str> = references(listed)
        .filter_map(|(_, name)| name.strip_suffix("^{}"))
        .collect();
    let mut found: Vec<Found> = Vec::new();
    for (commit, name) in references(listed) {
        // The object of an annotated tag is no commit.
        if commit.starts_with(short)
            && !peeled.contains(&name)
            && !found.iter().any(|found| found.commit == commit)
        {
            found.push(Found {
                commit: commit.to_owned(),
                name: name.strip_suffix("^{}").unwrap_or(name).to_owned(),
            });
        }
    }
    if found.len() > 1 {
        let ids: Vec<_> = found
            .iter()
            .map(|found| format!("`{}`", found.commit))
            .collect();
        let message = format!("`{short}` is the beginning of several commits' ids");
        return Err(
            Failure::invalid("git-build.ambiguous", message).hint(format!(
                "write the whole id behind `#`: {}",
                ids.join(" or ")
            )),
        );
    }
    Ok(found.pop())
}

/// What to say where a name is not there, with the names that are.
pub(crate) fn missing(url: &str, name: &str, listed: &str) -> Failure {
    let code = "git-build.revision";
    if is_short_id(name) {
        let message = format!("no branch and no tag of `{url}` is at a commit `{name}…`");
        return Failure::not_found(code, message)
            .hint("write the whole id of the commit behind `#`, as `git rev-parse` prints it: a repository elsewhere does not tell what a part of one stands for");
    }
    let [branches, tags] =
        ["refs/heads/", "refs/tags/"].map(|prefix| names_like(name, prefix, listed));
    if branches.is_none() && tags.is_none() {
        let message = format!("the repository `{url}` has no branch at all, and so no `{name}`");
        return Failure::not_found(code, message);
    }
    let named = [("branches", branches), ("tags", tags)]
        .into_iter()
        .filter_map(|(kind, names)| Some(format!("its {kind} are {}", names?)));
    let message = format!("the repository `{url}` has no branch and no tag `{name}`");
    Failure::not_found(code, message).hint(named.collect::<Vec<_>>().join("; "))
}

/// The names below a prefix, with what looks like one of them first. None where there are none.
fn names_like(wanted: &str, prefix: &str, listed: &str) -> Option<String> {
    let mut names: Vec<&str> = references(listed)
        .filter_map(|(_, reference)| reference.strip_prefix(prefix))
        .filter(|name| !name.ends_with("^{}"))
        .collect();
    let wanted = wanted.to_lowercase();
    names.sort_by_key(|name| {
        let name = name.to_lowercase();
        !(name.contains(&wanted) || wanted.contains(&name))
    });
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let known: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let known = known.join(", ");
    match (names.is_empty(), more) {
        (true, _) => None,
        (_, 0) => Some(known),
        (_, more) => Some(format!("{known} and {more} more")),
    }
}

/// What to say where git could not ask a repository.
pub(crate) fn unreadable(reference: &Reference<'_>, stderr: &str) -> Failure {
    let has = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    let (class, hint) = if has(&["dubious ownership"]) {
        let hint = "let git trust it: name a file with `[safe] directory = PATH` as `config_file` in the plugin's config";
        (FailureClass::Denied, Some(hint))
    } else if has(&[
        "terminal prompts disabled",
        "Authentication failed",
        "could not read ",
    ]) && reference.transport != Transport::Ssh
        && !has(&["does not appear to be a git repository"])
    {
        let hint = "give git credentials: name a configuration file that has them as `config_file` in the plugin's config";
        (FailureClass::Denied, Some(hint))
    } else if has(&["Host key verification failed", "Permission denied"]) {
        let hint = (reference.transport == Transport::Ssh)
            .then_some("see to it that this works without a question: ssh -o BatchMode=yes HOST");
        (FailureClass::Denied, hint)
    } else if has(&[
        "does not appear to be a git repository",
        "not found",
        "does not exist",
    ]) {
        (FailureClass::NotFound, None)
    } else if has(&[
        "Could not resolve host",
        "Failed to connect",
        "Connection ",
        "timed out",
    ]) {
        (FailureClass::Transient, None)
    } else {
        (FailureClass::Permanent, None)
    };
    let message = format!("git cannot read `{}`: {}", reference.url, quote(stderr));
    let failure = Failure::new(class, "git-build.repository", message);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What git says, on one line, without the advice that it always adds.
fn quote(stderr: &str) -> String {
    let advice = [
        "fatal: Could not read from remote repository.",
        "Please make sure you have the correct access rights",
        "and the repository exists.",
    ];
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !advice.contains(line))
        .collect();
    let text = lines.join("; ");
    let text = text.strip_prefix("fatal: ").unwrap_or(&text);
    if text.is_empty() {
        return "it does not say why".to_owned();
    }
    text.chars().take(QUOTED).collect()
}

/// Over SSH most servers do not hear which protocol git wants, and speak the first one. By that they give no commit but
/// those that branches are at. Then all branches and tags are fetched, to take the commit from among them.
const ALL_OR_ONE: &str = "alias.bring=!f() { \
git fetch --quiet --no-tags --no-recurse-submodules --depth=1 -- \"$1\" \"$2\" && return; code=$?; \
echo 'the server gives no single commit: fetching all branches and tags' >&2; \
git fetch --quiet --no-tags --no-recurse-submodules -- \"$1\" '+refs/heads/*:refs/remotes/all/*' '+refs/tags/*:refs/tags/*' \
&& git cat-file -e \"$2^{commit}\" || return $code; }; f";

/// The commands that bring one commit into an empty folder.
pub(crate) fn checkout(
    config: &Config,
    transport: Transport,
    url: &str,
    commit: &str,
) -> Vec<Command> {
    let short: String = commit.chars().take(12).collect();
    let command = |title: String, arguments: &[&str], hint: Option<&str>| Command {
        title,
        program: config.program.clone(),
        arguments: SETTINGS
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).to_owned())
            .collect(),
        hint: hint.map(str::to_owned),
    };
    let (format, empty) = match commit.len() {
        64 => ("--object-format=sha256", EMPTY_TREES[1]),
        _ => ("--object-format=sha1", EMPTY_TREES[0]),
    };
    let one = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-recurse-submodules",
        "--depth=1",
        "--",
        url,
        commit,
    ];
    let fetch: Vec<&str> = match transport {
        Transport::Ssh => ["-c", ALL_OR_ONE, "bring", url, commit].to_vec(),
        Transport::Https | Transport::Http | Transport::File => one.to_vec(),
    };
    vec![
        command(
            "prepare a repository".to_owned(),
            &["init", "--quiet", "--template=", format, "."],
            None,
        ),
        command(
            format!("fetch the commit {short}"),
            &fetch,
            Some(
                "deploy the branch again: where its history was rewritten, its former commits go away",
            ),
        ),
        command(
            "make sure that it has no submodules".to_owned(),
            &["diff", "--quiet", empty, commit, "--", ".gitmodules"],
            Some(
                "bring what the submodules hold in another way, for git-build fetches one repository: vendor it, or fetch it in the build command",
            ),
        ),
        command(
            format!("check out the commit {short}"),
            &[
                "-c",
                "advice.detachedHead=false",
                "checkout",
                "--quiet",
                "--detach",
                commit,
            ],
            None,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    #[test]
    fn a_branch_is_found_by_its_whole_name() {
        let listed =
            format!("{ONE}\trefs/heads/main\n{TWO}\trefs/heads/old/refs/heads/main\nwarning: x\n");

        let found = find(&listed, "main").unwrap().unwrap();

        assert_eq!(
            (found.commit.as_str(), found.name.as_str()),
            (ONE, "refs/heads/main")
        );
        assert_eq!(find(&listed, "mai").unwrap(), None);
    }

    #[test]
    fn an_annotated_tag_is_the_commit_that_it_is_put_on() {
        let listed = format!("{ONE}\trefs/tags/v1.0.0\n{TWO}\trefs/tags/v1.0.0^{{}}\n");

        for name in ["v1.0.0", "refs/tags/v1.0.0"] {
            let found = find(&listed, name).unwrap().unwrap();

            assert_eq!(
                (found.commit.as_str(), found.name.as_str()),
                (TWO, "refs/tags/v1.0.0")
            );
        }
    }

    #[test]
    fn a_name_of_a_branch_and_a_tag_is_refused() {
        let listed = format!("{ONE}\trefs/heads/v1\n{TWO}\trefs/tags/v1\n");

        let failure = find(&listed, "v1").unwrap_err();

        assert_eq!(failure.message, "`v1` is a branch and a tag");
        assert!(
            failure
                .hint
                .unwrap()
                .contains("`refs/heads/v1` or `refs/tags/v1`")
        );
    }

    #[test]
    fn the_beginning_of_an_id_stands_for_the_commit_of_a_branch_or_a_tag() {
        let listed = format!(
            "{ONE}\trefs/heads/main\n{ONE}\trefs/heads/other\n{TWO}\trefs/tags/v1\n3333333{}\trefs/tags/v1^{{}}\n",
            "0".repeat(33)
        );

        assert_eq!(find_short(&listed, "1111111").unwrap().unwrap().commit, ONE);
        assert_eq!(
            find_short(&listed, "3333333").unwrap().unwrap().name,
            "refs/tags/v1"
        );
        assert_eq!(
            find_short(&listed, "2222222").unwrap(),
            None,
            "a tag's object"
        );
        let two = format!("1111111{}\trefs/heads/x\n{listed}", "0".repeat(33));
        let failure = find_short(&two, "1111111").unwrap_err();
        assert!(failure.hint.unwrap().contains(ONE));
        let failure = missing("file:///r", "4444444", &listed);
        assert!(failure.hint.unwrap().contains("write the whole id"));
    }

    #[test]
    fn tags_that_look_like_a_missing_one_are_named() {
        let listed = format!("{ONE}\trefs/heads/main\n{TWO}\trefs/tags/v1.2.0\n");

        assert_eq!(
            missing("file:///r", "1.2.0", &listed).hint.unwrap(),
            "its branches are `main`; its tags are `v1.2.0`"
        );
    }

    #[test]
    fn where_there_is_no_such_branch_those_that_are_there_are_named() {
        let heads: String = (1..=12)
            .map(|number| format!("{ONE}\trefs/heads/topic-{number:02}\n"))
            .chain([format!("{ONE}\trefs/heads/Main\n")])
            .collect();

        let failure = missing("file:///r", "main", &heads);

        let hint = failure.hint.unwrap();
        assert!(
            hint.starts_with("its branches are `Main`, `topic-01`,"),
            "{hint}"
        );
        assert!(hint.ends_with("`topic-09` and 3 more"), "{hint}");
        assert!(
            missing("file:///r", "main", "")
                .message
                .contains("has no branch at all")
        );
    }

    #[test]
    fn what_git_says_decides_what_can_be_done() {
        let check = |text: &str, stderr: &str, class, hint: &str| {
            let reference = Reference::parse(text).unwrap();

            let failure = unreadable(&reference, stderr);

            assert_eq!(failure.class, class, "{stderr}");
            assert!(failure.hint.unwrap_or_default().contains(hint), "{stderr}");
            failure.message
        };

        let message = check(
            "git+file:///r#main",
            "fatal: '/r' does not appear to be a git repository\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n",
            FailureClass::NotFound,
            "",
        );
        assert_eq!(
            message,
            "git cannot read `file:///r`: '/r' does not appear to be a git repository"
        );
        check(
            "git+https://h/r#main",
            "fatal: could not read Username for 'https://h': terminal prompts disabled",
            FailureClass::Denied,
            "`config_file`",
        );
        check(
            "git+ssh://h/r#main",
            "git@h: Permission denied (publickey).",
            FailureClass::Denied,
            "BatchMode",
        );
        check(
            "git+https://h/r#main",
            "fatal: unable to access: Could not resolve host: h",
            FailureClass::Transient,
            "",
        );
        check(
            "git+file:///r#main",
            "fatal: detected dubious ownership in repository at '/r'",
            FailureClass::Denied,
            "safe",
        );
        check("git+file:///r#main", "", FailureClass::Permanent, "");
    }

    #[test]
    fn only_one_protocol_is_spoken_and_nobody_is_asked() {
        let config = Config {
            config_file: Some("/etc/cutover/git".to_owned()),
            ..Config::default()
        };

        let environment = environment(&config, Transport::Https);

        for expected in [
            ("GIT_ALLOW_PROTOCOL", "https"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_CONFIG_GLOBAL", "/etc/cutover/git"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
        ] {
            assert!(
                environment.contains(&(expected.0, expected.1.to_owned())),
                "{expected:?}"
            );
        }
    }
}
