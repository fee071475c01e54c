//! [`workspace`]: the generated files of one agent, and the derivation that says what they were rendered from.
//!
//! An agent's templates see its own fields and the id it reports to; never counts or names of others, so that a hire
//! rolls nobody else. Deliberately absent: memory, which no generated file may touch, and the directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{
    Address, Kind, Origin, RelPath, SourceTree, late,
    model::{Model, ModelProviderKind},
    resolved::Agent,
};
use fleet_oci::Digest;
use serde::Serialize;
use serde_json::json;

use crate::{
    Problem,
    openclaw::{self, Surroundings},
    template::{RenderError, Renderer},
};

/// Files that every agent gets, each a template of the same name.
pub const FILES: [&str; 4] = ["AGENTS.md", "HEARTBEAT.md", "IDENTITY.md", "SOUL.md"];
/// The template of the system prompt that an agent gets in rooms.
pub const ROOM_PROMPT: &str = "room-prompt.md";

/// Generated files of one agent by path within the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// `files/<path>`, `manifest.json`, `openclaw.json`.
    pub files: BTreeMap<String, Arc<str>>,
    /// What it was made from.
    pub derivation: Derivation,
    /// Hash over the files: its output.
    pub output: String,
}

/// What templates see.
#[derive(Serialize)]
struct Context<'a> {
    agent: AgentFields<'a>,
    fleet: FleetFields<'a>,
    skills: Vec<&'a str>,
    role_template: &'a str,
}

#[derive(Serialize)]
struct AgentFields<'a> {
    id: &'a str,
    name: &'a str,
    first_name: &'a str,
    title: &'a str,
    level: &'static str,
    department: Option<&'a str>,
    department_slug: Option<String>,
    team: Option<&'a str>,
    matrix_id: &'a str,
    reports_to: Option<&'a str>,
    reports_to_matrix_id: Option<String>,
    require_mention: bool,
    heartbeat: String,
}

#[derive(Serialize)]
struct FleetFields<'a> {
    name: &'a str,
    domain: &'a str,
}

/// Renders workspaces of one environment.
pub struct Workspaces<'a> {
    /// The model.
    pub model: &'a Model,
    /// The project's files.
    pub sources: &'a SourceTree,
    /// The homeserver as agents reach it.
    pub homeserver: &'a str,
    /// Whether agents ask models of Bedrock by their task's role; they do not unless somebody says so.
    pub bedrock_by_role: bool,
    /// The project's templates.
    renderer: Renderer<'a>,
    /// Skills by name. Read and hashed once: ten thousand agents share them.
    skills: Arc<BTreeMap<&'a str, Vec<SkillFile<'a>>>>,
}

/// One file of a skill, the same for every agent that has it.
struct SkillFile<'a> {
    source: &'a RelPath,
    /// In the bundle: `files/skills/people/SKILL.md`.
    path: String,
    /// `None`: it is not text.
    text: Option<SharedText>,
}

/// A text and its SHA-256, as the manifest has it.
#[derive(Clone)]
struct SharedText {
    text: Arc<str>,
    sha256: Arc<str>,
}

impl SharedText {
    fn new(text: &str) -> Self {
        Self { text: text.into(), sha256: Digest::sha256(text.as_bytes()).hex().into() }
    }
}

impl<'a> Workspaces<'a> {
    /// Reads templates and skills; nothing is rendered yet.
    #[must_use]
    pub fn new(model: &'a Model, sources: &'a SourceTree, homeserver: &'a str) -> Self {
        let folder = &model.templates.value;
        let prefix = format!("{}skills/", folder.as_folder());
        let mut skills: BTreeMap<&str, Vec<SkillFile<'_>>> = BTreeMap::new();
        for (source, file) in sources.files_below(folder) {
            let Some((name, inside)) = source.as_str().strip_prefix(&prefix).and_then(|path| path.split_once('/'))
            else {
                continue;
            };
            let path = format!("files/skills/{name}/{inside}");
            skills.entry(name).or_default().push(SkillFile { source, path, text: file.text().map(SharedText::new) });
        }
        let renderer = Renderer::new(sources, folder);
        Self { model, sources, homeserver, bedrock_by_role: false, renderer, skills: Arc::new(skills) }
    }

    /// The same for another thread.
    #[must_use]
    pub fn again(&self) -> Self {
        let renderer = Renderer::new(self.sources, &self.model.templates.value);
        Self { renderer, skills: Arc::clone(&self.skills), ..*self }
    }

    /// The workspace of one agent.
    ///
    /// # Errors
    /// Every missing or broken template and every skill that is not text.
    pub fn workspace(&self, agent: &Agent) -> Result<Workspace, Vec<Problem>> {
        let mut read = BTreeSet::new();
        let mut files = BTreeMap::new();
        let mut problems = Vec::new();
        let folder = &self.model.templates.value;
        let role = agent.template.value.as_str();
        let role = role.strip_prefix(&folder.as_folder()).unwrap_or(role);
        let context = self.context(agent, role);
        let mut room_prompt = String::new();
        for name in FILES.into_iter().chain([ROOM_PROMPT]) {
            match self.render(agent, name, &context) {
                Err(problem) => problems.push(problem),
                Ok((text, used)) => {
                    read.extend(used);
                    match name {
                        ROOM_PROMPT => room_prompt = text,
                        _ => drop(files.insert(format!("files/{name}"), SharedText::new(&text))),
                    }
                }
            }
        }
        for skill in &agent.skills.value {
            problems.extend(self.add_skill(agent, skill, &mut files, &mut read).err());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let manifest = manifest(&files);
        let around = Surroundings {
            model: self.model,
            homeserver: self.homeserver,
            room_prompt: room_prompt.trim(),
            by_role: self.bedrock_by_role,
        };
        let configuration = openclaw::configuration(agent, &around);
        let output = output(&manifest, &configuration);
        let mut files: BTreeMap<String, Arc<str>> = files.into_iter().map(|(path, file)| (path, file.text)).collect();
        files.insert("manifest.json".to_owned(), manifest.into());
        files.insert("openclaw.json".to_owned(), configuration.into());
        Ok(Workspace { output, files, derivation: self.derivation(agent, &read) })
    }

    fn render(&self, agent: &Agent, name: &str, context: &Context<'_>) -> Result<(String, BTreeSet<RelPath>), Problem> {
        self.renderer.render(name, context).map_err(|error| broken(address(agent), &error))
    }

    /// Templates that do not parse, also those that no deployed agent uses.
    #[must_use]
    pub fn broken_templates(&self) -> Vec<Problem> {
        let address = Address::new(Kind::Workspace, "templates");
        self.renderer.broken("skills/").iter().map(|error| broken(address.clone(), error)).collect()
    }

    fn add_skill(
        &self,
        agent: &Agent,
        skill: &str,
        files: &mut BTreeMap<String, SharedText>,
        read: &mut BTreeSet<RelPath>,
    ) -> Result<(), Problem> {
        let problem = |what: String| Problem {
            code: late::SKILL_NOT_TEXT,
            address: address(agent),
            origin: agent.skills.origin.clone(),
            what,
            help: "a skill is a folder of text files with a SKILL.md".to_owned(),
        };
        let Some(found) = self.skills.get(skill) else {
            return Err(problem(format!(
                "skill {skill} has no files in {}/skills/{skill}",
                self.model.templates.value
            )));
        };
        for file in found {
            let text = file.text.clone().ok_or_else(|| problem(format!("{} is not text", file.source)))?;
            files.insert(file.path.clone(), text);
            read.insert(file.source.clone());
        }
        Ok(())
    }

    fn context<'s>(&'s self, agent: &'s Agent, role: &'s str) -> Context<'s> {
        let domain = &self.model.fleet.domain;
        let department = agent.department.as_ref().and_then(|name| self.model.org.departments.get(name));
        Context {
            agent: AgentFields {
                id: &agent.id,
                name: &agent.name,
                first_name: agent.name.split_whitespace().next().unwrap_or(&agent.name),
                title: &agent.title,
                level: agent.level.as_str(),
                department: agent.department.as_deref(),
                department_slug: department.map(|d| d.alias.clone()),
                team: agent.team.as_deref(),
                matrix_id: &agent.matrix_id,
                reports_to: agent.reports_to.as_deref(),
                reports_to_matrix_id: agent.reports_to.as_ref().map(|id| format!("@{id}:{domain}")),
                require_mention: agent.require_mention.value,
                heartbeat: span(agent.heartbeat_seconds.value),
            },
            fleet: FleetFields { name: &self.model.fleet.name, domain },
            skills: agent.skills.value.iter().map(String::as_str).collect(),
            role_template: role,
        }
    }

    fn derivation(&self, agent: &Agent, read: &BTreeSet<RelPath>) -> Derivation {
        let mut made = Derivation::new(address(agent));
        for path in read {
            if let Some(file) = self.sources.file(path) {
                let hash = Hash::from_bytes(file.hash);
                let input = Input::File { path: path.clone(), hash, executable: file.executable };
                made.input(path.as_str(), input, None);
            }
        }
        let at = |declared: &Option<Origin>| declared.clone().unwrap_or_else(|| agent.origin.clone());
        let own = Some(&agent.origin);
        made.value("name", &agent.name, own);
        made.value("title", &agent.title, own);
        made.value("level", agent.level.as_str(), own);
        made.value("department", agent.department.as_deref().unwrap_or(""), own);
        made.value("team", agent.team.as_deref().unwrap_or(""), own);
        made.value("reports-to", agent.reports_to.as_deref().unwrap_or(""), own);
        made.value("matrix-id", &agent.matrix_id, own);
        made.value("homeserver", self.homeserver, None);
        made.value("model", &agent.model.value.primary, Some(&at(&agent.model.origin)));
        made.value("model.fallbacks", agent.model.value.fallbacks.join(", "), Some(&at(&agent.model.origin)));
        let skills: Vec<&str> = agent.skills.value.iter().map(String::as_str).collect();
        made.value("skills", skills.join(", "), Some(&at(&agent.skills.origin)));
        let heartbeat = format!("{}s", agent.heartbeat_seconds.value);
        made.value("heartbeat", heartbeat, Some(&at(&agent.heartbeat_seconds.origin)));
        let mention = agent.require_mention.value.to_string();
        made.value("require-mention", mention, Some(&at(&agent.require_mention.origin)));
        for (name, provider) in openclaw::used_providers(agent, self.model) {
            let mut kind = provider.kind.clone();
            if let (true, ModelProviderKind::Bedrock { api_key, .. }) = (self.bedrock_by_role, &mut kind) {
                *api_key = None;
                made.value(format!("provider.{name}.by"), "role", Some(&provider.origin));
            }
            made.value(format!("provider.{name}"), json!(kind).to_string(), Some(&provider.origin));
        }
        made
    }
}

/// A template that cannot be rendered, as a problem of what wanted it.
#[must_use]
pub fn broken(address: Address, error: &RenderError) -> Problem {
    Problem {
        code: late::TEMPLATE,
        address,
        origin: error.origin(),
        what: error.to_string(),
        help: "templates see agent.*, fleet.*, skills and role_template; a name that is not there is an error, never an empty text".to_owned(),
    }
}

/// A span of time as a person says it: `90 seconds`, `1 minute`, `2 hours`; empty for none.
fn span(seconds: u32) -> String {
    let (count, unit) = match seconds {
        0 => return String::new(),
        whole if whole % 3_600 == 0 => (whole / 3_600, "hour"),
        whole if whole % 60 == 0 => (whole / 60, "minute"),
        rest => (rest, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `workspace/<id>`.
#[must_use]
pub fn address(agent: &Agent) -> Address {
    Address::new(Kind::Workspace, agent.id.clone())
}

/// What fleet-agent may write into the workspace: nothing else is ever touched.
fn manifest(files: &BTreeMap<String, SharedText>) -> String {
    let entries: Vec<_> = files
        .iter()
        .filter_map(|(path, file)| {
            let path = path.strip_prefix("files/")?;
            Some(json!({"path": path, "sha256": &*file.sha256, "mode": 0o644}))
        })
        .collect();
    format!("{:#}\n", json!({"schema": 1, "files": entries}))
}

/// One hash over everything generated: the manifest has the hash of each file but of itself and the configuration.
fn output(manifest: &str, configuration: &str) -> String {
    let mut all = Derivation::new(Address::new(Kind::Workspace, "output"));
    all.value("manifest.json", manifest, None);
    all.value("openclaw.json", configuration, None);
    format!("blake3:{}", all.hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_told_as_people_say_it() {
        let said = [0, 1, 60, 90, 1_800, 3_600, 5_400, 7_200].map(span);
        assert_eq!(said, ["", "1 second", "1 minute", "90 seconds", "30 minutes", "1 hour", "90 minutes", "2 hours"]);
    }
}
