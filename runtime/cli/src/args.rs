//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use conductor::{Choices, StrategyKind};
use model::{
    ApplicationName, DeploymentId, Digest, GroupName, GroupRef, InstanceId, LifecycleEvent,
    OnExisting, SideName, StopFailures, Version,
};

const EXIT_STATUSES: &str = "\
Exit status:
    0  Done
    1  A bug of cutover
    2  Wrong usage, or not confirmed
    3  Invalid configuration or input; nothing has changed on any instance
    4  The release failed
    5  The release failed and needs a person
    6  Busy: another release holds the group, or another conductor drives the release
    7  Paused or stopped before the end
  130  Interrupted";

/// Release packages to fleets of hosts
///
/// cutover brings a package to a group of instances in batches, in and out of their load balancer, and keeps a journal,
/// so that a release that was killed can be resumed. Answers go to stdout; progress, warnings and hints to stderr.
#[derive(Debug, Parser)]
#[command(
    name = "cutover",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_long_help = EXIT_STATUSES
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Workspace file; found upwards from the working directory when left out
    #[arg(long, global = true, value_name = "FILE", env = "CUTOVER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Form of the answer on stdout
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Print no progress, warnings or advice; errors are printed
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Print what hooks print, and what is skipped
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented cutover.yaml and a sample package
    Init(Init),
    /// Check the workspace, its plugins, release plans, or packages
    Check(Check),
    /// Print the JSON Schema of cutover.yaml or of release plans
    Schema(Schema),
    /// Deploy a package to a group
    #[command(disable_version_flag = true)]
    Deploy(Deploy),
    /// Carry out a release plan: many services, in the order of their priorities
    ///
    /// Everything is fetched, built and checked before anything changes on any instance. A higher priority goes first, equal
    /// ones go together, and the first service that fails ends the release once those that have begun are done.
    Run(Run),
    /// Try a package on this machine, without a workspace
    ///
    /// Takes one instance through the workflow that a profile names, with everything that it keeps below --rootdir: the
    /// instance itself, its package cache, and the journal, so that the version it leaves and the way back are known.
    Local(Local),
    /// Take the latest deployment of a group back, or return to a version
    ///
    /// Shows what goes back where first, and asks when it runs on a terminal.
    Rollback(Rollback),
    /// Deploy what an old deployment brought once more, as another version
    ///
    /// The package comes from the store or from the recorded source, with the recorded digest. A deployment that was
    /// rolled back is refused.
    #[command(disable_version_flag = true)]
    Redeploy(Redeploy),
    /// Deploy a release's version to the instances that did not get it
    ///
    /// Makes a release of its own with the same version. Instances that have it already are left alone.
    Retry(Retry),
    /// End a canary's wait: the remaining batches go, and the version gets all traffic
    ///
    /// Goes to whoever drives the release. Where nobody does, this command drives it on.
    Promote(Id),
    /// Change the share of traffic of a canary that waits for its promotion
    ///
    /// Goes to whoever drives the release. Where nobody does, this command drives it on.
    Weight(Weight),
    /// Pass a gate that waits for a person
    ///
    /// Goes to whoever drives the release. Where nobody does, this command drives it on.
    Approve(Approve),
    /// Fail a gate that waits for a person
    ///
    /// Goes to whoever drives the release. Where nobody does, this command drives it on.
    Reject(Reject),
    /// Leave instances out that a release has not begun with
    Skip(Skip),
    /// Let a release finish what is in flight and start nothing more until it is resumed
    ///
    /// Goes to whoever drives the release, and waits until it has paused.
    Pause(Pause),
    /// Go on with a release that is paused, interrupted, or whose conductor died
    ///
    /// Asks its instances first whether they are as the journal says. Where one has been changed since, by hand or by
    /// another release, it says so and asks.
    Resume(Resume),
    /// End a release once what is in flight has finished
    Stop(Stop),
    /// Delete a release that has ended, is paused or interrupted
    ///
    /// Its records and what its hooks printed go; who deleted what and when is kept. A release that brought what an
    /// instance runs stays.
    Delete(Delete),
    /// List releases, newest first
    Ls(Ls),
    /// Show where a release stands
    Show(Id),
    /// Print the full report of a release
    ///
    /// With every service and every step. As a page it has a timeline of them besides, and can be sent to somebody: it
    /// needs no other file and no network.
    Report(Report),
    /// Print what the hooks of a release printed
    Logs(Logs),
    /// Follow a release until it ends
    ///
    /// Shows what has happened so far and what happens from here on, and ends as the release does: with the exit status
    /// that the command which drives it ends with.
    Watch(Id),
    /// List the deployments of a group, newest first
    History(History),
    /// Show which release holds a group, what it does, and who waits for it
    Lock(Lock),
    /// Look at plugins
    #[command(subcommand)]
    Plugin(Plugin),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
    /// Serve as the agent of an instance
    #[command(subcommand, hide = true)]
    Agent(Agent),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Folder to write into
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Workspace files, release plans, and packages as folders, appspecs or archives; the workspace with its plugins
    /// when left out
    pub(crate) files: Vec<PathBuf>,
    /// Take the files for release plans, whatever they look like
    #[arg(long, requires = "files")]
    pub(crate) plan: bool,
    /// Appspec within the packages, where it is not one of the usual names
    #[arg(long, value_name = "NAME")]
    pub(crate) appspec_filename: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Which files it describes
    #[arg(value_enum, default_value_t)]
    pub(crate) file: SchemaOf,
}

/// The files that editors have a schema for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// cutover.yaml
    #[default]
    Workspace,
    /// Release plans
    Plan,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// Group to deploy to, APPLICATION/GROUP
    #[arg(value_parser = parse_group)]
    pub(crate) group: GroupRef,
    /// Package: a folder, an archive, or a URL that a package source serves
    #[arg(long, value_name = "URI")]
    pub(crate) package: String,
    /// Version to give it, A.B.C or A.B.C.D; generated from the time when left out
    #[arg(id = "package_version", long = "version", value_name = "VERSION", value_parser = parse_version)]
    pub(crate) version: Option<Version>,
    /// Digest that the package must have, sha256:…
    #[arg(long, value_parser = parse_digest)]
    pub(crate) digest: Option<Digest>,
    #[command(flatten)]
    pub(crate) choices: ChoiceArguments,
    #[command(flatten)]
    pub(crate) wait: WaitArgument,
    #[command(flatten)]
    pub(crate) stop_failures: IgnoreStopFailures,
    /// Why, for the history
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) comment: String,
    /// Print what would happen, and change nothing on any instance
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Release plan, a YAML file
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    #[command(flatten)]
    pub(crate) wait: WaitArgument,
    /// Why, for the history [default: the plan's comment]
    #[arg(long)]
    pub(crate) comment: Option<String>,
    /// Print what would happen, and change nothing on any instance
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What may differ from the file for one deployment.
#[derive(Debug, Args)]
pub(crate) struct ChoiceArguments {
    /// Strategy [default: what the file says]
    #[arg(long, value_enum)]
    strategy: Option<Strategy>,
    /// Instance to leave out; may be given several times
    #[arg(long, value_name = "INSTANCE")]
    exclude: Vec<InstanceId>,
    /// Side that is live, where the router and the journal disagree
    #[arg(long, value_name = "SIDE")]
    live: Option<SideName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    Rolling,
    BlueGreen,
    Canary,
}

impl From<ChoiceArguments> for Choices {
    fn from(arguments: ChoiceArguments) -> Self {
        let kind = |strategy| match strategy {
            Strategy::Rolling => StrategyKind::Rolling,
            Strategy::BlueGreen => StrategyKind::BlueGreen,
            Strategy::Canary => StrategyKind::Canary,
        };
        Self {
            strategy: arguments.strategy.map(kind),
            exclude: arguments.exclude,
            live: arguments.live,
        }
    }
}

/// Whether to wait for a group that another release holds.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgument {
    /// Wait in line until no release holds the group, at most so long where a duration is given
    #[arg(
        long = "wait",
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "forever",
        hide_default_value = true,
        value_parser = parse_patience,
        conflicts_with = "dry_run"
    )]
    pub(crate) patience: Option<Patience>,
}

/// How long a command waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Forever,
    AtMost(Duration),
}

/// A choice that the history records.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct IgnoreStopFailures {
    /// Go on when a script of the version being left fails, and record the choice
    #[arg(long)]
    ignore_stop_failures: bool,
}

impl From<IgnoreStopFailures> for StopFailures {
    fn from(choice: IgnoreStopFailures) -> Self {
        if choice.ignore_stop_failures {
            Self::Ignore
        } else {
            Self::Fail
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Local {
    /// Package: a folder or an archive
    #[arg(long, value_name = "PATH", required_unless_present = "rollback")]
    pub(crate) bundle: Option<PathBuf>,
    /// What the package is; an archive is known by its content, whatever it is called here
    #[arg(long, value_name = "TYPE", value_enum)]
    pub(crate) r#type: Option<BundleType>,
    /// Folder of the instance, and of everything that is kept about it
    #[arg(long, value_name = "FOLDER", default_value = "/opt/cutover")]
    pub(crate) rootdir: PathBuf,
    /// Group that the instance belongs to; what one group has installed another one does not know
    #[arg(long, default_value = "local")]
    pub(crate) group: GroupName,
    /// Application that the group belongs to
    #[arg(long, default_value = "local")]
    pub(crate) application: ApplicationName,
    /// Lifecycle to go through [default: rolling, or rolling-lb with --balancer-command]
    #[arg(long, value_enum)]
    pub(crate) profile: Option<Profile>,
    /// Only these lifecycle events, besides DownloadBundle and Install, which always take place; in the canonical order
    #[arg(long, value_name = "EVENT,…", value_delimiter = ',', value_parser = parse_event)]
    pub(crate) events: Option<Vec<LifecycleEvent>>,
    /// Appspec in the package, where it has an unusual name
    #[arg(long, value_name = "NAME")]
    pub(crate) appspec_filename: Option<String>,
    /// What happens to files that are there already, where the appspec does not say it
    #[arg(long, value_enum, ignore_case = true, value_name = "BEHAVIOR")]
    pub(crate) file_exists_behavior: Option<FileExistsBehavior>,
    #[command(flatten)]
    pub(crate) stop_failures: IgnoreStopFailures,
    /// Id of the deployment; generated when left out
    #[arg(long, value_name = "ID")]
    pub(crate) deployment_id: Option<DeploymentId>,
    /// Environment of every hook, KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Command that stands in for a balancer: run with the word deregister, register or switch
    #[arg(long, value_name = "COMMAND")]
    pub(crate) balancer_command: Option<String>,
    /// Go back from the latest deployment to the version before it
    #[arg(long)]
    pub(crate) rollback: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BundleType {
    Directory,
    Tar,
    Tgz,
    Zip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Rolling,
    RollingLb,
    BlueGreen,
}

impl From<Profile> for conductor::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Rolling => Self::Rolling,
            Profile::RollingLb => Self::RollingBalanced,
            Profile::BlueGreen => Self::BlueGreen,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum FileExistsBehavior {
    /// Refuse before anything changes
    Disallow,
    /// Replace them, and bring them back when a later version leaves them out
    Overwrite,
    /// Leave them, and the package's own out
    Retain,
}

impl From<FileExistsBehavior> for OnExisting {
    fn from(behavior: FileExistsBehavior) -> Self {
        match behavior {
            FileExistsBehavior::Disallow => Self::Disallow,
            FileExistsBehavior::Overwrite => Self::Overwrite,
            FileExistsBehavior::Retain => Self::Retain,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Group to take back, APPLICATION/GROUP, or a release, or the beginning of its id
    #[arg(value_name = "GROUP|RELEASE", value_parser = parse_taken_back)]
    pub(crate) of: TakenBack,
    /// Version to return to [default: what each instance had before the latest deployment]
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub(crate) to: Option<Version>,
    #[command(flatten)]
    pub(crate) wait: WaitArgument,
    #[command(flatten)]
    pub(crate) stop_failures: IgnoreStopFailures,
    /// Why, for the history
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) comment: String,
    /// Print what would happen, and change nothing on any instance
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// What a rollback is of.
#[derive(Debug, Clone)]
pub(crate) enum TakenBack {
    Group(GroupRef),
    /// The beginning of its id.
    Release(String),
}

fn parse_taken_back(text: &str) -> Result<TakenBack, String> {
    if text.contains('/') {
        parse_group(text).map(TakenBack::Group)
    } else {
        Ok(TakenBack::Release(text.to_owned()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Redeploy {
    /// Deployment to go by, or the beginning of its id; a release that has one deployment stands for it
    pub(crate) id: String,
    /// Version to give it, A.B.C or A.B.C.D; generated from the time when left out
    #[arg(id = "package_version", long = "version", value_name = "VERSION", value_parser = parse_version)]
    pub(crate) version: Option<Version>,
    #[command(flatten)]
    pub(crate) choices: ChoiceArguments,
    #[command(flatten)]
    pub(crate) wait: WaitArgument,
    #[command(flatten)]
    pub(crate) stop_failures: IgnoreStopFailures,
    /// Why, for the history [default: which deployment it goes by]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) comment: String,
    /// Print what would happen, and change nothing on any instance
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// Release or deployment, or the beginning of its id
    pub(crate) id: String,
    /// The instances that failed, were unreachable or skipped, or never started
    #[arg(long, required = true)]
    pub(crate) failed: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgument,
    #[command(flatten)]
    pub(crate) stop_failures: IgnoreStopFailures,
    /// Why, for the history [default: which deployment is retried]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) comment: String,
    /// Print what would happen, and change nothing on any instance
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Release, or the beginning of its id
    pub(crate) id: String,
    /// Go on although instances are not as the journal says
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Release, or the beginning of its id
    pub(crate) id: String,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// What finishes first; of a plan the services, else the instances in flight
    #[arg(long, value_name = "BOUNDARY")]
    pub(crate) at: Option<At>,
    /// Do not wait until it has ended, where another process drives it
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Weight {
    /// Release, or the beginning of its id
    pub(crate) id: String,
    /// Share of the side that gets the version, for example 40%
    #[arg(value_name = "PERCENT", value_parser = parse_percent)]
    pub(crate) percent: u8,
    /// Give a side more than its healthy instances carry by their number
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// Release, or the beginning of its id
    pub(crate) id: String,
    /// Gate, by its name in the workspace file; the one that waits when left out
    #[arg(long, value_name = "NAME")]
    pub(crate) gate: Option<String>,
    /// Why, for the report
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Reject {
    /// Release, or the beginning of its id
    pub(crate) id: String,
    /// Gate, by its name in the workspace file; the one that waits when left out
    #[arg(long, value_name = "NAME")]
    pub(crate) gate: Option<String>,
    /// Why, for the report; asked for when left out
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Skip {
    /// Release, or the beginning of its id
    pub(crate) id: String,
    /// Instances to leave out
    #[arg(value_name = "INSTANCE", required = true)]
    pub(crate) instances: Vec<InstanceId>,
}

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Release, or the beginning of its id
    pub(crate) id: String,
    /// What finishes first; of a plan the services, else the instances in flight
    #[arg(long, value_name = "BOUNDARY")]
    pub(crate) at: Option<At>,
    /// Do not wait until it has paused
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// How far what goes on is carried before a pause or a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum At {
    /// The services that have begun finish
    Service,
    /// The instances in flight finish
    Batch,
}

impl From<At> for model::Boundary {
    fn from(at: At) -> Self {
        match at {
            At::Service => model::Boundary::Service,
            At::Batch => model::Boundary::Batch,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Release, or the beginning of its id
    pub(crate) id: String,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// Group, APPLICATION/GROUP
    #[arg(value_parser = parse_group)]
    pub(crate) group: GroupRef,
    /// End the release that holds the group, once its conductor is known to be dead or has let its lease run out
    #[arg(long = "break")]
    pub(crate) is_to_break: bool,
    /// Do not ask
    #[arg(long, short, requires = "is_to_break")]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// How many to list
    #[arg(long, default_value = "20")]
    pub(crate) limit: NonZeroUsize,
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// Release or deployment, or the beginning of its id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Release or deployment, or the beginning of its id
    pub(crate) id: String,
    /// Write it as an HTML page instead, - for stdout; replaces an older report, and no other file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Release or deployment, or the beginning of its id
    pub(crate) id: String,
    /// Only this instance
    #[arg(long)]
    pub(crate) instance: Option<InstanceId>,
    /// Only this lifecycle event, for example ApplicationStart
    #[arg(long, value_parser = parse_event)]
    pub(crate) event: Option<LifecycleEvent>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Group, APPLICATION/GROUP
    #[arg(value_parser = parse_group)]
    pub(crate) group: GroupRef,
    /// How many to list
    #[arg(long, default_value = "20")]
    pub(crate) limit: NonZeroUsize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// List the plugins of the workspace with their digests and grants
    Ls,
    /// Tell what a component is, implements and asks for
    Inspect {
        /// Component file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell to complete for
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Folder to write into
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// Answer the conductor on stdin and stdout
    Run,
    /// Run commands whose writes stay in one folder, for the conductor that builds a package
    #[command(hide = true)]
    Confine,
}

fn parse_group(text: &str) -> Result<GroupRef, String> {
    if !text.contains('/') {
        return Err("write APPLICATION/GROUP, for example shop/web".to_owned());
    }
    text.parse()
        .map_err(|error: model::InvalidId| error.to_string())
}

fn parse_patience(text: &str) -> Result<Patience, String> {
    match text {
        "forever" => Ok(Patience::Forever),
        text => match spec::duration::parse(text) {
            Ok(duration) => Ok(Patience::AtMost(duration)),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    number
        .parse()
        .ok()
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| "write a whole number of percent up to 100, for example 40%".to_owned())
}

fn parse_version(text: &str) -> Result<Version, String> {
    Version::parse(text).map_err(|error| error.to_string())
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    Digest::parse(text).map_err(|error| error.to_string())
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE, for example PORT=8080".to_owned()),
    }
}

fn parse_event(text: &str) -> Result<LifecycleEvent, String> {
    LifecycleEvent::from_name(text).ok_or_else(|| {
        let names: Vec<_> = LifecycleEvent::ALL
            .iter()
            .map(|event| event.name())
            .collect();
        format!("expected one of {}", names.join(", "))
    })
}
