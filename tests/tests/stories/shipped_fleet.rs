//! The repository's own `fleet.kdl` and templates: sound, complete, and rendered so that a change reaches exactly the
//! agents it is about. And a fleet that never changes, with every hash that is derived from it.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use fleet_derivation::{DerivationGraph, Hash};
use fleet_graph::{
    Inputs, Problem, instantiate,
    template::Renderer,
    workspace::{FILES, ROOM_PROMPT, Workspaces},
};
use fleet_model::{Looked, RelPath, SourceFile, SourceTree, check, model::Model, resolve, resolved::Resolved, wanted};
use fleet_oci::{Lock, Platform};
use serde_json::json;

const LEVELS: [&str; 5] = ["ceo", "vp", "director", "manager", "ic"];

/// A file of the project with another text than on disk.
type Edit<'e> = (&'e str, &'e dyn Fn(&str) -> String);

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path of this test")
}

fn look(tree: &mut SourceTree, root: &Path, at: &RelPath) {
    let full = root.join(at.as_str());
    let Ok(meta) = fs::metadata(&full) else {
        tree.insert(at.clone(), Looked::Missing);
        return;
    };
    if meta.is_file() {
        let bytes = fs::read(&full).expect("a file of the project");
        tree.insert(at.clone(), Looked::File(SourceFile::new(bytes, meta.permissions().mode() & 0o100 != 0)));
        return;
    }
    tree.insert(at.clone(), Looked::Folder);
    for entry in fs::read_dir(&full).expect("a folder of the project") {
        let name = entry.expect("an entry").file_name();
        look(tree, root, &at.join(name.to_str().expect("UTF-8")).expect("a path"));
    }
}

/// The project's files, one of them perhaps edited.
fn project(edit: Option<Edit<'_>>) -> SourceTree {
    files_of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), edit)
}

/// The files of the project in a folder, one of them perhaps edited.
fn files_of(root: &Path, edit: Option<Edit<'_>>) -> SourceTree {
    let (kdl, mut tree) = (path("fleet.kdl"), SourceTree::default());
    look(&mut tree, root, &kdl);
    let mut edit = edit;
    loop {
        if let Some((file, change)) = edit
            && let Some(text) = tree.file(&path(file)).and_then(SourceFile::text)
        {
            let changed = SourceFile::new(change(text).into_bytes(), false);
            tree.insert(path(file), Looked::File(changed));
            edit = None;
        }
        // What images copy is small here: read with its bytes, it is listed too.
        let wanted = wanted(&kdl, &tree);
        let listed = wanted.listings.into_iter().map(|(at, _)| at);
        let missing: Vec<RelPath> = wanted.contents.into_iter().chain(listed).filter(|at| !tree.knows(at)).collect();
        if missing.is_empty() {
            assert!(edit.is_none(), "the file to edit was never read");
            return tree;
        }
        missing.iter().for_each(|at| look(&mut tree, root, at));
    }
}

fn sound(tree: &SourceTree) -> Model {
    let checked = check(&path("fleet.kdl"), tree);
    let found: Vec<String> = checked.diagnostics.iter().map(|d| format!("{} {}", d.code, d.message)).collect();
    assert!(found.is_empty(), "{found:#?}");
    checked.model.expect("a model where nothing is wrong")
}

fn environment(model: &Model, name: &str) -> Resolved {
    resolve(model, name).expect("a declared environment")
}

/// Every agent's generated files, of both environments: `local/aaron.phillips` → path → text.
fn workspaces(tree: &SourceTree) -> BTreeMap<String, BTreeMap<String, Arc<str>>> {
    let model = sound(tree);
    let all = Workspaces::new(&model, tree, "http://homeserver:6167");
    let mut made = BTreeMap::new();
    for name in model.environments.keys() {
        for agent in environment(&model, name).agents.values() {
            let workspace = all.workspace(agent).unwrap_or_else(|problems| panic!("{}: {problems:?}", agent.id));
            made.insert(format!("{name}/{}", agent.id), workspace.files);
        }
    }
    made
}

/// Whose files differ after an edit, of environment `dev`.
fn touched(edit: Edit<'_>) -> Vec<String> {
    let before = workspaces(&project(None));
    let after = workspaces(&project(Some(edit)));
    let differs = |(name, files): &(&String, &BTreeMap<String, Arc<str>>)| before.get(*name) != Some(*files);
    let names = after.iter().filter(differs).filter_map(|(name, _)| name.strip_prefix("dev/").map(str::to_owned));
    names.collect()
}

#[test]
fn the_shipped_fleet_has_nothing_wrong_with_it_and_is_in_the_standard_layout() {
    let tree = project(None);
    let model = sound(&tree);
    assert_eq!(model.org.people.len(), 1001);
    let text = tree.file(&path("fleet.kdl")).and_then(SourceFile::text).expect("fleet.kdl").to_owned();
    assert_eq!(fleet_model::format(&text).expect("it parses"), text);
}

#[test]
fn nine_agents_talk_in_four_rooms_and_twenty_five_direct_conversations() {
    let dev = environment(&sound(&project(None)), "dev");
    assert_eq!(dev.agents.len(), 9);
    let rooms: Vec<&str> = dev.rooms.keys().map(String::as_str).collect();
    assert_eq!(rooms, ["all-employees", "engineering-leadership", "frontend-team", "infrastructure-team"]);
    assert_eq!(dev.direct_messages.len(), 25);
    let local = environment(&sound(&project(None)), "local");
    assert_eq!(local.agents.keys().collect::<Vec<_>>(), ["aaron.phillips", "austin.bailey"]);
    assert_eq!(local.direct_messages.len(), 2);
}

#[test]
fn every_template_renders_for_every_level_in_every_department_and_in_none() {
    let tree = project(None);
    let model = sound(&tree);
    let renderer = Renderer::new(&tree, &model.templates.value);
    let departments = model.org.departments.values().map(|d| Some((d.name.as_str(), d.alias.as_str())));
    for department in departments.chain([None]) {
        for level in LEVELS {
            for full in [true, false] {
                let some = |text: &'static str| full.then_some(text);
                let skills = if full { vec!["matrix-messaging", "people", "task-management"] } else { vec![] };
                let context = json!({
                    "agent": {
                        "id": "sam.okafor", "name": "Sam Okafor", "first_name": "Sam", "title": "Somebody", "level": level,
                        "department": department.map(|d| d.0), "department_slug": department.map(|d| d.1),
                        "team": some("Blue"), "matrix_id": "@sam.okafor:x.y", "reports_to": some("kim.lee"),
                        "reports_to_matrix_id": some("@kim.lee:x.y"), "require_mention": full,
                        "heartbeat": if full { "5 minutes" } else { "" },
                    },
                    "fleet": {"name": "fleet", "domain": "x.y"}, "skills": skills,
                    "role_template": format!("roles/{level}.md"),
                });
                for name in FILES.iter().chain([&ROOM_PROMPT]) {
                    let (text, _) =
                        renderer.render(name, &context).unwrap_or_else(|e| panic!("{level} {department:?}: {e}"));
                    assert!(text.len() > 100, "{name} is next to empty");
                    // OpenClaw cuts longer files, and small models drown much earlier.
                    assert!(text.len() < 8_000, "{name} has {} bytes", text.len());
                    assert!(
                        !text.contains("\n\n\n") && !text.contains("{%") && !text.contains("{{"),
                        "{name}:\n{text}"
                    );
                    assert_eq!(
                        text.contains("kim.lee"),
                        full && (*name == "IDENTITY.md" || *name == "AGENTS.md"),
                        "{name}"
                    );
                }
            }
        }
    }
}

#[test]
fn no_workspace_names_anybody_but_its_agent_and_whom_that_reports_to() {
    let tree = project(None);
    let dev = environment(&sound(&tree), "dev");
    let all = workspaces(&tree);
    for agent in dev.agents.values() {
        let others = dev.agents.values().filter(|o| o.id != agent.id && Some(&o.id) != agent.reports_to.as_ref());
        for other in others {
            for (file, text) in &all[&format!("dev/{}", agent.id)] {
                assert!(
                    !text.contains(&other.id) && !text.contains(&other.name),
                    "{}'s {file} names {}",
                    agent.id,
                    other.id
                );
            }
        }
    }
}

#[test]
fn a_hire_changes_no_workspace_but_the_new_one() {
    let hire = |text: &str| {
        let team = "        team \"Frontend\" {\n";
        let person = "            person \"sam.okafor\" name=\"Sam Okafor\" title=\"Engineer\" level=\"ic\" reports-to=\"allison.butler\"\n";
        assert!(text.contains(team) && text.contains("\"beau.martinez\"\n    rollout"), "fleet.kdl changed its shape");
        text.replace(team, &format!("{team}{person}"))
            .replace("\"beau.martinez\"\n    rollout", "\"beau.martinez\" \"sam.okafor\"\n    rollout")
    };
    assert_eq!(touched(("fleet.kdl", &hire)), ["sam.okafor"]);
}

#[test]
fn a_template_reaches_exactly_those_it_is_about() {
    let more = |text: &str| format!("{text}\nOne line more.\n");
    assert_eq!(touched(("templates/roles/director.md", &more)), ["austin.bailey", "evelyn.thompson"]);
    assert_eq!(touched(("templates/levels/manager.md", &more)), ["allison.butler", "allison.lopez"]);
    assert_eq!(touched(("templates/departments/engineering.md", &more)).len(), 9);
    assert_eq!(touched(("templates/departments/legal.md", &more)), [""; 0]);
    assert_eq!(touched(("templates/skills/people/SKILL.md", &more)).len(), 9);
}

#[test]
fn the_shipped_environment_on_aws_has_the_network_of_the_architecture() {
    let model = sound(&project(None));
    let stacks = fleet_graph::stacks::render(&model, &model.environments["dev"]).expect("stacks");
    let names: Vec<&str> = stacks.iter().map(|stack| stack.name.as_str()).collect();
    assert_eq!(names, ["shared", "dev-data", "dev"]);
    for subnet in ["10.0.1.0/24", "10.0.2.0/24", "10.0.10.0/24", "10.0.11.0/24"] {
        assert!(stacks[2].body.contains(subnet), "no {subnet}");
    }
    assert!(fleet_graph::stacks::render(&model, &model.environments["local"]).expect("none").is_empty());
}

/// The graph of an environment, with an agent runtime of these bytes, after every image gave what it last gave.
fn derived(tree: &SourceTree, lock: &str, runtime: &[u8], name: &str) -> Result<DerivationGraph, Vec<Problem>> {
    let model = sound(tree);
    let (lock, resolved) = (Lock::parse(lock).expect("a lock"), environment(&model, name));
    let binaries = [Platform::LinuxAmd64, Platform::LinuxArm64].map(|one| (one, Hash::of(runtime))).into();
    let mut outputs = BTreeMap::new();
    loop {
        let inputs = Inputs {
            model: &model,
            environment: &model.environments[name],
            resolved: &resolved,
            sources: tree,
            lock: &lock,
            platform: Platform::LinuxAmd64,
            agent_binaries: &binaries,
            fleetctl_binaries: &binaries,
            source_date_epoch: None,
            outputs: &outputs,
        };
        let graph = instantiate(&inputs)?.graph;
        let images = graph.iter().filter(|one| one.address.kind == fleet_model::Kind::Image);
        let built: BTreeMap<Hash, String> = images.map(|one| (one.hash(), format!("sha256:{}", one.address))).collect();
        if built == outputs {
            return Ok(graph);
        }
        outputs = built;
    }
}

#[test]
fn every_shipped_environment_derives_from_what_is_locked() {
    let (tree, lock) = (project(None), fs::read_to_string("../fleet.lock").expect("fleet.lock"));
    for (name, object) in [("local", "service/homeserver"), ("dev", "stack/dev"), ("rehearsal", "stack/rehearsal")] {
        let graph = derived(&tree, &lock, b"runtime", name).unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        assert!(graph.iter().any(|one| one.address.to_string() == object), "{name} has no {object}");
    }
}

#[test]
fn another_agent_runtime_is_another_agent_image_and_no_other_derivation() {
    let (tree, lock) = (project(None), fs::read_to_string("../fleet.lock").expect("fleet.lock"));
    let hashes = |runtime: &[u8]| -> BTreeMap<String, Hash> {
        let graph = derived(&tree, &lock, runtime, "local").expect("it derives");
        graph.iter().map(|one| (one.address.to_string(), one.hash())).collect()
    };
    let (one, other) = (hashes(b"one"), hashes(b"other"));
    assert!(one.contains_key("agent/aaron.phillips") && one.contains_key("service/homeserver"), "{one:?}");
    let differ: Vec<&str> =
        other.iter().filter(|(address, hash)| one.get(*address) != Some(hash)).map(|(a, _)| a.as_str()).collect();
    assert!(differ.len() == 2 && differ.contains(&"image/agent"), "{differ:?}");
    assert!(differ.iter().any(|address| address.starts_with("layer/agent.")), "{differ:?}");
}

#[test]
fn a_node_on_which_openclaw_does_not_run_is_refused_before_anything_is_built() {
    let older = |text: &str| text.replace("node \"24.21.0\"", "node \"22.12.0\"");
    let tree = project(Some(("fleet.kdl", &older)));
    let mut lock: serde_json::Value =
        serde_json::from_str(&fs::read_to_string("../fleet.lock").expect("fleet.lock")).expect("JSON");
    lock["node"]["agent"]["version"] = json!("22.12.0");
    let problems = derived(&tree, &lock.to_string(), b"runtime", "local").expect_err("it is refused");
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains("openclaw 2026.9.6 needs Node >=24.16.0"), "{told:?}");
    assert!(told[0].contains("the image has 22.12.0") && problems[0].help.contains("`node` layer"), "{problems:?}");
}

/// Where the fleet is that never changes.
const FIXED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/hashed");

fn hashes_of_the_fixed_fleet(edit: Option<Edit<'_>>) -> BTreeMap<String, Hash> {
    let lock = fs::read_to_string(Path::new(FIXED).join("fleet.lock")).expect("its lock");
    let graph = derived(&files_of(Path::new(FIXED), edit), &lock, b"runtime", "local").expect("it derives");
    graph.iter().map(|one| (one.address.to_string(), one.hash())).collect()
}

/// Everything from the text of `fleet.kdl` to a hash is in between: a change anywhere there that moves one rolls every
/// fleet, so it has to be meant and in the changelog. `FLEET_BLESS=1` writes the file anew.
#[test]
fn every_hash_of_a_fleet_that_never_changes_is_pinned() {
    let lines: Vec<String> =
        hashes_of_the_fixed_fleet(None).iter().map(|(address, hash)| format!("{hash} {address}")).collect();
    let (file, now) = (Path::new(FIXED).join("hashes.txt"), format!("{}\n", lines.join("\n")));
    if std::env::var_os("FLEET_BLESS").is_some() {
        fs::write(&file, &now).expect("a file that can be written");
    }
    let pinned = fs::read_to_string(&file).expect("tests/fixtures/hashed/hashes.txt");
    assert_eq!(now, pinned, "a hash changed: if that is meant, say so in the changelog and bless it");
}

#[test]
fn how_agents_roll_is_no_part_of_what_they_are() {
    let slower = |text: &str| {
        text.replace("wave=2 healthy-within=\"90s\"", "wave=1 pause=\"9s\" max-failures=3 healthy-within=\"20m\"")
    };
    assert_eq!(hashes_of_the_fixed_fleet(Some(("fleet.kdl", &slower))), hashes_of_the_fixed_fleet(None));
    let bigger = |text: &str| text.replace("cpu=512", "cpu=768");
    let (before, after) = (hashes_of_the_fixed_fleet(None), hashes_of_the_fixed_fleet(Some(("fleet.kdl", &bigger))));
    let moved: Vec<&str> =
        after.iter().filter(|(address, hash)| before.get(*address) != Some(hash)).map(|(a, _)| a.as_str()).collect();
    assert_eq!(moved, ["agent/ivan.ic", "agent/vera.vp"], "and the edit of this test does reach hashes");
}
