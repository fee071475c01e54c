//! Plans and reasons as text and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use fleet_derivation::Input;
use fleet_model::Kind;
use fleet_plan::{Action, Change, Plan, Reason, ResourceChange};
use fleet_stacks::{Action as Does, Data, Replacement};
use serde_json::{Value, json};

use crate::ui::style::Style;

/// How many reasons of one change are shown before the rest is counted.
const REASONS: usize = 4;
/// A run of objects of one kind that are all created is folded when it is longer than this.
const FOLD: usize = 12;
/// A value of more characters is cut.
const LONG: usize = 60;

/// The plan as a screenful: what and why.
#[must_use]
pub fn text(plan: &Plan, style: Style) -> String {
    let mut out = String::new();
    if plan.changes.is_empty() {
        let _ = writeln!(out, "{}: nothing to do, {} objects are as declared.", plan.environment, plan.unchanged);
    } else {
        let _ = writeln!(out, "{}", style.strong(&format!("Plan for {} of {}", plan.environment, plan.fleet)));
        let width = plan.changes.iter().map(|c| c.address.to_string().len()).max().unwrap_or(0);
        let mut index = 0;
        while let Some(change) = plan.changes.get(index) {
            let folded = plan.changes[index..].iter().take_while(|other| folds_with(change, other)).count();
            if folded > FOLD {
                fold(&mut out, change, folded, style);
                index += folded;
            } else {
                one(&mut out, change, width, style);
                index += 1;
            }
        }
        let _ = writeln!(out, "\n{}", summary(plan));
    }
    for note in &plan.notes {
        let about = note.address.as_ref().map(|address| format!("{address} ")).unwrap_or_default();
        let _ = writeln!(out, "{} {about}{}", style.dim("note:"), note.text);
    }
    out
}

/// Things created because they are missing say nothing that their number does not.
fn folds_with(first: &Change, other: &Change) -> bool {
    let plain = |change: &Change| change.action == Action::Create && change.reasons == [Reason::Missing];
    plain(first) && plain(other) && first.address.kind == other.address.kind && first.address.kind != Kind::Image
}

fn fold(out: &mut String, change: &Change, count: usize, style: Style) {
    let sign = sign(change.action, style);
    let _ = writeln!(out, "  {sign} {count} of {}/…  {}", change.address.kind, style.dim("not there yet"));
}

fn sign(action: Action, style: Style) -> String {
    match action {
        Action::Create => style.good("+ create "),
        Action::Update => style.change("~ update "),
        Action::Replace => style.bad("! replace"),
        Action::Roll => style.change("↻ roll   "),
        Action::Delete => style.bad("- delete "),
    }
}

fn one(out: &mut String, change: &Change, width: usize, style: Style) {
    let sign = sign(change.action, style);
    let condition = if change.if_changed { "if needed: " } else { "" };
    let mut reasons = change.reasons.iter();
    let first = reasons.next().map(|reason| format!("{condition}{}", sentence(reason))).unwrap_or_default();
    let _ = writeln!(out, "  {sign} {:width$}  {first}", change.address.to_string());
    let indent = " ".repeat(width + 16);
    for reason in reasons.clone().take(REASONS - 1) {
        let _ = writeln!(out, "{indent}{}", sentence(reason));
    }
    let more = reasons.len().saturating_sub(REASONS - 1);
    if more > 0 {
        let _ = writeln!(out, "{indent}{}", style.dim(&format!("and {more} more; see `fleetctl diff`")));
    }
    for line in resources(change, false) {
        let _ = writeln!(out, "{indent}{line}");
    }
}

/// What happens to the resources of a stack, a line each. Unless `all` are asked for, those that are only made or changed in
/// place are counted, and so are those of a type when there are many; what holds data always has its own line.
#[must_use]
pub fn resources(change: &Change, all: bool) -> Vec<String> {
    let quiet = |resource: &ResourceChange| {
        !resource.touches_data() && resource.replacement == Replacement::Never && resource.action != Does::Remove
    };
    let shown: Vec<&ResourceChange> = change.resources.iter().filter(|resource| all || !quiet(resource)).collect();
    let (own, many): (Vec<_>, Vec<_>) =
        shown.iter().partition(|resource| all || shown.len() <= FOLD || resource.touches_data());
    let mut lines: Vec<String> = own.into_iter().map(resource).collect();
    let mut kinds: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for resource in many {
        *kinds.entry((&resource.kind, fate(resource))).or_default() += 1;
    }
    lines.extend(kinds.into_iter().map(|((kind, fate), count)| match count {
        1 => format!("1 {kind} {fate}"),
        _ => format!("{count} of {kind}, each {fate}"),
    }));
    for (action, words) in [(Does::Add, "made"), (Does::Modify, "changed in place")] {
        let count = change.resources.iter().filter(|one| !all && quiet(one) && one.action == action).count();
        match count {
            0 => {}
            1 => lines.push(format!("1 resource is {words}")),
            several => lines.push(format!("{several} resources are {words}")),
        }
    }
    lines
}

const fn fate(change: &ResourceChange) -> &'static str {
    match (change.action, change.replacement) {
        (Does::Add, _) => "is made",
        (Does::Remove, _) => "is removed",
        (Does::Modify, Replacement::Never) => "is changed in place",
        (Does::Modify, Replacement::Perhaps) => "is changed, perhaps replaced",
        (Does::Modify, Replacement::Always) => "is replaced",
    }
}

fn resource(change: &ResourceChange) -> String {
    let what = fate(change);
    let data = match change.data {
        Data::Untouched => "",
        Data::LeftBehind => "; what it holds is kept, outside of the stack",
        Data::Lost => "; WHAT IT HOLDS IS LOST",
    };
    let properties: Vec<&str> = change.properties.iter().map(String::as_str).collect();
    let because = if properties.is_empty() { String::new() } else { format!(" ({})", properties.join(", ")) };
    format!("{} {} {what}{because}{data}", change.kind, change.id)
}

fn summary(plan: &Plan) -> String {
    let count = |action| plan.changes.iter().filter(|change| change.action == action).count();
    let mut parts: Vec<String> = [
        (Action::Create, "to create"),
        (Action::Update, "to update"),
        (Action::Replace, "to replace"),
        (Action::Roll, "to roll"),
        (Action::Delete, "to delete"),
    ]
    .into_iter()
    .filter(|(action, _)| count(*action) > 0)
    .map(|(action, words)| format!("{} {words}", count(action)))
    .collect();
    parts.push(format!("{} unchanged", plan.unchanged));
    parts.join(", ")
}

/// One reason as a person would say it.
#[must_use]
pub fn sentence(reason: &Reason) -> String {
    match reason {
        Reason::Missing => "not there yet".to_owned(),
        Reason::Unwanted => "declared nowhere any more".to_owned(),
        Reason::Unknown => "what it derived from is not in .fleet/, so the difference is unknown".to_owned(),
        Reason::Drift { what } => what.clone(),
        Reason::Cascade { from } => format!("because {from} changed"),
        Reason::Input { input, before, after, origin } => {
            let place = origin.as_ref().map(|origin| format!("  ({origin})")).unwrap_or_default();
            format!("{}{place}", change_of(input, before.as_ref(), after.as_ref()))
        }
    }
}

fn change_of(input: &str, before: Option<&Input>, after: Option<&Input>) -> String {
    match (before, after) {
        (Some(Input::Value { text: before }), Some(Input::Value { text: after })) => {
            let (before, after) = around_difference(before, after);
            format!("{input}: {before} → {after}")
        }
        (Some(before), Some(after)) => format!("{input}: {} → {}", value(before), value(after)),
        (None, Some(after)) => format!("{input} added: {}", value(after)),
        (Some(before), None) => format!("{input} removed, was {}", value(before)),
        (None, None) => input.to_owned(),
    }
}

/// Two texts in a few words each: of long ones the part where they begin to differ.
fn around_difference(before: &str, after: &str) -> (String, String) {
    let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
    let long = |text: &str| text.chars().count() > LONG;
    let skip = if long(before) || long(after) { same.saturating_sub(LONG / 3) } else { 0 };
    let shown = |text: &str| {
        let rest: String = text.chars().skip(skip).collect();
        let dots = if skip > 0 { "…" } else { "" };
        format!("{dots}{}", value(&Input::Value { text: rest }))
    };
    (shown(before), shown(after))
}

/// An input's value in a few words: long values are cut, files show their hash.
#[must_use]
pub fn value(input: &Input) -> String {
    match input {
        Input::Value { text } if text.is_empty() => "nothing".to_owned(),
        Input::Value { text } if text.chars().count() > LONG => {
            format!("{}…", text.chars().take(LONG - 3).collect::<String>())
        }
        Input::Value { text } => text.clone(),
        Input::File { hash, executable, .. } => {
            format!("{}{}", hash.short(), if *executable { " (executable)" } else { "" })
        }
        Input::Derivation { hash, output, .. } => {
            output.as_ref().map_or_else(|| hash.short(), |output| output.chars().take(19).collect())
        }
        Input::Secret { name, epoch } => format!("{name}, epoch {epoch}"),
    }
}

/// The plan for programs: `{"schema":1,"environment":…,"changes":[{"address","action","reasons":[…]}],…}`.
#[must_use]
pub fn json(plan: &Plan) -> Value {
    let changes: Vec<Value> = plan
        .changes
        .iter()
        .map(|change| {
            let mut value = json!({
                "address": change.address,
                "action": change.action,
                "if_changed": change.if_changed,
                "reasons": change.reasons.iter().map(reason_json).collect::<Vec<_>>(),
                "before": change.before,
                "after": change.after,
            });
            if !change.resources.is_empty() {
                value["resources"] = json!(change.resources);
            }
            value
        })
        .collect();
    json!({
        "schema": plan.schema,
        "fleet": plan.fleet,
        "environment": plan.environment,
        "graph": plan.graph,
        "changes": changes,
        "unchanged": plan.unchanged,
        "notes": plan.notes,
    })
}

/// One reason for programs: its fields and the sentence that people see.
pub fn reason_json(reason: &Reason) -> Value {
    let mut value = json!(reason);
    if let Value::Object(fields) = &mut value {
        fields.insert("text".to_owned(), json!(sentence(reason)));
    }
    value
}
