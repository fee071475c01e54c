//! The command line as types. What each command does is in `commands/`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fleet_oci::Platform;

use crate::{commands::build::Sink, tunnels::By};

/// Seconds that `say` may wait for an answer: a day.
const LONGEST_WAIT: u64 = 24 * 60 * 60;

/// Builds, reviews and rolls out organisations of AI agents from one fleet.kdl.
#[derive(Debug, Parser)]
#[command(name = "fleetctl", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Global options.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Folder of fleet.kdl; otherwise it is looked for here and in the folders above
    #[arg(short = 'C', long, global = true, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// Output on stdout
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Colour and progress bars
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Write every event as a line of JSON to FILE, or to stdout with `-`; stderr then gets what stdout would
    #[arg(long, global = true, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Reread every file, whatever its times say
    #[arg(long, global = true)]
    pub no_stat_cache: bool,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs, of commands that print data; the shape carries a schema number.
    Json,
    /// Graphviz; only for `graph`.
    Dot,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which environment.
#[derive(Clone, Debug, Args)]
pub struct Environment {
    /// The environment
    #[arg(short, long, default_value = "local", value_name = "NAME")]
    pub environment: String,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set up this machine and run environment `local`, step by step
    Quickstart {
        /// Install and start a container engine if there is none
        #[arg(long)]
        yes: bool,
    },
    /// Write a small fleet.kdl into this folder
    Init {
        /// Name of the fleet: lower case, digits, dashes
        #[arg(long, default_value = "my-fleet")]
        name: String,
        /// Matrix server name
        #[arg(long, default_value = "fleet.example")]
        domain: String,
    },
    /// Find every mistake in fleet.kdl, templates and the lock file
    Check,
    /// Put fleet.kdl and its includes into the standard layout
    Fmt {
        /// Change nothing; exit 1 when something would change
        #[arg(long)]
        check: bool,
    },
    /// Show what an environment is made of: agents, accounts, rooms, stacks
    Show {
        /// Only this, in full: stack/NAME
        #[arg(value_name = "ADDRESS")]
        address: Option<String>,
        /// Which environment
        #[command(flatten)]
        environment: Environment,
        /// The repository whose workflows stack/bootstrap trusts
        #[arg(long, value_name = "OWNER/NAME")]
        repository: Option<String>,
    },
    /// Pin what images are made of in fleet.lock; the only command that updates pins
    Lock {
        /// Only this image: image/NAME; may be given several times
        #[arg(long, value_name = "ADDRESS")]
        only: Vec<String>,
        /// Change nothing; exit 1 when fleet.lock does not fit fleet.kdl
        #[arg(long)]
        check: bool,
    },
    /// Write names for counts: which people an organisation chart would deploy
    Org {
        /// What to do.
        #[command(subcommand)]
        command: OrgCommand,
    },
    /// Show the derivations of an environment
    Graph(Environment),
    /// Make accounts and rooms from inside the network; what the manager's container runs
    #[command(hide = true)]
    Manager {
        /// Say whether the manager of this container is at work; exit 0 when it is
        #[arg(long)]
        health: bool,
    },
    /// Build the images of an environment without deploying anything
    Build(BuildArgs),
    /// Show what would change and why; writes nothing
    Plan(PlanArgs),
    /// Show the full contents of what would change
    Diff(PlanArgs),
    /// Make it so
    Apply {
        /// A saved plan: exactly that is done, object by object
        #[arg(value_name = "PLAN")]
        plan: Option<PathBuf>,
        /// Which environment
        #[command(flatten)]
        environment: Environment,
        /// Do not ask
        #[arg(long)]
        auto_approve: bool,
        /// On aws: a resource that holds data and may be replaced or removed, stack/NAME/RESOURCE; may be given several times
        #[arg(long, value_name = "ADDRESS")]
        allow_destroy: Vec<String>,
    },
    /// Prepare an AWS account, once, as its administrator: state bucket, roles of workflows, the bound of all roles
    Bootstrap {
        /// An environment in that account
        #[arg(short, long, default_value = "dev", value_name = "NAME")]
        environment: String,
        /// The repository whose workflows may plan and apply
        #[arg(long, value_name = "OWNER/NAME")]
        repository: Option<String>,
        /// Do not ask
        #[arg(long)]
        auto_approve: bool,
    },
    /// Apply an environment on aws to an emulated account on this machine, which ends afterwards
    Rehearse {
        /// Which environment: one whose target has an endpoint-url on 127.0.0.1
        #[arg(short, long, default_value = "rehearsal", value_name = "NAME")]
        environment: String,
        /// Leave the account running
        #[arg(long)]
        keep: bool,
    },
    /// Ask whether an apply would work: credentials, quotas, models, secrets, platforms; changes nothing
    Verify(Environment),
    /// Say why an object last changed, or would change
    Why {
        /// kind/name, for instance agent/aaron.phillips
        address: String,
        /// Which environment
        #[command(flatten)]
        environment: Environment,
        /// The change made by this generation instead of the last one that touched it
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Show what runs
    Status(Environment),
    /// List what was applied and when
    History(Environment),
    /// Show what a container printed
    Logs {
        /// agent/NAME or service/NAME
        address: String,
        /// Which environment
        #[command(flatten)]
        environment: Environment,
        /// Go on as it prints more
        #[arg(short, long)]
        follow: bool,
        /// How many lines to begin with
        #[arg(long, default_value_t = 100)]
        tail: u32,
    },
    /// Hold tunnels to the homeserver and the web client of an environment on aws open, until Ctrl-C
    Connect {
        /// Which environment
        #[command(flatten)]
        environment: Environment,
        /// Show the web client in a browser
        #[arg(long)]
        open: bool,
        /// Port on 127.0.0.1 for the homeserver, in place of the declared one; 0: any that is free
        #[arg(long, value_name = "PORT")]
        homeserver_port: Option<u16>,
        /// Port on 127.0.0.1 for the web client, in place of the declared one; 0: any that is free
        #[arg(long, value_name = "PORT")]
        web_port: Option<u16>,
        /// Who speaks Session Manager's protocol
        #[arg(long, value_enum, default_value_t = By::Own)]
        tunnel: By,
    },
    /// Say something in a room and show the answers
    Say {
        /// Alias of a room, for instance all-employees
        room: String,
        /// What to say; @name mentions somebody
        text: String,
        /// Which environment
        #[command(flatten)]
        environment: Environment,
        /// Who says it; otherwise the highest-ranking human
        #[arg(long = "as", value_name = "PERSON")]
        speaker: Option<String>,
        /// Seconds to wait for an answer, at most a day; 0: do not wait
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=LONGEST_WAIT))]
        wait: u64,
        /// On aws: who speaks Session Manager's protocol
        #[arg(long, value_enum, default_value_t = By::Own)]
        tunnel: By,
    },
    /// Print a person's Matrix password, for logging in with a Matrix client
    Password {
        /// Person id
        person: String,
        /// Which environment
        #[command(flatten)]
        environment: Environment,
    },
    /// Remove an environment; memory and history stay until --purge
    Destroy {
        /// Which environment
        #[command(flatten)]
        environment: Environment,
        /// Also remove what it remembers: agents' memory, all rooms, all accounts; on aws backups and unused images, too
        #[arg(long)]
        purge: bool,
        /// Do not ask
        #[arg(long)]
        auto_approve: bool,
    },
    /// Remove from .fleet/, and from an account on AWS, what no generation needs
    Gc {
        /// Generations of each environment that stay
        #[arg(long, default_value_t = 10)]
        keep: usize,
        /// An environment on AWS: from its account, too
        #[arg(short, long, value_name = "NAME")]
        environment: Option<String>,
        /// Do not ask before anything is removed from an account
        #[arg(long, requires = "environment")]
        auto_approve: bool,
    },
    /// Explain a diagnostic code; without one, list them
    Explain {
        /// The code
        code: Option<String>,
    },
    /// Print the manual page, of the whole program or of one command
    Man {
        /// The command
        command: Option<String>,
    },
    /// Print a completion script
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Options of `build`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Which environment's images
    #[command(flatten)]
    pub environment: Environment,
    /// Where they go: engine, registry, registry:HOST/PREFIX, oci:DIR or docker-archive:FILE; may be given several times
    #[arg(long, value_name = "PLACE", conflicts_with = "check")]
    pub to: Vec<Sink>,
    /// Make them for this platform and not for this machine's; several make one image for all of them
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub platform: Vec<Platform>,
    /// Build everything twice, in different places, and compare
    #[arg(long)]
    pub check: bool,
    /// Say nothing about them: neither provenance nor the bill of packages is put beside them
    #[arg(long, conflicts_with = "check")]
    pub no_statements: bool,
    /// Only these images
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Options of `plan` and `diff`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Which environment
    #[command(flatten)]
    pub environment: Environment,
    /// Write the plan to FILE, for `apply FILE`
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Exit 2 when there are changes
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Compare with what was last applied instead of what runs; needs no engine and no secret
    #[arg(long)]
    pub offline: bool,
}

/// Commands of `org`.
#[derive(Debug, Subcommand)]
pub enum OrgCommand {
    /// Write the names that counts would pick, for a `deploy` node
    Pick {
        /// Department
        #[arg(long)]
        department: String,
        /// How many VPs
        #[arg(long, default_value_t = 1)]
        vp: usize,
        /// How many directors
        #[arg(long, default_value_t = 0)]
        directors: usize,
        /// How many managers
        #[arg(long, default_value_t = 0)]
        managers: usize,
        /// How many individual contributors
        #[arg(long, default_value_t = 0)]
        ics: usize,
    },
}
