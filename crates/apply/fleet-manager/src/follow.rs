//! [`Follow`]: progress of one object of work, as the operator reads it.

use std::{collections::BTreeMap, time::SystemTime};

use fleet_apply::{Event, Events};
use fleet_model::Address;

use crate::{
    mailbox::{MailError, Mailbox},
    protocol::{self, End, Line},
};

/// Progress read so far.
pub struct Follow {
    mailbox: Mailbox,
    /// The work's id.
    pub id: String,
    last: u32,
    /// How changes ended so far.
    pub ends: BTreeMap<Address, End>,
    /// It is over.
    pub over: bool,
    /// When something was heard last.
    pub heard: SystemTime,
}

impl Follow {
    /// From its beginning.
    pub const fn new(mailbox: Mailbox, id: String, now: SystemTime) -> Self {
        Self { mailbox, id, last: 0, ends: BTreeMap::new(), over: false, heard: now }
    }

    /// Reads what is new; true: there was something.
    pub async fn read(&mut self, events: &dyn Events) -> Result<bool, MailError> {
        let mut news = false;
        for (number, lines) in self.mailbox.pieces(&self.id, self.last).await? {
            self.last = number;
            match lines {
                Ok(lines) => {
                    news = true;
                    lines.into_iter().for_each(|line| self.take(line, events));
                }
                // Not from the manager: it counts for nothing, and not as a sign of life.
                Err(why) => {
                    let object = protocol::piece_object(&self.id, number);
                    events.emit(Event::Notice { text: format!("{object} is ignored: {why}") });
                }
            }
        }
        Ok(news)
    }

    fn take(&mut self, line: Line, events: &dyn Events) {
        match line {
            // Beginning and end are told by whoever asked for the change.
            Line::Told { event: Event::Started { .. } | Event::Finished { .. } | Event::Failed { .. } }
            | Line::Begun { .. } => {}
            Line::Told { event } => events.emit(event),
            Line::Alive { what } => events.emit(Event::Notice { text: format!("service/manager {what}") }),
            Line::Ended { address, end } => drop(self.ends.insert(address, end)),
            Line::Summary { ends } => {
                self.ends.extend(ends);
                self.over = true;
            }
        }
    }
}
