//! Kinds of deployment that migrate something beside a package, well and badly, as their items say.

use std::time::Duration;

use cutover_plugin_sdk::{
    Action, Attribute, DeploymentKind, Event, ExecOptions, Failure, ItemRelease, KindDescription,
    Level, OpContext, Outcome, Pending, Plugin, Recipe, Step, Target, export, log,
};
use serde::Deserialize;

struct Migrating;

impl Plugin for Migrating {
    type Config = serde_json::Value;
}

const MIGRATE_SCHEMA: &str = r#"{
    "type": "object",
    "required": ["package", "schema"],
    "properties": {
        "package": {"type": "string", "minLength": 1},
        "schema": {"type": "integer", "minimum": 1},
        "how": {"enum": ["well", "late", "pending", "stubborn", "traps", "hangs", "badly", "ungranted", "outside", "beside"]},
        "timeoutMs": {"type": "integer"}
    },
    "additionalProperties": false
}"#;

const DISORDERLY_SCHEMA: &str = r#"{
    "type": "object",
    "required": ["how"],
    "properties": {"how": {"enum": ["swapped", "installs", "early", "endless"]}},
    "additionalProperties": false
}"#;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    package: Option<String>,
    schema: Option<u32>,
    how: Option<String>,
    timeout_ms: Option<u64>,
}

impl Item {
    fn parse(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text)
            .map_err(|error| Failure::invalid("migrating.item", error.to_string()))
    }

    fn how(&self) -> &str {
        self.how.as_deref().unwrap_or("well")
    }
}

fn call(event: Event, timeout_ms: Option<u64>) -> Step {
    Step {
        action: Action::Call,
        timeout_ms,
        ..Step::usual(event)
    }
}

impl DeploymentKind for Migrating {
    fn kinds() -> Vec<KindDescription> {
        let kind = |name: &str, summary: &str, schema: &str| KindDescription {
            name: name.to_owned(),
            summary: summary.to_owned(),
            item_schema: schema.to_owned(),
        };
        vec![
            kind("MIGRATE", "deploys and migrates", MIGRATE_SCHEMA),
            kind("BACKUP", "saves what is there", "{}"),
            kind("DISORDERLY", "cannot be carried out", DISORDERLY_SCHEMA),
        ]
    }

    fn plan(kind: &str, text: &str) -> Result<Recipe, Failure> {
        let item = Item::parse(text)?;
        let usual = |event| match event {
            Event::AfterInstall => call(event, item.timeout_ms),
            event => Step::usual(event),
        };
        let (reference, steps) = match (kind, item.how()) {
            ("MIGRATE", _) => {
                let steps = Event::ALL.into_iter().map(usual).collect();
                (item.package, steps)
            }
            ("BACKUP", _) => (None, vec![call(Event::ValidateService, None)]),
            (_, "swapped") => {
                let events = [Event::ApplicationStart, Event::ApplicationStop];
                (None, events.map(Step::usual).to_vec())
            }
            (_, "installs") => (
                Some("file:///nowhere".to_owned()),
                vec![call(Event::Install, None)],
            ),
            (_, "early") => (None, vec![call(Event::BeforeInstall, None)]),
            _ => (None, vec![call(Event::ApplicationStart, Some(u64::MAX))]),
        };
        Ok(Recipe { reference, steps })
    }

    fn run(
        ctx: &OpContext,
        on: &Target,
        release: &ItemRelease,
        event: Event,
    ) -> Result<Outcome, Failure> {
        let item = Item::parse(&release.item)?;
        if event == Event::ValidateService {
            return back_up(on);
        }
        // One line a call, so that tests see who called how often under which key.
        note(ctx, on)?;
        match item.how() {
            "traps" => panic!("the kind's bug"),
            "hangs" => hang(),
            "badly" => {
                let options = ExecOptions::new().timeout(Duration::from_secs(20));
                on.exec(&words(["bin/migrate.sh", "backwards"]), &options)?
                    .must_succeed("migrating.failed")?;
            }
            "ungranted" => {
                on.exec(&words(["rm", "-rf"]), &ExecOptions::new())?;
            }
            "outside" => on.write("/etc/migrated", b"x", 0o644)?,
            "beside" => on.write("data/../stolen", b"x", 0o644)?,
            "stubborn" if calls(on)? < 3 => {
                return Err(Failure::transient("migrating.busy", "the table is locked"));
            }
            "pending" => {
                let wait = Duration::from_millis(20);
                let token = item.schema.unwrap_or_default().to_string();
                return Ok(Outcome::Pending(Pending::new(
                    token,
                    wait,
                    "rows are copied",
                )));
            }
            _ => {}
        }
        migrate(on, &item.schema.unwrap_or_default().to_string())
    }

    fn poll(ctx: &OpContext, on: &Target, token: &str) -> Result<Outcome, Failure> {
        note(ctx, on)?;
        if calls(on)? < 3 {
            let wait = Duration::from_millis(20);
            return Ok(Outcome::Pending(Pending::new(
                token,
                wait,
                "rows are copied",
            )));
        }
        migrate(on, token)
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn hang() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn note(ctx: &OpContext, on: &Target) -> Result<(), Failure> {
    let mut text = match on.stat("data/calls")? {
        Some(_) => on.read("data/calls", 10_000)?,
        None => Vec::new(),
    };
    text.extend(format!("{} {}\n", ctx.attempt, ctx.idempotency_key).bytes());
    on.write("data/calls", &text, 0o600)
}

fn calls(on: &Target) -> Result<usize, Failure> {
    let text = on.read("data/calls", 10_000)?;
    Ok(text.iter().filter(|byte| **byte == b'\n').count())
}

fn migrate(on: &Target, wanted: &str) -> Result<Outcome, Failure> {
    if on.stat("data/schema")?.is_some() && on.read("data/schema", 100)? == wanted.as_bytes() {
        return Ok(Outcome::Unchanged);
    }
    log(
        Level::Info,
        &format!("migrates {} to {wanted}", on.id()),
        &[],
    );
    let options = ExecOptions::new()
        .variable("SCHEMA", wanted)
        .input("from the plugin");
    on.exec(&words(["bin/migrate.sh", wanted]), &options)?
        .must_succeed("migrating.failed")?;
    on.place("migrations", &format!("data/migrations/{wanted}"))?;
    on.swap_link("data/current", &format!("data/migrations/{wanted}"))?;
    on.write("data/schema", wanted.as_bytes(), 0o644)?;
    on.remove("data/lock")?;
    Ok(Outcome::Changed(vec![Attribute {
        key: "schema".to_owned(),
        value: wanted.to_owned(),
    }]))
}

fn back_up(on: &Target) -> Result<Outcome, Failure> {
    let schema = on.exec(
        &words(["cat", "schema"]),
        &ExecOptions::new().folder("data"),
    )?;
    let schema = schema.must_succeed("migrating.backup")?;
    on.write("data/backup", &schema.stdout, 0o600)?;
    Ok(Outcome::changed())
}

export!(Migrating: DeploymentKind);
