//! Inside GitHub Actions: diagnostics become annotations on their lines, plans the job's summary and output.
//!
//! Deliberately absent: comments on pull requests and credentials, which need GitHub's interface.

use std::{
    env,
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    sync::atomic::{AtomicUsize, Ordering},
};

use fleet_model::{Diagnostic, Severity};
use fleet_plan::Plan;

use crate::ui::{out::tell, plan, style::Style};

/// GitHub shows no more annotations of one kind for a step.
const ANNOTATIONS: usize = 10;
/// GitHub refuses summaries above 1 MiB.
const SUMMARY_BYTES: usize = 900 << 10;

static ANNOTATED: AtomicUsize = AtomicUsize::new(0);

fn here() -> bool {
    env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true")
}

/// Puts a diagnostic on the line that it is about; the first ones only.
pub fn annotate(diagnostic: &Diagnostic) {
    if here() && ANNOTATED.fetch_add(1, Ordering::Relaxed) < ANNOTATIONS {
        tell!("{}", annotation(diagnostic));
    }
}

fn annotation(diagnostic: &Diagnostic) -> String {
    let kind = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Advice => "notice",
    };
    let place = diagnostic
        .origin
        .as_ref()
        .map(|o| format!("file={},line={},", property(o.file.as_str()), o.line))
        .unwrap_or_default();
    let help = diagnostic.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    format!(
        "::{kind} {place}title={}::{}",
        property(diagnostic.code),
        message(&format!("{}{help}", diagnostic.message))
    )
}

/// Workflow commands are lines; what would end one is written as GitHub unescapes it.
fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

/// Adds a plan to the job's summary, and how many changes it has to the step's outputs (`changes`).
pub fn summarize(made: &Plan) {
    if !here() {
        return;
    }
    let mut text = format!("### fleetctl: {} of {}\n\n```text\n", made.environment, made.fleet);
    let _ = write!(text, "{}", plan::text(made, Style::plain()).replace("```", "'''"));
    if text.len() > SUMMARY_BYTES {
        text.truncate(text.floor_char_boundary(SUMMARY_BYTES));
        text.push_str("\n… cut here; the log has all of it\n");
    }
    text.push_str("```\n");
    append("GITHUB_STEP_SUMMARY", &text);
    append("GITHUB_OUTPUT", &format!("changes={}\n", made.changes.len()));
}

fn append(variable: &str, text: &str) {
    let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) else { return };
    let written =
        OpenOptions::new().append(true).create(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    if let Err(error) = written {
        tell!("warning: {variable}: {error}");
    }
}
