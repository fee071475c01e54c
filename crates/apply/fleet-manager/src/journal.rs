//! [`Journal`]: the progress of one object of work, written piece by piece, and read by whoever goes on with it.
//!
//! A piece is written only where there is none of its number: of two managers that go on with the same work, one is told
//! so before it makes its next change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use fleet_apply::{Applied, Event, Events, Provider, ProviderError, Ready};
use fleet_model::Address;
use fleet_plan::{Change, State};

use crate::{
    mailbox::{MailError, Mailbox},
    protocol::{self, End, Line},
};

/// What earlier pieces tell.
#[derive(Debug, Default)]
pub struct Past {
    /// Number of the last piece, whoever wrote it.
    pub last: u32,
    /// Changes that were begun.
    pub begun: BTreeSet<Address>,
    /// How changes ended.
    pub ends: BTreeMap<Address, End>,
    /// It is over.
    pub over: bool,
}

impl Past {
    /// Reads it.
    pub async fn read(mailbox: &Mailbox, id: &str) -> Result<Self, MailError> {
        let mut past = Self::default();
        for (number, lines) in mailbox.pieces(id, 0).await? {
            past.last = number;
            // A piece that nobody vouches for tells nothing; its number is taken all the same.
            for line in lines.into_iter().flatten() {
                match line {
                    Line::Begun { address } => drop(past.begun.insert(address)),
                    Line::Ended { address, end } => drop(past.ends.insert(address, end)),
                    Line::Summary { .. } => past.over = true,
                    Line::Told { .. } | Line::Alive { .. } => {}
                }
            }
        }
        Ok(past)
    }
}

/// Progress being written.
pub struct Journal<'a> {
    mailbox: &'a Mailbox,
    id: &'a str,
    waiting: Mutex<Vec<Line>>,
    ends: Mutex<BTreeMap<Address, End>>,
    /// Number of the last piece; held while one is written.
    last: tokio::sync::Mutex<u32>,
}

impl<'a> Journal<'a> {
    /// Goes on after what was written.
    pub fn after(mailbox: &'a Mailbox, id: &'a str, past: &Past) -> Self {
        Self {
            mailbox,
            id,
            waiting: Mutex::default(),
            ends: Mutex::default(),
            last: tokio::sync::Mutex::new(past.last),
        }
    }

    /// Notes a line for the next piece.
    pub fn note(&self, line: Line) {
        if let Line::Ended { address, end } = &line {
            self.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone(), end.clone());
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// How changes ended since this journal was begun.
    pub fn ends(&self) -> BTreeMap<Address, End> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what was noted; true: there was something.
    pub async fn flush(&self) -> Result<bool, MailError> {
        let mut last = self.last.lock().await;
        let lines = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if lines.is_empty() {
            return Ok(false);
        }
        let number = *last + 1;
        let object = protocol::piece_object(self.id, number);
        let text = protocol::seal_piece(&self.mailbox.key, self.id, number, &lines);
        let written = match self.mailbox.put_new(&object, text.clone()).await {
            Ok(true) => Ok(()),
            // It may be ours: the answer to an attempt was lost.
            Ok(false) => match self.mailbox.get(&object).await {
                Ok(found) if found.as_deref() == Some(text.as_bytes()) => Ok(()),
                Ok(_) => Err(MailError::Overtaken(object)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => *last = number,
            Err(error) => {
                // Nothing that was noted is lost by a bucket that does not answer for a while.
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.splice(0..0, lines);
                return Err(error);
            }
        }
        Ok(true)
    }
}

/// A provider that writes down what it is about to do before it does it.
pub struct Journaled<'a> {
    pub provider: &'a dyn Provider,
    pub journal: &'a Journal<'a>,
}

#[async_trait]
impl Provider for Journaled<'_> {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn owns(&self, address: &Address) -> bool {
        self.provider.owns(address)
    }

    async fn observe(&self, wanted: &[Address]) -> Result<State, ProviderError> {
        self.provider.observe(wanted).await
    }

    async fn apply(&self, change: &Change, ready: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        let address = &change.address;
        self.journal.note(Line::Begun { address: address.clone() });
        if let Err(error) = self.journal.flush().await {
            let why = format!("nothing was begun, since it could not be written down: {error}");
            return Err(ProviderError::failed(address, why));
        }
        let told = Told { journal: self.journal, events };
        let result = self.provider.apply(change, ready, &told).await;
        self.journal.note(Line::Ended { address: address.clone(), end: End::of(&result) });
        result
    }
}

/// Events of a provider, to the journal and to the manager's own log.
struct Told<'a> {
    journal: &'a Journal<'a>,
    events: &'a dyn Events,
}

impl Events for Told<'_> {
    fn emit(&self, event: Event) {
        // Who is killed by its log, as tests do, has told nobody.
        self.events.emit(event.clone());
        self.journal.note(Line::Told { event });
    }
}
