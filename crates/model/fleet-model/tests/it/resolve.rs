//! Environments of the shipped company: who is there, in which rooms, with whom they talk.

use fleet_model::{
    ResolveError,
    model::{Level, Model, Recipe},
    resolve,
    resolved::Resolved,
};

use crate::project;

/// The shipped directory, laid over by what a test needs.
fn company(more: &str) -> Model {
    let people = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../org/people.csv"));
    let people = people.expect("org/people.csv");
    let fleet = format!("{COMPANY}\n{more}");
    let mut files = vec![("fleet.kdl", fleet.as_str()), ("org/people.csv", people.as_str())];
    let roles: Vec<String> = Level::ALL.iter().map(|level| format!("templates/roles/{}.md", level.as_str())).collect();
    files.extend(roles.iter().map(|path| (path.as_str(), "You are {{ name }}.")));
    files.extend(["people", "matrix-messaging", "task-management"].map(skill).iter().map(|path| (&**path, "x")));
    let checked = project::check_texts(&files);
    let absent = |code: &str| code == "fleet::environment::absent-manager";
    assert!(checked.diagnostics.iter().all(|one| absent(one.code)), "{}", project::render(&checked));
    checked.model.expect("only warnings, so a model")
}

fn skill(name: &str) -> &'static str {
    Box::leak(format!("templates/skills/{name}/SKILL.md").into_boxed_str())
}

const COMPANY: &str = r#"
fleet "anycompany" domain="anycompany.corp"
models {
    provider "amazon-bedrock" kind="bedrock" region="us-east-1" api-key="AWS_BEARER_TOKEN_BEDROCK"
    provider "ollama" kind="openai" base-url="http://127.0.0.1:11434/v1" { model "llama3.1"; model "qwen3" }
}
org {
    human "manu.mishra" name="Manu Mishra" title="CEO" level="ceo"
    defaults {
        model "amazon-bedrock/sonnet" { fallback "amazon-bedrock/haiku" }
        skills "people" "matrix-messaging"
        size cpu=1024 memory-mib=2048
    }
    department "Engineering" {
        defaults { skills "people" "matrix-messaging" "task-management" }
        team "Frontend" { person "angel.baker" { model "amazon-bedrock/gpt-oss" } }
    }
    department "Product" { team "Platform" alias="product-platform" }
    directory "org/people.csv"
}
images {
    image "agent" { base "docker.io/library/debian:bookworm" }
    image "homeserver" { base image="agent" }
}
rooms {
    room "all-employees" topic="Everybody" { members "*"; moderators "ceo" }
    each "department" { room "{department}-leadership" { members level="ceo,vp,director" in="{department}" } }
    each "team" { room "{team}-team" { members "ceo" in="{team}" } }
    direct-messages "manager-report" "same-manager" "same-team"
}
environment "local" { target "docker"; deploy "aaron.phillips" "austin.bailey" }
environment "dev" {
    target "docker"
    deploy "aaron.phillips" "austin.bailey" "evelyn.thompson" "allison.butler" "allison.lopez" "angel.baker" \
        "anthony.hernandez" "allison.roberts" "beau.martinez"
}
"#;

fn dev() -> Resolved {
    resolve(&company(""), "dev").expect("dev is declared")
}

fn members(resolved: &Resolved, room: &str) -> Vec<String> {
    resolved.rooms[room].members.iter().cloned().collect()
}

#[test]
fn nine_agents_of_engineering_have_four_rooms_and_twenty_five_pairs() {
    let dev = dev();
    assert_eq!(dev.agents.len(), 9);
    let rooms: Vec<&String> = dev.rooms.keys().collect();
    assert_eq!(rooms, ["all-employees", "engineering-leadership", "frontend-team", "infrastructure-team"]);
    assert_eq!(dev.direct_messages.len(), 25);
    assert!(dev.direct_messages.iter().all(|(a, b)| a < b));
    assert_eq!(dev.accounts.len(), 10);
    assert_eq!(dev.directory.len(), 10);
    assert!(dev.accounts["manu.mishra"].human);
}

#[test]
fn two_agents_have_two_pairs_and_no_room_of_an_absent_team() {
    let local = resolve(&company(""), "local").expect("local is declared");
    let pairs: Vec<(&str, &str)> = local.direct_messages.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(pairs, [("aaron.phillips", "austin.bailey"), ("aaron.phillips", "manu.mishra")]);
    let rooms: Vec<&String> = local.rooms.keys().collect();
    assert_eq!(rooms, ["all-employees", "engineering-leadership", "frontend-team"]);
}

#[test]
fn members_are_those_whom_the_rules_name() {
    let dev = dev();
    assert_eq!(members(&dev, "all-employees").len(), 10);
    assert_eq!(
        members(&dev, "engineering-leadership"),
        ["aaron.phillips", "austin.bailey", "evelyn.thompson", "manu.mishra"]
    );
    assert_eq!(members(&dev, "infrastructure-team"), ["evelyn.thompson", "manu.mishra"]);
    assert_eq!(members(&dev, "frontend-team").len(), 8);
}

#[test]
fn rooms_have_a_name_a_topic_and_moderators() {
    let dev = dev();
    assert_eq!(dev.rooms["frontend-team"].name, "Frontend Team");
    assert_eq!(dev.rooms["all-employees"].topic, "Everybody");
    assert_eq!(dev.rooms["all-employees"].moderators.iter().collect::<Vec<_>>(), ["manu.mishra"]);
    assert!(!dev.rooms["all-employees"].public);
}

#[test]
fn the_nearest_declaration_wins_per_field() {
    let dev = dev();
    let (angel, aaron) = (&dev.agents["angel.baker"], &dev.agents["aaron.phillips"]);
    assert_eq!(angel.model.value.primary, "amazon-bedrock/gpt-oss");
    assert!(angel.model.value.fallbacks.is_empty(), "a model is replaced whole");
    assert_eq!(aaron.model.value.primary, "amazon-bedrock/sonnet");
    assert_eq!(angel.skills, aaron.skills, "skills come from the department for both");
    assert_eq!(aaron.skills.value.len(), 3);
    assert_eq!(aaron.size.value.memory_mib, 2048);
    assert_eq!(aaron.heartbeat_seconds.value, 300);
    assert!(aaron.require_mention.value);
    assert_eq!(aaron.template.value.as_str(), "templates/roles/vp.md");
    assert_eq!(angel.name, "Angel Baker", "what the node does not say comes from the row");
    assert_eq!(angel.reports_to.as_deref(), Some("allison.butler"));
}

#[test]
fn an_environment_overrides_everybody_and_passes_that_on() {
    let more = r#"
environment "laptop" extends="local" {
    override { model "ollama/llama3.1"; size cpu=512 memory-mib=1024; heartbeat "off" }
    homeserver port=7000
}
environment "other" extends="laptop" { deploy "angel.baker"; override { model "ollama/qwen3" } }
"#;
    let model = company(more);
    let laptop = resolve(&model, "laptop").expect("declared");
    assert_eq!(laptop.agents.len(), 2);
    assert!(laptop.agents.values().all(|agent| agent.model.value.primary == "ollama/llama3.1"));
    assert!(laptop.agents.values().all(|agent| agent.heartbeat_seconds.value == 0));
    let other = resolve(&model, "other").expect("declared");
    let ids: Vec<&String> = other.agents.keys().collect();
    assert_eq!(ids, ["angel.baker"], "deploy is replaced, not added to");
    assert_eq!(other.agents["angel.baker"].model.value.primary, "ollama/qwen3");
    assert_eq!(other.agents["angel.baker"].size.value.memory_mib, 1024, "override merges field by field");
    assert_eq!(model.environments["other"].homeserver.port, 7000);
}

#[test]
fn selectors_pick_by_attribute_and_leave_humans_out() {
    let more = r#"
environment "legal" { target "docker"; deploy department="Legal" levels="vp,director"; deploy team="FP&A" levels="director" }
environment "all" { target "docker"; deploy "*" }
"#;
    let model = company(more);
    assert_eq!(model.environments["legal"].deploy.len(), 1 + 2 + 1);
    assert_eq!(model.environments["all"].deploy.len(), 1000);
}

#[test]
fn the_whole_company_has_a_room_for_each_department_and_team() {
    let model = company("environment \"all\" { target \"docker\"; deploy \"*\" }");
    let all = resolve(&model, "all").expect("declared");
    assert_eq!(all.rooms.len(), 1 + 9 + 28);
    assert!(all.rooms.contains_key("product-platform-team") && all.rooms.contains_key("platform-team"));
    assert!(all.rooms.contains_key("fp-a-team") && all.rooms.contains_key("customer-success-leadership"));
    assert_eq!(all.accounts.len(), 1001);
}

#[test]
fn values_remember_where_they_were_declared() {
    let dev = dev();
    let line = |text: &str| COMPANY.lines().position(|line| line.contains(text)).expect("in the text") + 1;
    let angel = dev.agents["angel.baker"].model.origin.as_ref().expect("declared");
    assert_eq!((angel.file.as_str(), angel.line as usize), ("fleet.kdl", line("gpt-oss")));
    let austin = &dev.agents["austin.bailey"].origin;
    assert_eq!((austin.file.as_str(), austin.line), ("org/people.csv", 4));
}

#[test]
fn images_are_those_in_use_with_what_they_start_from() {
    let images: Vec<String> = dev().images.into_iter().collect();
    assert_eq!(images, ["agent", "homeserver"]);
}

#[test]
fn an_unknown_environment_is_answered_with_the_nearest() {
    let error = resolve(&company(""), "locl").expect_err("not declared");
    assert_eq!(error.to_string(), "there is no environment `locl`; did you mean `local`?");
    let ResolveError::UnknownEnvironment { known, .. } = error else { panic!("another error") };
    assert_eq!(known, ["dev", "local"]);
}

#[test]
fn a_user_without_a_home_gets_one_and_a_number_needs_no_user() {
    let text = "fleet \"tiny\" domain=\"tiny.test\"\nimages {\n\
        image \"a\" { debian \"bookworm\" { packages \"dash\" }; user \"joe\" uid=1000; run-as \"joe\" }\n\
        image \"b\" { base \"scratch\"; copy \"x\" to=\"/x\"; run-as \"1000:1000\" }\n}\n";
    let checked = project::check_texts(&[("fleet.kdl", text), ("x", "x"), ("templates/roles/ic.md", "x")]);
    let model = checked.model.clone().unwrap_or_else(|| panic!("{}", project::render(&checked)));
    let Recipe::Layers(recipe) = &model.images["a"].recipe else { panic!("layers were declared") };
    assert_eq!((recipe.users[0].home.as_str(), recipe.users[0].gid), ("/home/joe", 1000));
}
