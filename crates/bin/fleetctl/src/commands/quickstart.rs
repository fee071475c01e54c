//! `quickstart`: from a fresh machine to agents that answer, with every step shown.

use std::time::Instant;

use fleet_docker::{Engine, Search, engine::Looked, install};

use crate::{
    commands::{apply, status},
    context::{Context, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::{self, Prepared},
    ui::{
        self,
        out::{tell, to_stderr},
    },
    world::{self, Outside as _, World},
};

/// The environment that quickstart runs.
const ENVIRONMENT: &str = "local";

/// `fleetctl quickstart`.
///
/// # Errors
/// No engine and no permission to install one; anything that `apply` can meet.
pub async fn quickstart(context: &Context, yes: bool) -> Outcome {
    let begun = Instant::now();
    tell!("1/4 container engine");
    let engine = engine(yes).await?;
    tell!("    {engine:?}");
    tell!("2/4 plan");
    let prepared = Prepared::new(context, ENVIRONMENT)?;
    let _lease = apply::lease(&prepared, "quickstart")?;
    let world = World::connect(context, &prepared).await?;
    let planned = pipeline::plan(&prepared, &world).await?;
    to_stderr(format_args!("{}", ui::plan::text(&planned.plan, ui::style::Style::stderr(context.global.color))));
    tell!("3/4 apply");
    let report = apply::run(context, &prepared, &world, &planned.plan, &planned).await?;
    let exit = apply::finish(context, &planned.plan, &report, &[]);
    if exit != Exit::Done {
        return Ok(exit);
    }
    tell!("4/4 what runs");
    let planned = pipeline::plan(&prepared, &world).await?;
    world.finish().await;
    let wanted: Vec<_> = planned.instance.desired.keys().cloned().collect();
    print_out(&status::text(&planned.state, &wanted));
    let problems = status::model_problems(&prepared.model, &prepared.resolved, &world).await;
    print_out(&farewell(&prepared, &problems, begun.elapsed().as_secs()));
    Ok(Exit::Done)
}

/// The engine that answers; where none does, says what would be installed and does so when asked to.
async fn engine(yes: bool) -> Result<Engine, Failure> {
    let search = world::engine_search();
    let looked_at = match fleet_docker::engine::find(&search).await {
        Search::Found(engine) => return Ok(*engine),
        Search::NotFound { looked_at } => looked_at,
    };
    for looked in &looked_at {
        tell!("    {}: {}", looked.endpoint, looked.why);
    }
    if let Some(refusal) = not_by_installing(&looked_at, search.docker_host.is_some()) {
        return Err(refusal);
    }
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let systemd = std::path::Path::new("/run/systemd/system").is_dir();
    let plan = install::install_plan(&os_release, crate::machine::is_root(), systemd);
    let lines = plan.lines();
    if matches!(plan, install::InstallPlan::ByHand { .. }) {
        let mut failure = Failure::new(Exit::Unavailable, "no container engine answers");
        failure.hints = lines;
        return Err(failure);
    }
    tell!("    no container engine answers; this would install and start one:");
    for line in &lines {
        tell!("      {line}");
    }
    if !yes
        && !apply::confirm("Do that?").map_err(|failure| Failure {
            hints: vec!["run `fleetctl quickstart --yes` to go ahead without being asked".to_owned()],
            exit: Exit::Unavailable,
            ..failure
        })?
    {
        return Err(Failure::new(Exit::Unavailable, "no container engine answers, and none was installed"));
    }
    let mut progress = |line: String| tell!("    {line}");
    install::install(&plan, &search, &mut progress)
        .await
        .map_err(|error| Failure::caused(Exit::Failed, "the container engine could not be installed", &error))
}

/// Where installing an engine would not help: one is named or there already.
fn not_by_installing(looked_at: &[Looked], named: bool) -> Option<Failure> {
    if looked_at.iter().any(|looked| looked.denied) {
        return Some(
            Failure::new(Exit::Denied, "there is a container engine, and this user may not use it")
                .hint("run this as root, or join the group that owns the socket (usually `docker`) and sign in again"),
        );
    }
    named.then(|| {
        Failure::new(Exit::Unavailable, "DOCKER_HOST names an engine that does not answer")
            .hint("start it, or unset DOCKER_HOST")
    })
}

fn farewell(prepared: &Prepared, problems: &[status::ModelProblem], seconds: u64) -> String {
    let resolved = &prepared.resolved;
    let agent = resolved.agents.keys().next().map_or("somebody", String::as_str);
    let room = resolved.rooms.keys().next().map_or("all-employees", String::as_str);
    let human = resolved.accounts.values().find(|account| account.human);
    let port = prepared.environment().map(|environment| environment.homeserver.port).unwrap_or_default();
    let mut text = format!("\n{} agents are in their rooms after {seconds} s.\n", resolved.agents.len());
    for problem in problems {
        text.push_str(&format!("\nThey cannot answer yet: model provider {}: {}.\n", problem.provider, problem.what));
    }
    let fleetctl = crate::machine::program();
    text.push_str(&format!(
        "\nTalk to them:     {fleetctl} say {room} \"@{agent} what are you working on?\"\n\
         Look:             {fleetctl} status, {fleetctl} logs -f agent/{agent}\n\
         Change something: edit fleet.kdl or templates/, then {fleetctl} plan, {fleetctl} apply\n\
         Why did it roll:  {fleetctl} why agent/{agent}\n\
         Take it down:     {fleetctl} destroy (add --purge to forget everything)\n"
    ));
    if let Some(human) = human {
        text.push_str(&format!(
            "With a Matrix client: homeserver http://127.0.0.1:{port}, user {}, password: {fleetctl} password {}\n",
            human.matrix_id, human.id
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(denied: bool) -> Looked {
        Looked { endpoint: "unix:///var/run/docker.sock".to_owned(), why: "why".to_owned(), denied }
    }

    #[test]
    fn an_engine_that_is_there_is_never_answered_with_the_offer_to_install_another() {
        let denied = not_by_installing(&[looked(false), looked(true)], false).expect("a refusal");
        assert!(matches!(denied.exit, Exit::Denied) && denied.hints[0].contains("group"), "{:?}", denied.hints);
        let named = not_by_installing(&[looked(false)], true).expect("a refusal");
        assert!(matches!(named.exit, Exit::Unavailable) && named.hints[0].contains("DOCKER_HOST"), "{:?}", named.hints);
        assert!(not_by_installing(&[looked(false)], false).is_none(), "nothing is there: one can be installed");
    }
}
