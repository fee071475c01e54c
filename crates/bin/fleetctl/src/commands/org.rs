//! `org pick`: names for counts. Counts never deploy anybody; the names do, once a person wrote them down.

use std::collections::BTreeSet;

use fleet_model::model::{Level, Model, Person};

use crate::{
    cli::OrgCommand,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    project::Opened,
};

/// `fleetctl org`.
///
/// # Errors
/// An unknown department; a count that the department cannot fill.
pub fn org(context: &Context, command: &OrgCommand) -> Outcome {
    let OrgCommand::Pick { department, vp, directors, managers, ics } = command;
    let opened = Opened::open(&context.global)?;
    let model = opened.model(&context.global)?;
    if !model.org.departments.contains_key(department) {
        let known: Vec<&str> = model.org.departments.keys().map(String::as_str).collect();
        return Err(Failure::new(Exit::Usage, format!("there is no department `{department}`"))
            .hint(format!("there are: {}", known.join(", "))));
    }
    let counts = [(Level::Vp, *vp), (Level::Director, *directors), (Level::Manager, *managers), (Level::Ic, *ics)];
    let picked = pick(&model, department, &counts)?;
    if context.json() {
        print_json(&serde_json::json!({"schema": 1, "department": department, "deploy": picked}));
        return Ok(Exit::Done);
    }
    let names: Vec<String> = picked.iter().map(|id| format!("\"{id}\"")).collect();
    print_out(&format!("deploy {}\n", names.join(" ")));
    Ok(Exit::Done)
}

/// The first by id of each level that stand under those picked of the levels above. Levels of which none are asked for are
/// passed over, and so are humans and other departments: who has nobody else above them needs nobody.
fn pick(model: &Model, department: &str, counts: &[(Level, usize)]) -> Result<Vec<String>, Failure> {
    let mut picked: Vec<String> = Vec::new();
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    let mut above: Vec<Level> = Vec::new();
    for (level, count) in counts.iter().filter(|(_, count)| *count > 0) {
        let fits = |person: &&Person| {
            person.level == *level
                && !person.human
                && person.department.as_deref() == Some(department)
                && superior(model, person, &above).is_none_or(|superior| chosen.contains(superior.id.as_str()))
        };
        let found: Vec<&str> = model.org.people.values().filter(fits).take(*count).map(|p| p.id.as_str()).collect();
        if found.len() < *count {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "{department} has only {} of level {} under those picked, not {count}",
                    found.len(),
                    level.as_str()
                ),
            )
            .hint("pick more of the level above, or fewer of this one"));
        }
        picked.extend(found.iter().map(|id| (*id).to_owned()));
        chosen.extend(found);
        above.push(*level);
    }
    Ok(picked)
}

/// The nearest above a person, along the reporting line, who is of one of these levels and could be picked.
fn superior<'m>(model: &'m Model, person: &'m Person, levels: &[Level]) -> Option<&'m Person> {
    let line = std::iter::successors(manager(model, person), |one| manager(model, one));
    // The checks refuse reporting cycles; the bound keeps this from relying on it.
    line.take(model.org.people.len())
        .find(|one| !one.human && one.department == person.department && levels.contains(&one.level))
}

fn manager<'m>(model: &'m Model, person: &Person) -> Option<&'m Person> {
    model.org.people.get(person.reports_to.as_deref()?)
}
