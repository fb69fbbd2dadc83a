//! The text of an appspec.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{AppSpec, FileMapping, LifecycleEvent, OnExisting};

use super::dialect::Dialect;
use super::permission;
use crate::fields::{Field, Fields, Shape, environment};
use crate::hooks::{self, Notation, within_package};
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
    aliases: &["permisssions"],
    unsupported: &[],
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
    aliases: &["permisssions"],
    unsupported: &[],
};

static FILE: Shape = Shape {
    name: "file",
    keys: &["source", "destination"],
    aliases: &[],
    unsupported: &[],
};

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
    pub(super) file: PathBuf,
    /// In the order of [`AppSpec::files`].
    pub(super) files: Vec<Position>,
    /// In the order of [`AppSpec::hooks`].
    pub(super) scripts: BTreeMap<LifecycleEvent, Vec<Position>>,
}

/// Reads an appspec. The name of `file` helps to tell the dialect and is named in messages.
///
/// # Errors
/// Every problem of the text, when at least one of them is an error.
pub fn parse(text: &str, file: &Path) -> Result<Parsed<Located>, Problems> {
    let mut problems = Collector::new(file);
    let located = yaml::parse(text, &mut problems).and_then(|root| {
        let dialect = Dialect::of(&root, file);
        let shape = match dialect {
            Dialect::Aws => &AWS,
            Dialect::Jd => &JD,
        };
        let fields = Fields::of_root(&root, shape, &mut problems)?;
        Some(appspec(&fields, dialect, file, &mut problems))
    });
    problems.finish(located)
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
            (Notation::Aws, BTreeMap::new())
        }
        Dialect::Jd => (Notation::Jd, environment(fields.get("env"), problems)),
    };
    let on_existing = match fields.get("file_exists_behavior") {
        Some(field) => field.word(&ON_EXISTING, problems).unwrap_or_default(),
        // The two services differ in what they do where nothing is said.
        None if dialect == Dialect::Jd => OnExisting::Overwrite,
        None => OnExisting::Disallow,
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
    let permissions = permissions_field(fields, problems)
        .map(|field| field.items("permissions", problems))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|item| permission::parse(item, dialect, problems))
        .collect();

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
            on_existing,
        },
        dialect,
        file: file.to_owned(),
        files: file_places,
        scripts,
    }
}

fn check_header(fields: &Fields<'_>, problems: &mut Collector) {
    if let Some(field) = fields.required("version", problems)
        && field
            .text(problems)
            .is_some_and(|text| !matches!(text, "0.0" | "0"))
    {
        field.mismatch("`0.0`", problems);
    }
    if let Some(field) = fields.required("os", problems) {
        field.word(&[("linux", ())], problems);
    }
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

fn file_mapping(item: Field<'_>, problems: &mut Collector) -> Option<(FileMapping, Position)> {
    let fields = item.fields(&FILE, problems)?;
    let source_field = fields.required("source", problems);
    let source = source_field.and_then(|field| source(field, problems));
    let destination = fields
        .required("destination", problems)
        .and_then(|field| instance_path(field, problems));
    Some((
        FileMapping {
            source: source?,
            destination: destination?,
        },
        source_field?.at(),
    ))
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
    if !text.starts_with('/') && within_package(text).is_none() {
        let message = format!(
            "`{}`: the path `{}` leaves the instance's rootdir",
            field.name,
            excerpt(text)
        );
        problems.error_with_hint(
            field.at(),
            message,
            "give an absolute path, or one without `..`",
        );
        return None;
    }
    Some(text.to_owned())
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
        text.lines()
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
        appspec.yml:1:10: `version`: expected `0.0`, found number `0.1`
        appspec.yml:2:5: `os`: expected `linux`, found text `windows`
        appspec.yml:3:23: `file_exists_behavior`: expected one of `DISALLOW`, `OVERWRITE`, `RETAIN`, found text `overwrite`
          hint: did you mean `OVERWRITE`?
        ");
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
        appspec.yml:3:1: unknown key `permisions`; expected one of `version`, `os`, `file_exists_behavior`, `files`, `hooks`, `permissions`
          hint: did you mean `permissions`?
        appspec.yml:4:1: unknown key `file`; expected one of `version`, `os`, `file_exists_behavior`, `files`, `hooks`, `permissions`
          hint: did you mean `files`?
        appspec.yml:7:3: unknown lifecycle event `applicationStop`; expected one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
          hint: did you mean `ApplicationStop`?
        appspec.yml:9:3: `Install` takes no scripts: cutover does that step itself
          hint: use one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
        appspec.yml:12:8: unknown key `locaton`; expected one of `location`, `timeout`, `runas`, `sudo`
          hint: did you mean `location`?
        appspec.yml:12:20: unknown key `timeot`; expected one of `location`, `timeout`, `runas`, `sudo`
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
        appspec.yml:4:33: `destination`: the path `../y` leaves the instance's rootdir
          hint: give an absolute path, or one without `..`
        appspec.yml:5:5: missing key `destination`
        appspec.yml:6:5: missing key `source`
        appspec.yml:7:5: `files`: expected a mapping with the keys `source`, `destination`, found text `a`
        appspec.yml:10:17: the location `../stop.sh` leaves the package
          hint: give a path within the package, without `..`
        appspec.yml:11:17: the location `/` is not a script
        appspec.yml:12:7: unknown key `command`; expected one of `location`, `timeout`, `runas`, `sudo`
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
        appspec.yml:5:24: `mode`: expected permission bits as octal digits such as `0644`, found number `0888`
        appspec.yml:6:24: `mode`: expected permission bits as octal digits such as `0644`, found number `123456`
        appspec.yml:7:24: `mode`: expected permission bits as octal digits such as `0644`, found text `u+x`
        appspec.yml:7:42: `type`: expected one of `file`, `directory`, found text `link`
        appspec.yml:7:58: `pattern`: the pattern `a/[b]` is not a name with `*` in it
        appspec.yml:8:24: `type`: expected a list of `file` and `directory`, found text `file`
          hint: begin each item with `- `, or write `[…]`
        appspec.yml:8:38: `except`: expected a list of names, found text `a.sh`
          hint: begin each item with `- `, or write `[…]`
        appspec.yml:8:44: `acls` is not supported by this version of cutover
        appspec.yml:8:62: `context` is not supported by this version of cutover
        appspec.yml:9:14: `object`: the path `../a` leaves the instance's rootdir
          hint: give an absolute path, or one without `..`
        appspec.yml:10:5: warning: the permission changes nothing
          hint: add `owner`, `group` or `mode`
        ");
        assert_snapshot!(check("jdcloud-codedeploy.yml", "
            files: []
            permissions: []
            permisssions: [{object: a, mode: 644}]"), @"jdcloud-codedeploy.yml:3:1: `permissions` and `permisssions` exclude each other");
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

    proptest! {
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
