//! `verify`: would an `apply` of this environment work? Asked of its account or its engine before anything is made. Only reads.
//!
//! What files can tell is `check`'s, and what would change is `plan`'s: neither is said again.

mod aws;
mod docker;

use fleet_model::model::Target;
use fleet_plan::verify::{Finding, Verdict};
use serde_json::json;

use crate::{
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    ui::{style::Style, table::Table},
};

/// `fleetctl verify`.
///
/// # Errors
/// Mistakes in `fleet.kdl`; no credentials, those of another account, AWS or the engine out of reach.
pub async fn verify(context: &Context, environment: &str) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let findings = match prepared.environment()?.target {
        Target::Docker => docker::findings(context, &prepared).await?,
        Target::Aws { .. } => aws::findings(context, &prepared).await?,
    };
    if context.json() {
        print_json(&json!({"schema": 1, "environment": environment, "findings": findings}));
    } else {
        print_out(&text(environment, &findings, context.style));
    }
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Unseen => "not seen",
        Verdict::Warning => "warning",
        Verdict::Failed => "FAILED",
    }
}

/// A line per finding; below, what to do about those that are not well; last, how many there are of each.
fn text(environment: &str, findings: &[Finding], style: Style) -> String {
    let mut table = Table::default();
    for finding in findings {
        let needed = finding.needed.as_ref().map(|needed| format!("; needs {needed}")).unwrap_or_default();
        let found = format!("{}{needed}", finding.found);
        table.row([word(finding.verdict), finding.what.as_str(), found.as_str()]);
    }
    let lines = table.text();
    let paint = |(line, finding): (&str, &Finding)| match finding.verdict {
        Verdict::Ok => format!("{line}\n"),
        Verdict::Unseen => format!("{}\n", style.dim(line)),
        Verdict::Warning => format!("{}\n", style.change(line)),
        Verdict::Failed => format!("{}\n", style.bad(line)),
    };
    let mut text: String = lines.lines().zip(findings).map(paint).collect();
    let todo = findings.iter().filter_map(|finding| Some((finding.what.as_str(), finding.remedy.as_deref()?)));
    let todo: Vec<String> = todo.map(|(what, remedy)| format!("  {what}: {remedy}\n")).collect();
    if !todo.is_empty() {
        text.push_str(&format!("\nto do:\n{}\n", todo.concat()));
    }
    text.push_str(&format!("{environment}: {}\n", counted(findings)));
    text
}

fn counted(findings: &[Finding]) -> String {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let all = [
        (count(Verdict::Failed), "would make `apply` fail"),
        (count(Verdict::Warning), "to know of"),
        (count(Verdict::Unseen), "could not be looked at"),
        (count(Verdict::Ok), "as needed"),
    ];
    all.iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// That we are allowed in, as whom.
fn identity(what: &str, found: impl Into<String>) -> Finding {
    Finding::new(Verdict::Ok, what, found)
}

/// Images that an environment's tasks or containers run, with the platforms that they are declared for.
fn images(prepared: &Prepared) -> Result<Vec<(&str, &[String])>, Failure> {
    let environment = prepared.environment()?;
    let agents = prepared.resolved.agents.values().map(|agent| agent.image.value.as_str());
    let services = [
        Some(environment.homeserver.image.as_str()),
        environment.web.as_ref().map(|web| web.image.as_str()),
        environment.manager.as_ref().map(|manager| manager.image.as_str()),
    ];
    let mut names: Vec<&str> = agents.chain(services.into_iter().flatten()).collect();
    names.sort_unstable();
    names.dedup();
    let declared = |name| prepared.model.images.get_key_value(name);
    Ok(names
        .into_iter()
        .filter_map(declared)
        .map(|(name, image)| (name.as_str(), image.platforms.as_slice()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_line_up_and_what_to_do_stands_below() {
        let findings = [
            Finding::new(Verdict::Ok, "VPCs", "5 there").needs("1"),
            Finding::new(Verdict::Failed, "elastic IPs", "5 there, 5 taken by others").needs("1").remedy("ask for 6"),
            Finding::new(Verdict::Unseen, "IAM roles", "could not be looked at: no"),
        ];
        assert_eq!(
            text("dev", &findings, Style::plain()),
            "  ok        VPCs         5 there; needs 1\n\
             \x20 FAILED    elastic IPs  5 there, 5 taken by others; needs 1\n\
             \x20 not seen  IAM roles    could not be looked at: no\n\
             \n\
             to do:\n\
             \x20 elastic IPs: ask for 6\n\
             \n\
             dev: 1 would make `apply` fail, 1 could not be looked at, 1 as needed\n"
        );
    }
}
