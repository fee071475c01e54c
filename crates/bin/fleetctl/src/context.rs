//! [`Context`]: what every command is given.

use std::sync::{Arc, OnceLock};

use crate::{
    cli::{Format, Global},
    error::Failure,
    exit::Exit,
    interrupts::Interrupts,
    machine::Machine,
    programs::Programs,
    ui::{
        events::Console,
        out::{self, tell},
        style::Style,
    },
};

/// What every command is given.
pub struct Context {
    /// Global options.
    pub global: Global,
    /// Where events go.
    pub console: Arc<Console>,
    /// What is around this process.
    pub machine: Machine,
    /// The agent runtime, once it was looked for.
    pub agent: OnceLock<Programs>,
    /// What Ctrl-C does.
    pub interrupts: Arc<Interrupts>,
    /// Colours of stdout.
    pub style: Style,
}

impl Context {
    /// Reads the environment and opens the event stream.
    ///
    /// # Errors
    /// An events file that cannot be written.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let console = Console::new(global)
            .map_err(|error| Failure::caused(Exit::Failed, "the events file cannot be written", &error))?;
        Ok(Self {
            console: Arc::new(console),
            machine: Machine::read(),
            agent: OnceLock::new(),
            interrupts: Arc::default(),
            style: Style::stdout(global.color),
            global: global.clone(),
        })
    }

    /// Says what the store found damaged; it was treated as missing.
    pub fn tell_notes(&self, store: &fleet_store::Store) {
        for note in store.take_notes() {
            tell!("warning: .fleet/: {note}");
        }
    }

    /// Output is for programs.
    #[must_use]
    pub fn json(&self) -> bool {
        self.global.format == Format::Json
    }
}

/// Prints one JSON value on stdout.
pub fn print_json(value: &serde_json::Value) {
    print_out(&format!("{value:#}\n"));
}

/// Prints data on stdout; a reader that went away is not an error.
pub fn print_out(text: &str) {
    out::to_stdout(text);
}
