//! Renderers of [`Event`]s: plain lines (CI, logs), a live terminal, and NDJSON. All read the same enum.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{IsTerminal, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fleet_apply::{Event, Events};
use fleet_model::Address;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{
    cli::Global,
    exit::Exit,
    ui::{
        out::{self, tell},
        style::Style,
    },
};

/// Version of the NDJSON lines.
const SCHEMA: u32 = 1;
/// Plain output repeats progress of one object at most this often.
const PLAIN_EVERY: Duration = Duration::from_secs(15);

/// Sends every event to a person and, where asked, to a file.
pub struct Console {
    style: Style,
    live: Option<MultiProgress>,
    bars: Mutex<BTreeMap<Address, ProgressBar>>,
    told: Mutex<BTreeMap<Address, Instant>>,
    summary: Mutex<Option<serde_json::Value>>,
    lines: Option<Mutex<Box<dyn Write + Send>>>,
}

impl Console {
    /// As the global options say.
    ///
    /// # Errors
    /// When the events file cannot be written.
    pub fn new(global: &Global) -> std::io::Result<Self> {
        let live = std::io::stderr().is_terminal() && global.color != crate::cli::Color::Never;
        let lines = global.events.as_deref().map(open).transpose()?;
        let console = Self {
            style: Style::stderr(global.color),
            live: live.then(MultiProgress::new),
            bars: Mutex::default(),
            told: Mutex::default(),
            summary: Mutex::default(),
            lines: lines.map(Mutex::new),
        };
        console.line(&json!({"event": "begin", "schema": SCHEMA, "tool": env!("CARGO_PKG_VERSION")}));
        Ok(console)
    }

    /// Keeps what the last line of the event stream is to say.
    pub fn summarize(&self, summary: serde_json::Value) {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary);
    }

    /// Writes the last line of the event stream. Call it once, when nothing else is to come.
    pub fn end(&self, exit: Exit) {
        let summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.line(&json!({
            "event": "summary", "exit": exit as u8, "outcome": exit.word(), "summary": summary.unwrap_or_else(|| json!({})),
        }));
    }

    fn line(&self, value: &serde_json::Value) {
        let Some(lines) = &self.lines else { return };
        let mut value = value.clone();
        if let (Some(fields), Ok(now)) = (value.as_object_mut(), SystemTime::now().duration_since(UNIX_EPOCH)) {
            fields.insert("at_ms".to_owned(), json!(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)));
        }
        let mut out = lines.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop an apply half-way; the console still tells what happens.
        let _ = writeln!(out, "{value}");
    }

    fn say(&self, text: &str) {
        match &self.live {
            Some(live) => drop(live.println(text)),
            None => tell!("{text}"),
        }
    }

    fn begin(&self, address: &Address, action: &str) {
        let Some(live) = &self.live else {
            self.say(&format!("  … {address}  {action}"));
            return;
        };
        let bar = live.add(ProgressBar::new_spinner());
        if let Ok(template) = ProgressStyle::with_template("  {spinner} {prefix}  {wide_msg:.dim} {elapsed:.dim}") {
            bar.set_style(template);
        }
        bar.set_prefix(address.to_string());
        bar.set_message(action.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bars.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone(), bar);
    }

    fn progress(&self, address: &Address, what: &str) {
        if let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).get(address) {
            bar.set_message(what.to_owned());
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.get(address).is_none_or(|last| last.elapsed() >= PLAIN_EVERY);
        if due && self.live.is_none() {
            told.insert(address.clone(), Instant::now());
            tell!("    {address}  {what}");
        }
    }

    fn finish(&self, address: &Address) {
        if let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).remove(address) {
            bar.finish_and_clear();
        }
    }
}

impl Events for Console {
    fn emit(&self, event: Event) {
        self.line(&json!(event));
        match &event {
            Event::Started { address, action } => self.begin(address, &action.to_string()),
            Event::Progress { address, what } => self.progress(address, what),
            Event::Finished { address, changed, millis } => {
                self.finish(address);
                let took = format!("{:.1} s", Duration::from_millis(*millis).as_secs_f64());
                let verdict = if *changed { self.style.good("done") } else { self.style.dim("was right") };
                self.say(&format!("  {} {address}  {verdict}  {}", self.style.good("✓"), self.style.dim(&took)));
            }
            Event::Failed { address, why, last_lines } => {
                self.finish(address);
                self.say(&format!("  {} {address}  {why}", self.style.bad("✗")));
                for line in last_lines {
                    self.say(&format!("      | {line}"));
                }
            }
            Event::Notice { text } => self.say(&format!("  {text}")),
            Event::Call { .. } => {}
        }
    }
}

fn open(path: &Path) -> std::io::Result<Box<dyn Write + Send>> {
    if path.as_os_str() != "-" {
        return Ok(Box::new(File::create(path)?));
    }
    out::take_stdout();
    Ok(Box::new(std::io::stdout()))
}
