//! `environment "local" { target "docker"; deploy … }`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    aws::{LOG_DAYS, MAX_BACKUP_DAYS, Network, vpc_range},
    code,
    context::{Context, Refers},
    diagnostic::Draft,
    model::{
        HomeserverKind, LayerCompression, Level, MAX_HEALTHY_WITHIN_SECONDS, Overrides, RegistryPlace, Rollout, Size,
        Target,
    },
    read::{name, overrides, rooms, taken},
    reader::{Arguments, Node, Shape},
    text::Place,
    words,
};

/// An environment as declared; what is `None` is inherited or built in.
#[derive(Clone, Debug)]
pub(crate) struct EnvironmentPart {
    pub place: Place,
    pub extends: Option<(String, Place)>,
    pub target: Option<(Target, Place)>,
    pub compression: LayerCompression,
    pub registry: Option<(RegistryPlace, Place)>,
    /// There is a `target` node, be it a wrong one.
    pub has_target: bool,
    pub homeserver: Option<HomeserverPart>,
    pub web: Option<WebPart>,
    pub manager: Option<ManagerPart>,
    pub deploy: Vec<Selector>,
    pub overrides: Overrides,
    pub agent_limit: Option<(u32, Place)>,
    pub rollout: Option<Rollout>,
    pub network: Option<(Network, Place)>,
    pub log_days: Option<(u32, Place)>,
    pub backup_days: Option<(u32, Place)>,
    pub agents_on_spot: Option<(bool, Place)>,
    pub agents_get_fleet_secret: Option<(bool, Place)>,
    /// Nodes that only mean something on AWS.
    pub aws_only: Vec<(String, Place)>,
}

/// `homeserver …`.
#[derive(Clone, Debug)]
pub(crate) struct HomeserverPart {
    pub place: Place,
    pub image: Option<String>,
    pub kind: Option<HomeserverKind>,
    pub port: Option<u16>,
    pub size: Option<Size>,
}

/// `web …`.
#[derive(Clone, Debug)]
pub(crate) struct WebPart {
    pub place: Place,
    pub image: String,
    pub port: Option<u16>,
    pub size: Option<Size>,
}

/// `manager …`.
#[derive(Clone, Debug)]
pub(crate) struct ManagerPart {
    pub place: Place,
    pub image: String,
    pub size: Option<Size>,
}

/// Who is deployed.
#[derive(Clone, Debug)]
pub(crate) enum Selector {
    /// `"*"`.
    Everybody(Place),
    /// One person.
    Id(String, Place),
    /// Everybody to whom all of these apply.
    Attributes { department: Option<String>, team: Option<String>, levels: BTreeSet<Level>, place: Place },
}

const ENVIRONMENT: Shape = Shape {
    arguments: Arguments::These(&["name"]),
    properties: Some(&["extends"]),
    once: &[
        "target",
        "registry",
        "homeserver",
        "web",
        "manager",
        "override",
        "limits",
        "rollout",
        "network",
        "logs",
        "backup",
        "compute",
        "credentials",
        "ingress",
    ],
    many: &["deploy", "tenant"],
};
const DOCKER: Shape =
    Shape { arguments: Arguments::These(&["target"]), properties: Some(&["compression"]), ..Shape::EMPTY };
const REGISTRY: Shape = Shape::of(Arguments::These(&["registry"]));
const AWS: Shape = Shape {
    arguments: Arguments::These(&["target"]),
    properties: Some(&["account", "region", "endpoint-url", "compression"]),
    ..Shape::EMPTY
};
const HOMESERVER: Shape =
    Shape { properties: Some(&["image", "kind", "port", "storage"]), once: &["size"], ..Shape::EMPTY };
const WEB: Shape = Shape { properties: Some(&["image", "port"]), once: &["size"], ..Shape::EMPTY };
const MANAGER: Shape = Shape { properties: Some(&["image"]), once: &["size"], ..Shape::EMPTY };
const DEPLOY: Shape =
    Shape { arguments: Arguments::Any, properties: Some(&["department", "team", "levels"]), ..Shape::EMPTY };
const LIMITS: Shape = Shape { properties: Some(&["agents", "monthly-usd"]), ..Shape::EMPTY };
const ROLLOUT: Shape = Shape { properties: Some(&["wave", "pause", "max-failures", "healthy-within"]), ..Shape::EMPTY };
const NETWORK: Shape = Shape { properties: Some(&["cidr", "azs", "nat-gateways"]), ..Shape::EMPTY };
const RETENTION: Shape = Shape { properties: Some(&["retention"]), ..Shape::EMPTY };
const COMPUTE: Shape =
    Shape { arguments: Arguments::These(&["kind"]), properties: Some(&["instance", "min", "max"]), ..Shape::EMPTY };
const CREDENTIALS: Shape = Shape::of(Arguments::These(&["kind"]));
const INGRESS: Shape =
    Shape { arguments: Arguments::These(&["kind"]), properties: Some(&["certificate"]), ..Shape::EMPTY };
const TENANT: Shape = Shape { arguments: Arguments::These(&["id"]), once: &["size", "secret"], ..Shape::EMPTY };
const SECONDS_OF_A_DAY: u32 = 86_400;
const TARGETS: [(&str, bool); 2] = [("docker", false), ("aws", true)];
const COMPRESSIONS: [(&str, LayerCompression); 2] =
    [("zstd", LayerCompression::Zstd), ("gzip", LayerCompression::Gzip)];
/// Whether agents run on spare capacity, where the kind of compute says so.
const COMPUTES: [(&str, Option<bool>); 3] =
    [("ec2-spot", None), ("fargate", Some(false)), ("fargate-spot", Some(true))];
/// Whether agents get the fleet secret.
const CREDENTIAL_KINDS: [(&str, bool); 2] = [("own-password", false), ("fleet-secret", true)];
const KINDS: [(&str, HomeserverKind); 2] = [("synapse", HomeserverKind::Synapse), ("conduit", HomeserverKind::Conduit)];

/// Adds one environment.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>, environments: &mut BTreeMap<String, EnvironmentPart>) {
    ctx.expect(node, &ENVIRONMENT);
    let mut part = EnvironmentPart {
        place: node.place(),
        extends: ctx.text(node, "extends").map(|(name, place)| (name.to_owned(), place)),
        target: None,
        compression: LayerCompression::default(),
        registry: None,
        has_target: false,
        homeserver: None,
        web: None,
        manager: None,
        deploy: Vec::new(),
        overrides: Overrides::default(),
        agent_limit: None,
        rollout: None,
        network: None,
        log_days: None,
        backup_days: None,
        agents_on_spot: None,
        agents_get_fleet_secret: None,
        aws_only: Vec::new(),
    };
    for child in node.children() {
        read_child(ctx, child, &mut part);
    }
    let Some((name, place)) = name(ctx, node) else { return };
    if let Some(first) = environments.get(name) {
        let first = first.place;
        taken(ctx, "environments", name, place, Some(first));
    } else {
        environments.insert(name.to_owned(), part);
    }
}

fn read_child(ctx: &mut Context<'_>, node: Node<'_>, part: &mut EnvironmentPart) {
    match node.word() {
        "target" => {
            part.has_target = true;
            part.target = target(ctx, node).map(|target| (target, node.place()));
            let given = ctx.text(node, "compression");
            part.compression =
                given.and_then(|given| ctx.word_of("compression of layers", given, &COMPRESSIONS)).unwrap_or_default();
        }
        "registry" => part.registry = registry(ctx, node).map(|registry| (registry, node.place())),
        "homeserver" => part.homeserver = Some(homeserver(ctx, node)),
        "web" => part.web = web(ctx, node),
        "deploy" => deploy(ctx, node, &mut part.deploy),
        "override" => {
            ctx.expect(node, &overrides::HOLDER);
            part.overrides = overrides::read(ctx, node);
        }
        "limits" => {
            ctx.expect(node, &LIMITS);
            part.agent_limit = ctx.number(node, "agents", 0..=1_000_000);
            ctx.number(node, "monthly-usd", 0..=u32::MAX);
        }
        "rollout" => part.rollout = Some(rollout(ctx, node)),
        word @ ("manager" | "network" | "logs" | "backup" | "compute" | "credentials" | "ingress" | "tenant") => {
            aws_only(ctx, node, part);
            part.aws_only.push((word.to_owned(), node.place()));
        }
        _ => {}
    }
}

fn target(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Target> {
    let given = ctx.argument(node, 0);
    let Some(given) = given else {
        ctx.expect(node, &DOCKER);
        return None;
    };
    if !ctx.word_of("target", given, &TARGETS)? {
        ctx.expect(node, &DOCKER);
        return Some(Target::Docker);
    }
    ctx.expect(node, &AWS);
    let account = ctx.needed_text(node, "account", "\"111122223333\"");
    if let Some((text, place)) =
        account.filter(|(text, _)| text.len() != 12 || !text.bytes().all(|b| b.is_ascii_digit()))
    {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` is not an AWS account", text.escape_debug()))
                .at(place, "this account")
                .help("write its 12 digits, in quotes"),
        );
    }
    let region = ctx.needed_text(node, "region", "\"us-east-1\"");
    let endpoint = endpoint(ctx, node);
    Some(Target::Aws { account: account?.0.to_owned(), region: region?.0.to_owned(), endpoint })
}

/// `endpoint-url="http://127.0.0.1:4566"`, without a path.
fn endpoint(ctx: &mut Context<'_>, node: Node<'_>) -> Option<String> {
    let (text, place) = ctx.text(node, "endpoint-url")?;
    let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    if authority.and_then(words::host_and_port).is_none() {
        // It may be an address with a password in it.
        let draft = Draft::error(code::BAD_VALUE, "this is not the address of an emulator");
        let draft = if text.contains('@') { draft.hidden_at(place) } else { draft.at(place, "this address") };
        ctx.report(draft.help("write scheme, host and port: endpoint-url=\"http://127.0.0.1:4566\""));
        return None;
    }
    Some(text.to_owned())
}

/// `host[:port][/prefix]`.
fn registry(ctx: &mut Context<'_>, node: Node<'_>) -> Option<RegistryPlace> {
    ctx.expect(node, &REGISTRY);
    let (text, place) = ctx.argument(node, 0)?;
    let (authority, prefix) = text.split_once('/').unwrap_or((text, ""));
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
    };
    let plain = !text.ends_with('/') && prefix.len() <= 128 && (prefix.is_empty() || prefix.split('/').all(part));
    let host = words::host_and_port(authority).filter(|_| plain);
    if host.is_none() {
        // It may be an address with a password in it.
        let draft = Draft::error(code::BAD_REGISTRY, "this does not name a registry");
        let draft = if text.contains('@') { draft.hidden_at(place) } else { draft.at(place, "this registry") };
        ctx.report(draft.help(
            "write host[:port][/path] in lower case, without https://, user or tag: registry \"registry.example.com/fleets\"",
        ));
    }
    let (host, port) = host?;
    Some(RegistryPlace { host: host.to_owned(), port, prefix: prefix.to_owned() })
}

fn port(ctx: &mut Context<'_>, node: Node<'_>) -> Option<u16> {
    let (port, _) = ctx.number(node, "port", 1..=65_535)?;
    u16::try_from(port).ok()
}

fn own_size(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Size> {
    let (size, _) = overrides::size(ctx, node.one("size")?)?;
    Some(size)
}

fn homeserver(ctx: &mut Context<'_>, node: Node<'_>) -> HomeserverPart {
    ctx.expect(node, &HOMESERVER);
    ctx.text(node, "storage").and_then(|given| ctx.word_of("kind of storage", given, &[("efs", ())]));
    let image = ctx.text(node, "image");
    if let Some(given) = image {
        ctx.refer(Refers::Image, given);
    }
    // One that was refused stands without a name, so that the built-in one is not reported as missing on top.
    let refused = node.property("image").is_some().then(String::new);
    HomeserverPart {
        place: node.place(),
        image: image.map(|(name, _)| name.to_owned()).or(refused),
        kind: ctx.text(node, "kind").and_then(|given| ctx.word_of("kind of homeserver", given, &KINDS)),
        port: port(ctx, node),
        size: own_size(ctx, node),
    }
}

/// The kind that an image's name tells, when it tells one.
pub(crate) fn kind_by_image(image: &str) -> HomeserverKind {
    KINDS.iter().find(|(word, _)| *word == image).map_or(HomeserverKind::Synapse, |(_, kind)| *kind)
}

fn web(ctx: &mut Context<'_>, node: Node<'_>) -> Option<WebPart> {
    ctx.expect(node, &WEB);
    let port = port(ctx, node);
    let size = own_size(ctx, node);
    let image = ctx.needed_text(node, "image", "\"element\"")?;
    ctx.refer(Refers::Image, image);
    Some(WebPart { place: node.place(), image: image.0.to_owned(), port, size })
}

fn manager(ctx: &mut Context<'_>, node: Node<'_>) -> Option<ManagerPart> {
    ctx.expect(node, &MANAGER);
    let size = own_size(ctx, node);
    let image = ctx.needed_text(node, "image", "\"manager\"")?;
    ctx.refer(Refers::Image, image);
    Some(ManagerPart { place: node.place(), image: image.0.to_owned(), size })
}

fn deploy(ctx: &mut Context<'_>, node: Node<'_>, selectors: &mut Vec<Selector>) {
    ctx.expect(node, &DEPLOY);
    for given in ctx.arguments(node) {
        if given.0 == "*" {
            selectors.push(Selector::Everybody(given.1));
        } else {
            ctx.refer(Refers::Person, given);
            selectors.push(Selector::Id(given.0.to_owned(), given.1));
        }
    }
    let department = ctx.text(node, "department");
    let team = ctx.text(node, "team");
    let levels = ctx.text(node, "levels");
    if let Some(given) = department {
        ctx.refer(Refers::Department, given);
    }
    if let Some(given) = team {
        ctx.refer(Refers::Team(department.map(|(name, _)| name.to_owned())), given);
    }
    if department.or(team).or(levels).is_some() {
        selectors.push(Selector::Attributes {
            department: department.map(|(name, _)| name.to_owned()),
            team: team.map(|(name, _)| name.to_owned()),
            levels: levels.map(|given| rooms::levels(ctx, given)).unwrap_or_default(),
            place: node.place(),
        });
    } else if node.kdl.entries().is_empty() {
        ctx.report(
            Draft::error(code::MISSING_ARGUMENT, "`deploy` names nobody")
                .at(node.place(), "who is meant is missing after this")
                .help("write deploy \"maria.silva\", deploy department=\"Legal\" levels=\"vp\", or remove it"),
        );
    }
}

fn rollout(ctx: &mut Context<'_>, node: Node<'_>) -> Rollout {
    ctx.expect(node, &ROLLOUT);
    let built_in = Rollout::default();
    Rollout {
        wave: ctx.number(node, "wave", 1..=10_000).map_or(built_in.wave, |(n, _)| n),
        pause_seconds: ctx.duration_property(node, "pause").unwrap_or(built_in.pause_seconds),
        max_failures: ctx.number(node, "max-failures", 0..=10_000).map_or(built_in.max_failures, |(n, _)| n),
        healthy_within_seconds: healthy_within(ctx, node).unwrap_or(built_in.healthy_within_seconds),
    }
}

fn healthy_within(ctx: &mut Context<'_>, node: Node<'_>) -> Option<u32> {
    let (text, place) = ctx.text(node, "healthy-within")?;
    let seconds = ctx.duration((text, place))?;
    if (1..=MAX_HEALTHY_WITHIN_SECONDS).contains(&seconds) {
        return Some(seconds);
    }
    ctx.report(
        Draft::error(code::BAD_VALUE, format!("an agent cannot have `{text}` to become healthy"))
            .at(place, "out of bounds")
            .help(format!("give it 1 s to {} m; a gateway needs about one minute", MAX_HEALTHY_WITHIN_SECONDS / 60)),
    );
    None
}

/// Nodes for AWS. `compute "ec2-spot"`, `ingress` and `tenant` are checked and not used by this version.
fn aws_only(ctx: &mut Context<'_>, node: Node<'_>, part: &mut EnvironmentPart) {
    match node.word() {
        "manager" => part.manager = manager(ctx, node),
        "network" => part.network = Some((network(ctx, node), node.place())),
        "logs" => part.log_days = days(ctx, node).and_then(|given| kept_by_logs(ctx, given)),
        "backup" => {
            part.backup_days = days(ctx, node).and_then(|(days, place)| {
                let fits = (1..=MAX_BACKUP_DAYS).contains(&days);
                if !fits {
                    bad_retention(ctx, place, &format!("AWS Backup keeps something for 1 to {MAX_BACKUP_DAYS} days"));
                }
                fits.then_some((days, place))
            });
        }
        "compute" => {
            ctx.expect(node, &COMPUTE);
            let given = ctx.argument(node, 0);
            let kind = given.and_then(|given| ctx.word_of("kind of compute", given, &COMPUTES));
            part.agents_on_spot = kind.flatten().map(|spot| (spot, node.place()));
            ctx.text(node, "instance");
            ctx.number(node, "min", 0..=1000);
            ctx.number(node, "max", 1..=1000);
        }
        "credentials" => {
            ctx.expect(node, &CREDENTIALS);
            let kind =
                ctx.argument(node, 0).and_then(|given| ctx.word_of("kind of credentials", given, &CREDENTIAL_KINDS));
            part.agents_get_fleet_secret = kind.map(|shared| (shared, node.place()));
        }
        "ingress" => {
            ctx.expect(node, &INGRESS);
            ctx.argument(node, 0).and_then(|given| ctx.word_of("kind of ingress", given, &[("alb", ())]));
            ctx.text(node, "certificate");
        }
        _ => {
            ctx.expect(node, &TENANT);
            name(ctx, node);
            own_size(ctx, node);
            if let Some(secret) = node.one("secret") {
                ctx.expect(secret, &Shape::of(Arguments::These(&["name"])));
                ctx.argument(secret, 0);
            }
        }
    }
}

fn network(ctx: &mut Context<'_>, node: Node<'_>) -> Network {
    ctx.expect(node, &NETWORK);
    let built_in = Network::default();
    let cidr = ctx.text(node, "cidr");
    if let Some((text, place)) = cidr.filter(|(text, _)| vpc_range(text).is_none()) {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` is not a range of addresses", text.escape_debug()))
                .at(place, "this range")
                .help("for instance \"10.0.0.0/16\"; a VPC takes /16 to /20, with nothing set below that"),
        );
    }
    let small = |(number, place): (u32, Place)| (u8::try_from(number).unwrap_or(u8::MAX), place);
    let azs = ctx.number(node, "azs", 1..=6).map(small);
    let nat_gateways = ctx.number(node, "nat-gateways", 0..=6).map(small);
    let zones = azs.map_or(built_in.azs, |(azs, _)| azs);
    if let Some((count, place)) = nat_gateways.filter(|(count, _)| *count > zones) {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("{count} NAT gateways are more than there are availability zones"))
                .at(place, "one per zone at most")
                .help(format!("azs is {zones}: use 1, or one per zone")),
        );
    }
    Network {
        cidr: cidr.map_or(built_in.cidr, |(text, _)| text.to_owned()),
        azs: zones,
        nat_gateways: nat_gateways.map_or(built_in.nat_gateways.min(zones), |(count, _)| count),
        origin: None,
    }
}

/// `retention="7d"`, in whole days.
fn days(ctx: &mut Context<'_>, node: Node<'_>) -> Option<(u32, Place)> {
    ctx.expect(node, &RETENTION);
    let given = ctx.needed_text(node, "retention", "\"7d\"")?;
    let seconds = ctx.duration(given)?;
    if seconds % SECONDS_OF_A_DAY != 0 || seconds == 0 {
        bad_retention(ctx, given.1, "write whole days, for instance \"7d\"");
        return None;
    }
    Some((seconds / SECONDS_OF_A_DAY, given.1))
}

/// CloudWatch Logs knows some numbers of days only.
fn kept_by_logs(ctx: &mut Context<'_>, (days, place): (u32, Place)) -> Option<(u32, Place)> {
    if LOG_DAYS.contains(&days) {
        return Some((days, place));
    }
    let next = LOG_DAYS.iter().find(|known| **known > days).or(LOG_DAYS.last()).copied().unwrap_or_default();
    bad_retention(
        ctx,
        place,
        &format!("CloudWatch Logs does not know {days} days; the next that it knows is \"{next}d\""),
    );
    None
}

fn bad_retention(ctx: &mut Context<'_>, place: Place, help: &str) {
    ctx.report(Draft::error(code::BAD_VALUE, "nothing can be kept for this long").at(place, "this time").help(help));
}
