//! Environments: `extends` applied, selectors resolved, limits and ports checked.

use std::collections::BTreeMap;

use crate::{
    aws::{DEFAULT_LOG_DAYS, Network},
    check::images,
    code,
    context::Context,
    diagnostic::Draft,
    model::{BaseRef, Environment, Homeserver, Image, Manager, Model, Person, PersonId, Recipe, Size, Target, Web},
    origin::{Declared, Origin},
    read::environment::{EnvironmentPart, HomeserverPart, ManagerPart, Selector, WebPart, kind_by_image},
    resolve::Layers,
    text::Place,
    words::did_you_mean_or_known,
};

const HOMESERVER_IMAGE: &str = "homeserver";
const HOMESERVER_PORT: u16 = 6167;
const HOMESERVER_SIZE: Size = Size { cpu: 1024, memory_mib: 2048 };
const WEB_PORT: u16 = 8080;
const WEB_SIZE: Size = Size { cpu: 256, memory_mib: 512 };
const MANAGER_SIZE: Size = Size { cpu: 256, memory_mib: 512 };

/// Every environment with what it inherits.
pub(crate) fn finish(
    ctx: &mut Context<'_>,
    model: &Model,
    parts: BTreeMap<String, EnvironmentPart>,
) -> BTreeMap<String, Environment> {
    let mut all = BTreeMap::new();
    for (name, part) in &parts {
        no_effect(ctx, part);
        let Some(part) = inherited(ctx, name, part, &parts) else { continue };
        if let Some(environment) = environment(ctx, model, name, part) {
            all.insert(name.clone(), environment);
        }
    }
    all
}

/// A part with everything that it does not say itself taken from what it extends.
fn inherited(
    ctx: &mut Context<'_>,
    name: &str,
    part: &EnvironmentPart,
    parts: &BTreeMap<String, EnvironmentPart>,
) -> Option<EnvironmentPart> {
    let mut chain = vec![name];
    let mut merged = part.clone();
    let mut at = part;
    while let Some((base, place)) = &at.extends {
        if let Some(from) = chain.iter().position(|seen| seen == base) {
            // Everybody in the circle meets it; the first by name reports it.
            if chain[from..].iter().min() == Some(&name) {
                let circle: Vec<&str> = chain[from..].iter().copied().chain([base.as_str()]).collect();
                ctx.report(
                    Draft::error(
                        code::EXTENDS_CYCLE,
                        format!("environments extend each other: {}", circle.join(" → ")),
                    )
                    .at(*place, "this closes the circle")
                    .help("one of them must extend nothing"),
                );
            }
            return None;
        }
        let Some(next) = parts.get(base) else {
            if at.place == part.place && !ctx.gaps.named("environment", base) {
                ctx.report(
                    Draft::error(
                        code::UNKNOWN_ENVIRONMENT,
                        format!("there is no environment `{}`", base.escape_debug()),
                    )
                    .at(*place, "not declared")
                    .help(did_you_mean_or_known(
                        base,
                        parts.keys().map(String::as_str),
                        "declare it",
                    )),
                );
            }
            return None;
        };
        merged = over(merged, next);
        chain.push(base);
        at = next;
    }
    Some(merged)
}

/// Node by node the nearer one wins; `override` merges field by field.
fn over(nearer: EnvironmentPart, base: &EnvironmentPart) -> EnvironmentPart {
    EnvironmentPart {
        place: nearer.place,
        extends: None,
        compression: if nearer.target.is_some() { nearer.compression } else { base.compression },
        target: nearer.target.or_else(|| base.target.clone()),
        registry: nearer.registry.or_else(|| base.registry.clone()),
        has_target: nearer.has_target || base.has_target,
        homeserver: nearer.homeserver.or_else(|| base.homeserver.clone()),
        web: nearer.web.or_else(|| base.web.clone()),
        manager: nearer.manager.or_else(|| base.manager.clone()),
        deploy: if nearer.deploy.is_empty() { base.deploy.clone() } else { nearer.deploy },
        overrides: base.overrides.clone().under(nearer.overrides),
        agent_limit: nearer.agent_limit.or(base.agent_limit),
        rollout: nearer.rollout.or(base.rollout),
        network: nearer.network.or_else(|| base.network.clone()),
        log_days: nearer.log_days.or(base.log_days),
        backup_days: nearer.backup_days.or(base.backup_days),
        agents_on_spot: nearer.agents_on_spot.or(base.agents_on_spot),
        agents_get_fleet_secret: nearer.agents_get_fleet_secret.or(base.agents_get_fleet_secret),
        aws_only: nearer.aws_only,
    }
}

/// Nodes for AWS in an environment that says itself that it is not on AWS.
fn no_effect(ctx: &mut Context<'_>, part: &EnvironmentPart) {
    if !matches!(part.target, Some((Target::Docker, _))) {
        return;
    }
    for (word, place) in &part.aws_only {
        ctx.report(
            Draft::warning(code::NO_EFFECT, format!("`{word}` does nothing on the docker target"))
                .at(*place, "only used with target \"aws\"")
                .help("remove it, or move it to an environment on AWS"),
        );
    }
}

/// What it means that every agent of an environment on AWS has the fleet secret.
fn shared_secret(ctx: &mut Context<'_>, part: &EnvironmentPart) {
    let (Some((true, place)), Some((Target::Aws { .. }, _))) = (part.agents_get_fleet_secret, &part.target) else {
        return;
    };
    ctx.report(
        Draft::warning(
            code::SHARED_SECRET,
            "every agent gets the fleet secret, and can derive every account's password",
        )
        .at(place, "so says this")
        .help("remove it: each agent then gets its own password only; or keep it, if every agent may act as everybody"),
    );
}

fn environment(ctx: &mut Context<'_>, model: &Model, name: &str, part: EnvironmentPart) -> Option<Environment> {
    shared_secret(ctx, &part);
    let origin = ctx.origin(part.place);
    let deploy = deploy(ctx, model, &part.deploy);
    if let Some((limit, place)) = part.agent_limit
        && deploy.len() > limit as usize
    {
        ctx.report(
            Draft::error(code::OVER_LIMIT, format!("{name} deploys {} agents, and its limit is {limit}", deploy.len()))
                .at(place, "the limit")
                .help("deploy fewer, or raise the limit if the cost is meant"),
        );
    }
    if !part.has_target && !ctx.gaps.text {
        ctx.report(
            Draft::error(code::MISSING_NODE, format!("the environment `{name}` has no target"))
                .at(part.place, "no target here, and none inherited")
                .help("add target \"docker\", or target \"aws\" account=\"…\" region=\"…\""),
        );
    }
    let environment = Environment {
        name: name.to_owned(),
        target: part.target?.0,
        compression: part.compression,
        registry: part.registry.map(|(registry, place)| ctx.declared(registry, place)),
        homeserver: homeserver(ctx, model, part.homeserver, part.place),
        web: part.web.map(|web| self::web(ctx, web)),
        manager: part.manager.map(|manager| self::manager(ctx, model, manager)),
        deploy,
        overrides: part.overrides,
        agent_limit: part.agent_limit.map(|(limit, place)| ctx.declared(limit, place)),
        network: part
            .network
            .map(|(network, place)| Network { origin: Some(ctx.origin(place)), ..network })
            .unwrap_or_default(),
        log_days: part.log_days.map_or(Declared::built_in(DEFAULT_LOG_DAYS), |(days, place)| ctx.declared(days, place)),
        backup_days: part.backup_days.map(|(days, place)| ctx.declared(days, place)),
        agents_on_spot: part.agents_on_spot.map(|(spot, place)| ctx.declared(spot, place)),
        agents_get_fleet_secret: part.agents_get_fleet_secret.map(|(shared, place)| ctx.declared(shared, place)),
        rollout: part.rollout.unwrap_or_default(),
        origin,
    };
    ports(ctx, &environment);
    agent_images(ctx, model, &environment);
    managers(ctx, model, &environment);
    Some(environment)
}

fn homeserver(ctx: &mut Context<'_>, model: &Model, part: Option<HomeserverPart>, place: Place) -> Homeserver {
    let declared = part.as_ref().map(|part| ctx.origin(part.place));
    let image = part.as_ref().and_then(|part| part.image.clone());
    if image.is_none() && !model.images.contains_key(HOMESERVER_IMAGE) && !ctx.gaps.named("image", HOMESERVER_IMAGE) {
        ctx.report(
            Draft::error(code::UNKNOWN_IMAGE, format!("there is no image `{HOMESERVER_IMAGE}` for the homeserver"))
                .at(part.as_ref().map_or(place, |part| part.place), "no other image is named here")
                .help("declare it in images, or name another: homeserver image=\"…\""),
        );
    }
    let image = image.unwrap_or_else(|| HOMESERVER_IMAGE.to_owned());
    Homeserver {
        kind: part.as_ref().and_then(|part| part.kind).unwrap_or_else(|| kind_by_image(&image)),
        image,
        port: part.as_ref().and_then(|part| part.port).unwrap_or(HOMESERVER_PORT),
        size: part.as_ref().and_then(|part| part.size).unwrap_or(HOMESERVER_SIZE),
        origin: declared,
    }
}

fn web(ctx: &Context<'_>, part: WebPart) -> Web {
    Web {
        image: part.image,
        port: part.port.unwrap_or(WEB_PORT),
        size: part.size.unwrap_or(WEB_SIZE),
        origin: ctx.origin(part.place),
    }
}

fn manager(ctx: &mut Context<'_>, model: &Model, part: ManagerPart) -> Manager {
    // An image that does not exist is reported as a reference.
    if let Some(image) = model.images.get(&part.image).filter(|image| !ctx.gaps.text && !starts(model, image)) {
        ctx.report(
            Draft::error(
                code::NO_ENTRYPOINT,
                format!("the image `{}` is used for the manager and has no entrypoint", part.image),
            )
            .maybe_at(ctx.files.place_of(&image.origin), "no entrypoint here")
            .at(part.place, "used for the manager")
            .help("add entrypoint \"/usr/local/bin/fleetctl\" \"manager\""),
        );
    }
    Manager { image: part.image, size: part.size.unwrap_or(MANAGER_SIZE), origin: ctx.origin(part.place) }
}

fn ports(ctx: &mut Context<'_>, environment: &Environment) {
    let Some(web) = environment.web.as_ref().filter(|web| web.port == environment.homeserver.port) else { return };
    let homeserver = environment.homeserver.origin.as_ref().and_then(|origin| ctx.files.place_of(origin));
    ctx.report(
        Draft::error(
            code::PORT_CONFLICT,
            format!(
                "in environment `{}`, the homeserver and the web client both want port {}",
                environment.name, web.port
            ),
        )
        .maybe_at(ctx.files.place_of(&web.origin), "the web client's")
        .maybe_at(homeserver, "the homeserver's")
        .help("give one of them another port=…"),
    );
}

/// The ids that selectors mean, each with the selector that named it first.
fn deploy(ctx: &mut Context<'_>, model: &Model, selectors: &[Selector]) -> BTreeMap<PersonId, Option<Origin>> {
    let mut deploy = BTreeMap::new();
    for selector in selectors {
        let (place, chosen): (Place, Vec<&Person>) = match selector {
            Selector::Everybody(place) => (*place, model.org.people.values().collect()),
            Selector::Attributes { department, team, levels, place } => {
                // What does not exist is reported as a reference.
                if !exists(model, department.as_deref(), team.as_deref()) {
                    continue;
                }
                let fits = |person: &&Person| {
                    department.as_ref().is_none_or(|name| person.department.as_ref() == Some(name))
                        && team.as_ref().is_none_or(|name| person.team.as_ref() == Some(name))
                        && (levels.is_empty() || levels.contains(&person.level))
                };
                (*place, model.org.people.values().filter(fits).collect())
            }
            Selector::Id(id, place) => {
                // An id that does not exist is reported as a reference.
                let Some(person) = model.org.people.get(id) else { continue };
                if person.human {
                    deploys_human(ctx, person, *place);
                } else {
                    deploy.entry(id.clone()).or_insert_with(|| Some(ctx.origin(*place)));
                }
                continue;
            }
        };
        let agents: Vec<&Person> = chosen.iter().copied().filter(|person| !person.human).collect();
        if agents.is_empty() {
            matches_nobody(ctx, place, !chosen.is_empty());
        }
        for person in agents {
            deploy.entry(person.id.clone()).or_insert_with(|| Some(ctx.origin(place)));
        }
    }
    deploy
}

fn exists(model: &Model, department: Option<&str>, team: Option<&str>) -> bool {
    let mut departments =
        model.org.departments.values().filter(|known| department.is_none_or(|name| known.name == name));
    departments.any(|known| team.is_none_or(|name| known.teams.contains_key(name)))
        || (department.is_none() && team.is_none())
}

fn deploys_human(ctx: &mut Context<'_>, person: &Person, place: Place) {
    ctx.report(
        Draft::error(code::DEPLOYS_HUMAN, format!("`{}` is a human and cannot be deployed", person.id))
            .at(place, "deployed here")
            .maybe_at(ctx.files.place_of(&person.origin), "a human")
            .help("remove the id here, or make it a person if an agent is meant to act under that name"),
    );
}

fn matches_nobody(ctx: &mut Context<'_>, place: Place, only_humans: bool) {
    if ctx.gaps.people() {
        return;
    }
    let message = if only_humans { "this selector matches only humans" } else { "this selector matches nobody" };
    ctx.report(
        Draft::error(code::MATCHES_NOBODY, message)
            .at(place, "nobody to deploy")
            .help("check department, team and levels against `fleetctl show`: all of them must apply to a person"),
    );
}

/// Agents are told to write to whom they report: somebody who is neither here nor a human has no account there.
fn managers(ctx: &mut Context<'_>, model: &Model, environment: &Environment) {
    if ctx.gaps.people() {
        return;
    }
    let people = &model.org.people;
    let mut found = environment.deploy.iter().filter_map(|(id, origin)| {
        let manager = people.get(people.get(id)?.reports_to.as_ref()?)?;
        let absent = !manager.human && !environment.deploy.contains_key(&manager.id);
        absent.then_some((id, &manager.id, origin))
    });
    let Some((id, manager, origin)) = found.next() else { return };
    let more = match found.count() {
        0 => String::new(),
        more => format!(", nor is the manager of {more} more"),
    };
    let message =
        format!("in environment `{}`, `{id}` reports to `{manager}`, who is not deployed{more}", environment.name);
    let place = origin.as_ref().or(Some(&environment.origin)).and_then(|origin| ctx.files.place_of(origin));
    ctx.report(
        Draft::warning(code::ABSENT_MANAGER, message).maybe_at(place, "deployed here, without the manager").help(
            format!(
                "deploy `{manager}` too, or let `{id}` report to a human: agents are told to write to their manager"
            ),
        ),
    );
}

/// Images of agents are declared and can be started.
fn agent_images(ctx: &mut Context<'_>, model: &Model, environment: &Environment) {
    if ctx.gaps.text {
        return;
    }
    let mut images: BTreeMap<&str, Option<&Origin>> = BTreeMap::new();
    for id in environment.deploy.keys() {
        let Some(person) = model.org.people.get(id) else { continue };
        let (image, origin) = Layers::of(model, environment, person).image();
        images.entry(image).or_insert(origin);
    }
    for (name, origin) in images {
        let place = origin.or(Some(&environment.origin)).and_then(|origin| ctx.files.place_of(origin));
        match model.images.get(name) {
            Some(image) if !starts(model, image) => ctx.report(
                Draft::error(
                    code::NO_ENTRYPOINT,
                    format!("the image `{name}` is used for agents and has no entrypoint"),
                )
                .maybe_at(ctx.files.place_of(&image.origin), "no entrypoint here")
                .maybe_at(place, "used for agents")
                .help("add entrypoint \"/usr/local/bin/fleet-agent\""),
            ),
            // One that somebody named is reported as a reference.
            None if origin.is_none() && !ctx.gaps.named("image", name) => ctx.report(
                Draft::error(code::UNKNOWN_IMAGE, format!("there is no image `{name}` for the agents"))
                    .maybe_at(place, "deploys agents")
                    .help("declare it in images, or name another in org: defaults { image \"…\" }"),
            ),
            _ => {}
        }
    }
}

/// May this image have an entrypoint? What a foreign base or a containerfile sets is not known here.
fn starts(model: &Model, image: &Image) -> bool {
    let mut at = image;
    for _ in 0..=model.images.len() {
        let Recipe::Layers(recipe) = &at.recipe else { return true };
        if !recipe.entrypoint.is_empty()
            || matches!(&recipe.base, Some(base) if matches!(base.value, BaseRef::Reference(_)))
        {
            return true;
        }
        let Some(base) = images::base_of(at) else { return false };
        let Some(next) = model.images.get(base.value) else { return true };
        at = next;
    }
    true
}
