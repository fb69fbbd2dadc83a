//! The text of an appspec.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use model::{AppSpec, FileMapping, LifecycleEvent, OnExisting};

use super::dialect::Dialect;
use super::permission::{self, PermissionAt};
use crate::fields::{Field, Fields, Shape, environment};
use crate::hooks::{self, Notation, ScriptAt, within_package};
use crate::problem::{Collector, Parsed, Position, Problems, excerpt};
use crate::yaml;

static AWS: Shape = Shape {
    name: "aws-appspec",
    keys: &[
        "version",
        "os",
        "file_exists_behavior",
        "files",
        "hooks",
        "permissions",
    ],
    aliases: &["permisssions", "env", "Resources"],
};

static JD: Shape = Shape {
    name: "jd-appspec",
    keys: &[
        "files",
        "file_exists_behavior",
        "hooks",
        "permissions",
        "env",
    ],
    aliases: &["permisssions", "repeatPolicy"],
};

static FILE: Shape = Shape {
    name: "file",
    keys: &["source", "destination"],
    aliases: &[],
};

/// The numbers of JD's deployment settings, where the policy is not a part of the file.
const REPEAT_POLICIES: [(&str, OnExisting); 3] = [
    ("1", OnExisting::Disallow),
    ("2", OnExisting::Overwrite),
    ("3", OnExisting::Retain),
];

const ON_EXISTING: [(&str, OnExisting); 3] = [
    ("DISALLOW", OnExisting::Disallow),
    ("OVERWRITE", OnExisting::Overwrite),
    ("RETAIN", OnExisting::Retain),
];

/// An appspec together with where its parts are written, so that a check of the package can point at them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub appspec: AppSpec,
    pub dialect: Dialect,
    /// Where it says what happens to files that exist. Where it does not, an operator's choice comes before
    /// [`AppSpec::on_existing`].
    pub on_existing_at: Option<Position>,
    pub(super) file: PathBuf,
    /// In the order of [`AppSpec::files`].
    pub(super) files: Vec<FileAt>,
    /// In the order of [`AppSpec::permissions`].
    pub(super) permissions: Vec<PermissionAt>,
    /// In the order of [`AppSpec::hooks`].
    pub(super) scripts: BTreeMap<LifecycleEvent, Vec<ScriptAt>>,
}

impl Located {
    /// The file, as messages name it.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Where a pair of `files` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileAt {
    pub(super) source: Position,
    pub(super) destination: Position,
}

/// Reads an appspec. The name of `file` helps to tell the dialect and is named in messages.
///
/// # Errors
/// Every problem of the text, when at least one of them is an error.
pub fn parse(text: &str, file: &Path) -> Result<Parsed<Located>, Problems> {
    let mut problems = Collector::new(file);
    let located = read(text, file, &mut problems);
    problems.finish(located)
}

/// Reads an appspec as far as it can be read. What does not fit is reported and left out.
pub(super) fn read(text: &str, file: &Path, problems: &mut Collector) -> Option<Located> {
    let root = yaml::parse(text, problems)?;
    let dialect = Dialect::of(&root, file);
    let shape = match dialect {
        Dialect::Aws => &AWS,
        Dialect::Jd => &JD,
    };
    let fields = Fields::of_shared_root(&root, shape, problems)?;
    Some(appspec(&fields, dialect, file, problems))
}

fn appspec(
    fields: &Fields<'_>,
    dialect: Dialect,
    file: &Path,
    problems: &mut Collector,
) -> Located {
    let (notation, env) = match dialect {
        Dialect::Aws => {
            check_header(fields, problems);
            if let Some(env) = fields.get("env") {
                problems.warn(
                    env.name_at,
                    "`env` is ignored: it is a key of the JD dialect",
                    "set the variables in the group's `env`, in cutover.yaml",
                );
            }
            (Notation::Aws, BTreeMap::new())
        }
        Dialect::Jd => (Notation::Jd, environment(fields.get("env"), problems)),
    };
    let policy = policy_field(fields, dialect, problems);
    let on_existing = match policy {
        Some(field) if field.name == "repeatPolicy" => field.word(&REPEAT_POLICIES, problems),
        Some(field) => field.word(&ON_EXISTING, problems),
        // The two services differ in what they do where nothing is said.
        None if dialect == Dialect::Jd => Some(OnExisting::Overwrite),
        None => Some(OnExisting::Disallow),
    };
    let files_field = match dialect {
        Dialect::Aws => fields.get("files"),
        Dialect::Jd => fields.required("files", problems),
    };
    let items = files_field
        .map(|field| field.items("files", problems))
        .unwrap_or_default();
    let (files, file_places) = items
        .into_iter()
        .filter_map(|item| file_mapping(item, problems))
        .unzip();
    let (permissions, permission_places) = permissions_field(fields, problems)
        .map(|field| field.items("permissions", problems))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|item| permission::parse(item, dialect, problems))
        .unzip();

    let mut hooks = BTreeMap::new();
    let mut scripts = BTreeMap::new();
    for (event, located) in fields
        .get("hooks")
        .map(|field| hooks::parse(field, notation, problems))
        .unwrap_or_default()
    {
        let (event_scripts, places): (Vec<_>, Vec<_>) = located.into_iter().unzip();
        hooks.insert(event, event_scripts);
        scripts.insert(event, places);
    }
    Located {
        appspec: AppSpec {
            files,
            permissions,
            hooks,
            env,
            on_existing: on_existing.unwrap_or_default(),
        },
        dialect,
        on_existing_at: policy.map(Field::at),
        file: file.to_owned(),
        files: file_places,
        permissions: permission_places,
        scripts,
    }
}

fn check_header(fields: &Fields<'_>, problems: &mut Collector) {
    if let Some(resources) = fields.get("Resources") {
        problems.error(
            resources.name_at,
            "the appspec is for AWS Lambda or ECS, and cutover installs on hosts",
        );
        return;
    }
    if let Some(field) = fields.required("version", problems)
        && field.text(problems).is_some_and(|text| !is_zero(text))
    {
        field.mismatch("`0.0`, the only version there is", problems);
    }
    if let Some(field) = fields.required("os", problems) {
        if matches!(field.scalar(), Some(("windows", _))) {
            problems.error(
                field.at(),
                "the package is for Windows, and cutover installs on Linux",
            );
        } else {
            field.word(&[("linux", ())], problems);
        }
    }
}

/// Whether a text is nought, as a number of any notation or in quotes.
fn is_zero(text: &str) -> bool {
    text.starts_with('0') && text.parse::<f64>() == Ok(0.0)
}

/// What happens to files that exist, under its name or that of JD's deployment settings.
fn policy_field<'n>(
    fields: &Fields<'n>,
    dialect: Dialect,
    problems: &mut Collector,
) -> Option<Field<'n>> {
    let field = fields.get("file_exists_behavior");
    if dialect == Dialect::Aws {
        return field;
    }
    let number = fields.get("repeatPolicy");
    if let (Some(_), Some(number)) = (field, number) {
        problems.error(
            number.name_at,
            "`file_exists_behavior` and `repeatPolicy` exclude each other",
        );
    }
    field.or(number)
}

/// The permissions under their name, or under the misspelling that was once documented.
fn permissions_field<'n>(fields: &Fields<'n>, problems: &mut Collector) -> Option<Field<'n>> {
    let field = fields.get("permissions");
    let Some(misspelt) = fields.get("permisssions") else {
        return field;
    };
    if field.is_some() {
        problems.error(
            misspelt.name_at,
            "`permissions` and `permisssions` exclude each other",
        );
    } else {
        problems.warn(
            misspelt.name_at,
            "`permisssions` is read as `permissions`",
            "write `permissions`",
        );
    }
    field.or(Some(misspelt))
}

fn file_mapping(item: Field<'_>, problems: &mut Collector) -> Option<(FileMapping, FileAt)> {
    let fields = item.shared_fields(&FILE, problems)?;
    let source_field = fields.required("source", problems);
    let destination_field = fields.required("destination", problems);
    let source = source_field.and_then(|field| source(field, problems));
    let destination = destination_field.and_then(|field| instance_path(field, problems));
    let mapping = FileMapping {
        source: source?,
        destination: destination?,
    };
    let at = FileAt {
        source: source_field?.at(),
        destination: destination_field?.at(),
    };
    Some((mapping, at))
}

fn source(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    match within_package(text) {
        Some(path) if path.is_empty() => Some("/".to_owned()),
        Some(path) => Some(path),
        None => {
            let message = format!("the source `{}` leaves the package", excerpt(text));
            problems.error_with_hint(
                field.at(),
                message,
                "give a path within the package, without `..`",
            );
            None
        }
    }
}

/// A path on the instance. A relative one is relative to the instance's `rootdir` and stays in it.
pub(super) fn instance_path(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    let parts = || Path::new(text).components();
    let message = if parts().any(|part| part == Component::ParentDir) {
        format!(
            "`{}`: the path `{}` has `..` in it",
            field.name,
            excerpt(text)
        )
    } else if parts().find(|part| *part != Component::CurDir)
        == Some(Component::Normal(OsStr::new(".cutover")))
    {
        format!(
            "`{}`: the folder `.cutover` of an instance is cutover's own",
            field.name
        )
    } else {
        return Some(text.to_owned());
    };
    problems.error_with_hint(
        field.at(),
        message,
        "give an absolute path, or one relative to the instance's rootdir",
    );
    None
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    /// The appspec in brief and its warnings, or all problems with their hints.
    fn check(file: &str, text: &str) -> String {
        let text = unindented(text);
        match parse(&text, Path::new(file)) {
            Ok(Parsed { value, warnings }) => {
                warnings
                    .iter()
                    .map(|problem| format!("{problem:#}\n"))
                    .collect::<String>()
                    + &brief(&value)
            }
            Err(problems) => problems
                .iter()
                .map(|problem| format!("{problem:#}\n"))
                .collect(),
        }
    }

    /// The text without the indentation of its first line.
    fn unindented(text: &str) -> String {
        let text = text.trim_start_matches('\n');
        let margin = text.len() - text.trim_start_matches(' ').len();
        text.split_terminator('\n')
            .map(|line| format!("{}\n", line.get(margin..).unwrap_or_default()))
            .collect()
    }

    fn brief(
        Located {
            appspec, dialect, ..
        }: &Located,
    ) -> String {
        let mut lines = vec![format!("{dialect:?} {:?}", appspec.on_existing)];
        lines.extend(
            appspec
                .files
                .iter()
                .map(|file| format!("{} -> {}", file.source, file.destination)),
        );
        lines.extend(
            appspec
                .permissions
                .iter()
                .map(|permission| format!("{permission:?}")),
        );
        for (event, scripts) in &appspec.hooks {
            lines.extend(scripts.iter().map(|script| format!("{event} {script:?}")));
        }
        lines.extend(
            appspec
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        lines.join("\n")
    }

    const AWS_TEXT: &str = r#"
        version: 0.0
        os: linux
        file_exists_behavior: RETAIN
        files:
          - source: /
            destination: /srv/shop
          - {source: ./conf/, destination: etc}
        permissions:
          - object: /srv/shop
            pattern: "*.sh"
            except: [a.sh]
            owner: root
            group: shop
            mode: 0755
            type: [file]
          - {object: etc, mode: "4750"}
          - object: /srv/shop
            type: [directory]
            acls: ["user:shop:xr", "d:g:ops:7", "d:m:rx"]
            context: {user: system_u, type: httpd_sys_content_t, range: "s0-s0:c1,c3,c2"}
          - {object: /srv/other, context: {name: staff_u, type: user_home_t}}
        hooks:
          ApplicationStop:
            - location: scripts/stop.sh
              timeout: 30
              runas: shop
          ApplicationStart:
            - location: /scripts/start.sh
            - {location: ./scripts/warm.sh, timeout: "2m", sudo: true}
          AfterInstall:
          BeforeInstall: []
    "#;

    const JD_TEXT: &str = r#"
        files:
          - source: ./app
            destination: /home/app
        hooks:
          ApplicationStop:
            - command: bin/stop.sh --now
              timeout: 60
              runas: root
          ApplicationStart:
            - location: /opt/start.sh
        permisssions:
          - object: /home/app
            pattern: "**"
            except: [sbin/start]
            mode: 777
            type: [directory]
        env:
          PORT: 8080
          NAME: shop
    "#;

    #[test]
    fn reads_both_dialects() {
        assert_snapshot!(check("appspec.yml", AWS_TEXT), @r#"
        Aws Retain
        / -> /srv/shop
        conf -> etc
        Permission { object: "/srv/shop", pattern: "*.sh", except: ["a.sh"], kinds: Files, owner: Some("root"), group: Some("shop"), mode: Some(493), acls: [], context: None }
        Permission { object: "etc", pattern: "**", except: [], kinds: Both, owner: None, group: None, mode: Some(2536), acls: [], context: None }
        Permission { object: "/srv/shop", pattern: "**", except: [], kinds: Directories, owner: None, group: None, mode: None, acls: ["u:shop:r-x", "d:g:ops:rwx", "d:m::r-x"], context: Some(Context { user: Some("system_u"), kind: "httpd_sys_content_t", range: Some("s0:c1.c3") }) }
        Permission { object: "/srv/other", pattern: "**", except: [], kinds: Both, owner: None, group: None, mode: None, acls: [], context: Some(Context { user: Some("staff_u"), kind: "user_home_t", range: None }) }
        ApplicationStop Script { run: Location("scripts/stop.sh"), timeout: 30s, runas: Some("shop") }
        ApplicationStart Script { run: Location("scripts/start.sh"), timeout: 3600s, runas: None }
        ApplicationStart Script { run: Location("scripts/warm.sh"), timeout: 120s, runas: Some("root") }
        "#);
        assert_snapshot!(check("jdcloud-codedeploy.yml", JD_TEXT), @r#"
        jdcloud-codedeploy.yml:11:1: warning: `permisssions` is read as `permissions`
          hint: write `permissions`
        Jd Overwrite
        app -> /home/app
        Permission { object: "/home/app", pattern: "**", except: ["sbin/start"], kinds: Directories, owner: None, group: None, mode: Some(511), acls: [], context: None }
        ApplicationStop Script { run: Command("bin/stop.sh --now"), timeout: 60s, runas: Some("root") }
        ApplicationStart Script { run: Command("/opt/start.sh"), timeout: 10s, runas: None }
        NAME=shop
        PORT=8080
        "#);
    }

    #[test]
    fn tells_the_dialect_by_name_and_content() {
        let cases = [
            ("appspec.yml", "version: 0.0\nos: linux", Ok(Dialect::Aws)),
            ("appSpec.yml", "version: 0.0\nos: linux", Ok(Dialect::Aws)),
            ("appSpec.yml", "files: []", Ok(Dialect::Jd)),
            ("jdcloud-codedeploy.yml", "files: []", Ok(Dialect::Jd)),
            (
                "appspec.yml",
                "{\"version\": \"0.0\", \"os\": \"linux\"}",
                Ok(Dialect::Aws),
            ),
            ("appspec.yaml", "files: []", Err(())),
        ];

        for (file, text, dialect) in cases {
            let answer = parse(text, Path::new(file))
                .map(|parsed| parsed.value.dialect)
                .map_err(|_| ());
            assert_eq!(answer, dialect, "{file}: {text}");
        }
    }

    #[test]
    fn checks_the_header() {
        assert_snapshot!(check("appspec.yml", "
            version: 0.1
            os: windows
            file_exists_behavior: overwrite"), @"
        appspec.yml:1:10: `version`: expected `0.0`, the only version there is, found number `0.1`
        appspec.yml:2:5: the package is for Windows, and cutover installs on Linux
        appspec.yml:3:23: `file_exists_behavior`: expected one of `DISALLOW`, `OVERWRITE`, `RETAIN`, found text `overwrite`
          hint: did you mean `OVERWRITE`?
        ");
        assert_snapshot!(check("appspec.yml", "
            version: 0.0
            Resources: [{shop: {Type: AWS::Lambda::Function}}]"), @"appspec.yml:2:1: the appspec is for AWS Lambda or ECS, and cutover installs on hosts");
        assert_snapshot!(check("appspec.yml", "files: []"), @"
        appspec.yml:1:1: missing key `version`
        appspec.yml:1:1: missing key `os`
        ");
    }

    #[test]
    fn reports_unknown_keys_and_events() {
        assert_snapshot!(check("appspec.yml", "
            version: 0.0
            os: linux
            permisions: []
            file:
              - source: x
            hooks:
              applicationStop:
                - location: a
              Install:
                - location: a
              ValidateService:
                - {locaton: a, timeot: 3}"), @"
        appspec.yml:3:1: warning: the unknown key `permisions` is ignored
          hint: did you mean `permissions`?
        appspec.yml:4:1: warning: the unknown key `file` is ignored
          hint: did you mean `files`?
        appspec.yml:7:3: unknown lifecycle event `applicationStop`; expected one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
          hint: did you mean `ApplicationStop`?
        appspec.yml:9:3: `Install` takes no scripts: cutover does that step itself
          hint: use one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
        appspec.yml:12:7: missing key `location`
        appspec.yml:12:8: warning: the unknown key `locaton` is ignored
          hint: did you mean `location`?
        appspec.yml:12:20: warning: the unknown key `timeot` is ignored
          hint: did you mean `timeout`?
        ");
    }

    #[test]
    fn checks_paths() {
        assert_snapshot!(check("appspec.yml", "
            version: 0.0
            os: linux
            files:
              - {source: ../x, destination: ../y}
              - {source: a}
              - {destination: /b}
              - a
            hooks:
              ApplicationStop:
                - location: ../stop.sh
                - location: /
                - command: echo"), @"
        appspec.yml:4:14: the source `../x` leaves the package
          hint: give a path within the package, without `..`
        appspec.yml:4:33: `destination`: the path `../y` has `..` in it
          hint: give an absolute path, or one relative to the instance's rootdir
        appspec.yml:5:5: missing key `destination`
        appspec.yml:6:5: missing key `source`
        appspec.yml:7:5: `files`: expected a mapping with the keys `source`, `destination`, found text `a`
        appspec.yml:10:17: the location `../stop.sh` leaves the package
          hint: give a path within the package, without `..`
        appspec.yml:11:17: the location `/` is not a script
        appspec.yml:12:7: warning: the unknown key `command` is ignored
          hint: the keys here are `location`, `timeout`, `runas`, `sudo`
        appspec.yml:12:7: missing key `location`
        ");
    }

    #[test]
    fn checks_scripts_of_the_jd_dialect() {
        assert_snapshot!(check("appSpec.yaml", "
            hooks:
              ApplicationStop:
                - location: bin/stop.sh
                - {location: /a, command: b}
                - {timeout: 0}
                - {command: x, timeout: 5abc}
                - {command: x, timeout: 99999999}
              ApplicationStart: bin/start.sh"), @"
        appSpec.yaml:1:1: missing key `files`
        appSpec.yaml:3:17: the location `bin/stop.sh` is not an absolute path on the instance
          hint: use `command: bin/stop.sh` for a script of the package
        appSpec.yaml:4:8: `command` and `location` exclude each other
        appSpec.yaml:5:7: missing key `command`
        appSpec.yaml:5:17: `timeout` must be longer than nothing
        appSpec.yaml:6:29: `timeout`: expected a number of seconds or a duration such as `30s` or `5m`, found text `5abc`
        appSpec.yaml:7:29: `timeout` is longer than 366 days
        appSpec.yaml:8:21: `ApplicationStart`: expected a list of scripts, found text `bin/start.sh`
          hint: begin each item with `- `, or write `[…]`
        ");
    }

    #[test]
    fn checks_permissions() {
        assert_snapshot!(check("appspec.yml", r#"
            version: 0.0
            os: linux
            permissions:
              - {owner: x}
              - {object: /a, mode: 0888}
              - {object: /a, mode: 123456}
              - {object: /a, mode: u+x, type: [file, link], pattern: "a/[b]"}
              - {object: /a, type: file, except: a.sh, acls: ["u:x:rw"], context: {user: x, type: y}}
              - {object: ../a, mode: 644}
              - {object: /a}"#), @"
        appspec.yml:4:5: missing key `object`
        appspec.yml:5:24: `mode`: expected permission bits as at most four octal digits such as `0644`, found number `0888`
        appspec.yml:6:24: `mode`: expected permission bits as at most four octal digits such as `0644`, found number `123456`
        appspec.yml:7:24: `mode`: expected permission bits as at most four octal digits such as `0644`, found text `u+x`
        appspec.yml:7:42: `type`: expected one of `file`, `directory`, found text `link`
        appspec.yml:7:58: `pattern`: the pattern `a/[b]` is not a name with `*` in it
          hint: name the folder as `object`, and what is directly in it as pattern; `**` is everything below
        appspec.yml:8:24: `type`: expected a list of `file` and `directory`, found text `file`
          hint: begin each item with `- `, or write `[…]`
        appspec.yml:8:38: `except`: expected a list of names, found text `a.sh`
          hint: begin each item with `- `, or write `[…]`
        appspec.yml:9:14: `object`: the path `../a` has `..` in it
          hint: give an absolute path, or one relative to the instance's rootdir
        appspec.yml:10:5: warning: the permission changes nothing
          hint: add `owner`, `group`, `mode`, `acls` or `context`
        ");
        assert_snapshot!(check("jdcloud-codedeploy.yml", "
            files: []
            permissions: []
            permisssions: [{object: a, mode: 644}]"), @"jdcloud-codedeploy.yml:3:1: `permissions` and `permisssions` exclude each other");
    }

    #[test]
    fn checks_acls_and_contexts() {
        assert_snapshot!(check("appspec.yml", r#"
            version: 0.0
            os: linux
            permissions:
              - {object: /a, acls: ["u::rwx", "user:shop:rwx", "u:shop:r", "d:u:shop:r", "q"]}
              - {object: /a, acls: "u:shop:rwx"}
              - {object: /a, acls: [u:shop:r, m: 7]}
              - {object: /a, type: [file], acls: ["d:u:shop:r"]}
              - {object: /a, context: {user: x}}
              - {object: /a, context: {user: x, name: y, type: z, role: r}}
              - {object: /a, context: {type: "a b", range: s0-}}
              - {object: /a, context: httpd_sys_content_t}"#), @"
        appspec.yml:4:25: `acls`: `u::rwx` is what the mode of a file is for
          hint: use `mode` for the owner, the owning group and everyone else
        appspec.yml:4:52: `acls`: `u:shop:r` is about the same account as the entry on line 4
        appspec.yml:4:78: `acls`: `q` is not an entry of an access control list
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        appspec.yml:5:24: `acls`: expected a list of entries such as `u:shop:rwx`, found text `u:shop:rwx`
          hint: begin each item with `- `, or write `[…]`
        appspec.yml:6:35: `acls`: expected text, found a mapping
        appspec.yml:7:38: `acls`: `d:u:shop:r--` is a default entry, which files do not have
          hint: add `directory` to `type`, or give files an entry of their own
        appspec.yml:8:27: missing key `type`
        appspec.yml:9:37: `user` and `name` exclude each other
        appspec.yml:9:55: warning: the unknown key `role` is ignored
          hint: the keys here are `type`, `user`, `range`
        appspec.yml:10:34: `type`: expected an SELinux name such as `httpd_sys_content_t`, found text `a b`
        appspec.yml:10:48: `range`: `s0-` is not a range
          hint: write `sN[-sM][:cA[.cB],…]`, for example `s0-s2:c0,c256.c512`
        appspec.yml:11:27: `context`: expected a mapping with the keys `type`, `user`, `range`, found text `httpd_sys_content_t`
        ");
    }

    #[test]
    fn checks_names_of_accounts() {
        assert_snapshot!(check("appspec.yml", r#"
            version: 0.0
            os: linux
            permissions:
              - {object: /a, owner: 1000, group: "a:b"}
            hooks:
              ApplicationStop:
                - {location: a, runas: "web user", timeout: 0}"#), @"
        appspec.yml:4:25: warning: `owner`: `1000` is taken for a name, not for an id
          hint: write the name of the account
        appspec.yml:4:38: `group`: `a:b` cannot be the name of an account: it contains white space, `:`, `,` or `/`
        appspec.yml:7:28: `runas`: `web user` cannot be the name of an account: it contains white space, `:`, `,` or `/`
        appspec.yml:7:49: `timeout` must be longer than nothing
        ");
    }

    #[test]
    fn reads_scalars_as_a_person_means_them() {
        assert_snapshot!(check("appspec.yml", r#"
            version: "0.0"
            os: "linux"
            x-common: &stop {location: " ./a b.sh ", timeout: "30"}
            hooks:
              ApplicationStop:
                - *stop
                - {<<: *stop, timeout: 1.9}
                - {location: a, timeout: 0300}
                - {location: a, timeout: 1_000, sudo: yes}
                - {location: a, timeout: 90s, sudo: "off"}
                - {location: a, runas: " shop ", sudo: on}
              Nothing: []
              Install: ~"#), @r#"
        appspec.yml:12:3: warning: unknown lifecycle event `Nothing`
          hint: the events are `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
        Aws Disallow
        ApplicationStop Script { run: Location("a b.sh"), timeout: 30s, runas: None }
        ApplicationStop Script { run: Location("a b.sh"), timeout: 1.9s, runas: None }
        ApplicationStop Script { run: Location("a"), timeout: 300s, runas: None }
        ApplicationStop Script { run: Location("a"), timeout: 1000s, runas: Some("root") }
        ApplicationStop Script { run: Location("a"), timeout: 90s, runas: None }
        ApplicationStop Script { run: Location("a"), timeout: 3600s, runas: Some("shop") }
        "#);
        assert_snapshot!(check("appspec.yml", "
            version: 0
            os: linux
            env: {A: b}
            repeatPolicy: 2
            hooks:
              ApplicationStop:
                - {location: a, timeout: 1:30, sudo: maybe}
                - {location: a, timeout: -1}
                - {location: a, timeout: [30]}"), @"
        appspec.yml:3:1: warning: `env` is ignored: it is a key of the JD dialect
          hint: set the variables in the group's `env`, in cutover.yaml
        appspec.yml:4:1: warning: the unknown key `repeatPolicy` is ignored
          hint: the keys here are `version`, `os`, `file_exists_behavior`, `files`, `hooks`, `permissions`
        appspec.yml:7:30: `timeout`: expected a number of seconds or a duration such as `30s` or `5m`, found text `1:30`
        appspec.yml:7:42: `sudo`: expected `true` or `false`, found text `maybe`
        appspec.yml:8:30: `timeout`: expected a number of seconds or a duration such as `30s` or `5m`, found number `-1`
        appspec.yml:9:30: `timeout`: expected a number of seconds or a duration such as `30s` or `5m`, found a list
        ");
        assert_snapshot!(check("appSpec.yml", "
            files: []
            repeatPolicy: 3
            env: {ON: yes, MODE: 0644, RATE: 1.10, EMPTY: , WORDS: 'a b'}"), @"
        Jd Retain
        EMPTY=
        MODE=0644
        ON=yes
        RATE=1.10
        WORDS=a b
        ");
        assert_snapshot!(check("appSpec.yml", "
            files: []
            repeatPolicy: 4
            file_exists_behavior: RETAIN"), @"appSpec.yml:2:1: `file_exists_behavior` and `repeatPolicy` exclude each other");
    }

    #[test]
    fn reads_json_and_carriage_returns() {
        assert_snapshot!(check("appspec.yml", r#"{"version": 0.0, "os": "linux", "files": [{"source": "/", "destination": "/srv"}], "hooks": {"ApplicationStop": [{"location": "a", "timeout": 5}]}}"#), @r#"
        Aws Disallow
        / -> /srv
        ApplicationStop Script { run: Location("a"), timeout: 5s, runas: None }
        "#);
        assert_snapshot!(check("appspec.yml", "version: 0.0\r\nos: linux\r\nhooks:\r\n  ApplicationStop:\r\n    - location: a.sh\r\n      runas: shop\r\n"), @r#"
        Aws Disallow
        ApplicationStop Script { run: Location("a.sh"), timeout: 3600s, runas: Some("shop") }
        "#);
    }

    #[test]
    fn refuses_texts_that_are_no_appspec() {
        let texts = [
            "",
            "# nothing\n",
            "---\n",
            "hello",
            "- a",
            "version: 0.0\n---\nversion: 0.0\n",
            "version: 0.0\nos: linux\nos: linux\n",
            "version: 0.0\nhooks:\n  ApplicationStop:\n    - location: a\n    timeout: 3\n",
            "hooks:\n  ApplicationStop:\n    - command: a\n      runas:root\n",
        ];

        let all: String = texts
            .into_iter()
            .map(|text| check("appspec.yml", text))
            .collect();

        assert_snapshot!(all, @"
        appspec.yml:1:1: the file is empty
        appspec.yml:1:1: the file is empty
        appspec.yml:1:1: the file is empty
        appspec.yml:1:1: expected a mapping with the keys `version`, `os`, `file_exists_behavior`, `files`, `hooks`, `permissions`, found text `hello`
        appspec.yml:1:1: expected a mapping with the keys `version`, `os`, `file_exists_behavior`, `files`, `hooks`, `permissions`, found a list
        appspec.yml:2:1: the file holds more than one document, expected one
        appspec.yml:3:1: the key `os` is given twice, first on line 2
        appspec.yml:5:5: not valid YAML: while parsing a block collection, did not find expected '-' indicator
        appspec.yml:4:17: not valid YAML: simple key expect ':'
          hint: put a space after the `:` of a key
        ");
    }

    #[test]
    fn reads_modes_as_octal_digits() {
        let cases = [
            ("0644", 0o644),
            ("644", 0o644),
            ("\"4750\"", 0o4750),
            ("0755", 0o755),
            ("0o600", 0o600),
            ("7", 7),
        ];

        for (text, mode) in cases {
            let text = format!("files: []\npermissions: [{{object: /a, mode: {text}}}]");
            let parsed = parse(&text, Path::new("appSpec.yml")).unwrap();
            assert_eq!(
                parsed.value.appspec.permissions[0].mode,
                Some(mode),
                "{text}"
            );
        }
    }

    /// Values that a key may be given, fit or not.
    fn value() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            "[ -~é]{0,12}",
            "[urdgmo:x0-9 a-]{0,14}",
            "-?[0-9_.]{1,20}",
            prop::sample::select(vec![
                "~",
                "",
                "yes",
                "0644",
                "linux",
                "0.0",
                "s0-s1:c1.c9",
                "/a/../b",
                "RETAIN"
            ])
            .prop_map(str::to_owned),
        ]
        .prop_map(|text| format!("'{}'", text.replace('\'', "''")));
        let key = prop::sample::select(
            [
                AWS.keys,
                JD.keys,
                JD.aliases,
                &[
                    "object",
                    "type",
                    "mode",
                    "acls",
                    "context",
                    "range",
                    "except",
                    "location",
                    "source",
                    "destination",
                    "command",
                    "timeout",
                    "runas",
                    "sudo",
                    "ApplicationStop",
                    "Install",
                    "x",
                    "<<",
                ],
            ]
            .concat(),
        );
        scalar.prop_recursive(4, 40, 5, move |inner| {
            let pair =
                (key.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}: {value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                prop::collection::vec(pair, 0..5)
                    .prop_map(|pairs| format!("{{{}}}", pairs.join(", "))),
            ]
        })
    }

    proptest! {
        #[test]
        fn never_panics_whatever_stands_at_a_key(
            values in (value(), value(), value(), value(), value()),
            file in prop::sample::select(vec!["appspec.yml", "appSpec.yml"]),
        ) {
            let (files, permissions, hooks, env, version) = values;
            let text = format!("files: {files}\npermissions: {permissions}\nhooks: {hooks}\nenv: {env}\nversion: {version}\n");

            let _ = parse(&text, Path::new(file));
            let _ = parse(&text[..text.rfind("version").unwrap_or(0)], Path::new(file));
        }

        #[test]
        fn never_panics_and_points_into_the_file(
            sample in prop::sample::select(&[AWS_TEXT, JD_TEXT][..]),
            cut in 0..JD_TEXT.len(),
            length in 0..40usize,
            junk in "(?s).{0,20}",
        ) {
            let end = (cut + length).min(JD_TEXT.len());
            let text = format!("{}{junk}{}", &sample[..cut], &sample[end..]);

            if let Err(problems) = parse(&text, Path::new("appspec.yml")) {
                prop_assert!(problems.has_errors());
                for problem in problems {
                    prop_assert!((1..=text.split(['\n', '\r']).count()).contains(&problem.line), "{}", problem);
                }
            }
        }
    }
}
