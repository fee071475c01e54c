//! [`Channel`]: one end of a data channel: numbers what it sends, keeps it until it was acknowledged, sends it again where it was
//! not, and puts what arrives in order, each once.
//!
//! Pure: time is an argument, and what is to be sent is returned. The rules are those of the official ends (`streaming.go` of
//! session-manager-plugin, `datachannel.go` of amazon-ssm-agent), with three differences: what arrives a second time is
//! acknowledged a second time, what is known to be missing is sent again at once and not only the oldest, and nothing is ever
//! dropped from what waits to be acknowledged: [`Channel::has_room`] says when to wait. An agent does not acknowledge twice; what it
//! must have had is let go of after [`HAD`].

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::json;

use super::message::{ALONE, Acknowledged, Closing, Id, Kind, Malformed, Message};

/// Messages that may wait to be acknowledged.
const WINDOW: usize = 512;
/// Messages that are kept until those before them arrive, and bytes of them.
const EARLY: usize = 10_000;
const EARLY_BYTES: usize = 16 << 20;
/// How long until a message is sent again, before a round trip was measured; and what it stays between afterwards.
const FIRST_TIMEOUT: Duration = Duration::from_millis(200);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(50);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(1);
/// However much before it waits, a message is sent again after so long: an agent that has what is before it may have said so, once,
/// and not been heard. So many of them at a time.
const LATE: Duration = Duration::from_secs(2);
const LATE_AT_ONCE: usize = 16;
/// A message that is unacknowledged for so long while later ones are acknowledged has arrived: its acknowledgement was lost.
const HAD: Duration = Duration::from_secs(30);
/// For so long nothing was heard while something waited to be acknowledged: nobody is there.
const DEAD: Duration = Duration::from_secs(300);

/// What arrived, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Stream data.
    Data {
        /// One of `payload`.
        payload_type: u32,
        payload: Bytes,
    },
    /// The other end says that the session is over, and perhaps why.
    Closed(String),
}

/// What became of bytes that arrived.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// To be sent.
    pub reply: Option<Bytes>,
    pub heard: Vec<Heard>,
}

/// A message that was not acknowledged yet.
#[derive(Debug)]
struct Sent {
    bytes: Bytes,
    /// When it was sent first and last. The first begins again with a new socket.
    first: Duration,
    last: Duration,
    again: bool,
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    sends: Kind,
    hears: Kind,
    /// Milliseconds since 1970 at time 0.
    epoch: u64,
    random: fastrand::Rng,
    /// Number of the next message to be sent.
    next: i64,
    unacknowledged: BTreeMap<i64, Sent>,
    /// The highest number that was acknowledged.
    acknowledged: i64,
    /// Number of the next message that is expected.
    expected: i64,
    early: BTreeMap<i64, (u32, Bytes)>,
    early_bytes: usize,
    paused: bool,
    /// When something was heard last.
    heard: Duration,
    trip: Option<Trip>,
}

/// A round trip (RFC 6298, section 2).
#[derive(Clone, Copy, Debug)]
struct Trip {
    smooth: Duration,
    variation: Duration,
}

impl Channel {
    /// The client's end; time 0 is `now`.
    pub(super) fn client(now: std::time::SystemTime, random: fastrand::Rng) -> Self {
        let epoch =
            now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Self::new(Kind::Input, Kind::Output, epoch, random)
    }

    fn new(sends: Kind, hears: Kind, epoch: u64, random: fastrand::Rng) -> Self {
        Self {
            sends,
            hears,
            epoch,
            random,
            next: 0,
            unacknowledged: BTreeMap::new(),
            acknowledged: -1,
            expected: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            paused: false,
            heard: Duration::ZERO,
            trip: None,
        }
    }

    /// Whether anything new may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.unacknowledged.len() < WINDOW && !self.paused
    }

    /// The bytes of a message of stream data.
    pub(super) fn send(&mut self, payload_type: u32, payload: Bytes, now: Duration) -> Bytes {
        let sequence = self.next;
        self.next += 1;
        let bytes = self.message(self.sends.clone(), (sequence, 0), (payload_type, payload), now).encode();
        let sent = Sent { bytes: bytes.clone(), first: now, last: now, again: false };
        self.unacknowledged.insert(sequence, sent);
        bytes
    }

    fn message(
        &mut self,
        kind: Kind,
        (sequence, flags): (i64, u64),
        (payload_type, payload): (u32, Bytes),
        now: Duration,
    ) -> Message {
        let created = self.epoch.saturating_add(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Message { kind, created, sequence, flags, id: Id::random(&mut self.random), payload_type, payload }
    }

    /// Takes what arrived.
    ///
    /// # Errors
    /// Bytes that are no message; nothing was taken.
    pub(super) fn receive(&mut self, bytes: &Bytes, now: Duration) -> Result<Received, Malformed> {
        let message = Message::decode(bytes)?;
        self.heard = now;
        let mut received = Received::default();
        match &message.kind {
            Kind::Pause => self.paused = true,
            Kind::Start => self.paused = false,
            Kind::Closed => {
                let closing: Closing = serde_json::from_slice(&message.payload).unwrap_or_default();
                received.heard.push(Heard::Closed(closing.output.trim().to_owned()));
            }
            Kind::Acknowledge => {
                // Who acknowledges is there again.
                self.paused = false;
                if let Ok(Acknowledged { sequence, .. }) = serde_json::from_slice(&message.payload) {
                    self.acknowledged(sequence, now);
                }
            }
            kind if *kind == self.hears => {
                self.paused = false;
                self.take(message, now, &mut received);
            }
            _ => {}
        }
        Ok(received)
    }

    fn take(&mut self, message: Message, now: Duration, received: &mut Received) {
        let ahead = message.sequence > self.expected;
        let kept = self.early.contains_key(&message.sequence);
        let full = self.early.len() >= EARLY || self.early_bytes + message.payload.len() > EARLY_BYTES;
        if ahead && !kept && full {
            // Unacknowledged, so that it comes again.
            return;
        }
        received.reply = Some(self.acknowledgement(&message, now));
        if ahead && !kept {
            self.early_bytes += message.payload.len();
            self.early.insert(message.sequence, (message.payload_type, message.payload));
        } else if message.sequence == self.expected {
            self.expected += 1;
            received.heard.push(Heard::Data { payload_type: message.payload_type, payload: message.payload });
            while let Some((payload_type, payload)) = self.early.remove(&self.expected) {
                self.expected += 1;
                self.early_bytes -= payload.len();
                received.heard.push(Heard::Data { payload_type, payload });
            }
        }
    }

    fn acknowledgement(&mut self, of: &Message, now: Duration) -> Bytes {
        let content = json!(Acknowledged {
            kind: of.kind.name().to_owned(),
            id: of.id.to_string(),
            sequence: of.sequence,
            sequential: true,
        });
        let content = (0, Bytes::from(content.to_string()));
        self.message(Kind::Acknowledge, (0, ALONE), content, now).encode()
    }

    fn acknowledged(&mut self, sequence: i64, now: Duration) {
        let Some(sent) = self.unacknowledged.remove(&sequence) else { return };
        self.acknowledged = self.acknowledged.max(sequence);
        // Of what was sent twice nobody knows which one was acknowledged.
        if sent.again {
            return;
        }
        let took = now.saturating_sub(sent.last);
        self.trip = Some(match self.trip {
            None => Trip { smooth: took, variation: took / 2 },
            Some(Trip { smooth, variation }) => {
                Trip { variation: (variation * 3 + smooth.abs_diff(took)) / 4, smooth: (smooth * 7 + took) / 8 }
            }
        });
    }

    fn timeout(&self) -> Duration {
        let Some(Trip { smooth, variation }) = self.trip else { return FIRST_TIMEOUT };
        (smooth + variation * 4).clamp(SHORTEST_TIMEOUT, LONGEST_TIMEOUT)
    }

    /// What is to be sent again by now: of what was not acknowledged in time the oldest, everything before something that was
    /// acknowledged, and some of what has waited for [`LATE`]. All of it together would only fill the queues that made it late.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Bytes> {
        let (timeout, acknowledged) = (self.timeout(), self.acknowledged);
        self.unacknowledged.retain(|sequence, sent| *sequence > acknowledged || now.saturating_sub(sent.first) < HAD);
        if self.paused {
            return Vec::new();
        }
        let (mut due, mut late) = (Vec::new(), 0);
        for (at, (sequence, sent)) in self.unacknowledged.iter_mut().enumerate() {
            let waited = now.saturating_sub(sent.last);
            let first = at == 0 || *sequence <= acknowledged;
            if first && waited >= timeout || !first && waited >= LATE && late < LATE_AT_ONCE {
                (sent.last, sent.again) = (now, true);
                due.push(sent.bytes.clone());
                late += usize::from(!first);
            }
        }
        due
    }

    /// When [`due`](Self::due) may have something; `None` while nothing waits.
    pub(super) fn next_look(&self, now: Duration) -> Option<Duration> {
        let oldest = self.unacknowledged.values().next()?;
        Some((oldest.last + self.timeout()).max(now + SHORTEST_TIMEOUT / 2))
    }

    /// Whether the other end has been silent for so long that it is not there.
    pub(super) fn is_dead(&self, now: Duration) -> bool {
        let waits = |oldest: &Sent| now.saturating_sub(oldest.first.max(self.heard)) >= DEAD;
        !self.paused && self.unacknowledged.values().next().is_some_and(waits)
    }

    /// Nobody listened until now: that nothing was heard says nothing.
    pub(super) const fn listens(&mut self, now: Duration) {
        self.heard = now;
    }

    /// On a new socket: everything that may have gone with the former one, in order.
    pub(super) fn again(&mut self, now: Duration) -> Vec<Bytes> {
        self.paused = false;
        let all = self.unacknowledged.values_mut().map(|sent| {
            (sent.first, sent.last, sent.again) = (now, now, true);
            sent.bytes.clone()
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::{super::message::payload, *};

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn ends() -> (Channel, Channel) {
        let client = Channel::new(Kind::Input, Kind::Output, 1_700_000_000_000, fastrand::Rng::with_seed(1));
        let agent = Channel::new(Kind::Output, Kind::Input, 1_700_000_000_000, fastrand::Rng::with_seed(2));
        (client, agent)
    }

    fn words(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn data(text: &'static str) -> Heard {
        Heard::Data { payload_type: payload::BYTES, payload: words(text) }
    }

    /// A line that loses, repeats and reorders what is given to it.
    struct Line {
        random: fastrand::Rng,
        under_way: VecDeque<Bytes>,
    }

    impl Line {
        fn put(&mut self, message: Bytes) {
            for _ in 0..[0, 1, 1, 1, 1, 2][self.random.usize(..6)] {
                let at = self.under_way.len().saturating_sub(self.random.usize(..4));
                self.under_way.insert(at, message.clone());
            }
        }
    }

    /// Everything that `to` heard by the time that nothing is missing any more.
    fn carried(
        from: &mut Channel,
        to: &mut Channel,
        messages: &[Bytes],
        seed: u64,
        acknowledges_twice: bool,
    ) -> Vec<Bytes> {
        let line = |seed| Line { random: fastrand::Rng::with_seed(seed), under_way: VecDeque::new() };
        let (mut there, mut back) = (line(seed), line(seed.wrapping_add(1)));
        let (mut heard, mut left) = (Vec::new(), messages.iter());
        let mut had = std::collections::BTreeSet::new();
        for step in 0..200_000 {
            let now = MILLISECOND * step;
            if from.has_room()
                && let Some(message) = left.next()
            {
                there.put(from.send(payload::BYTES, message.clone(), now));
            }
            from.due(now).into_iter().for_each(|message| there.put(message));
            if let Some(bytes) = there.under_way.pop_front() {
                let received = to.receive(&bytes, now).unwrap();
                let first = had.insert(Message::decode(&bytes).unwrap().sequence);
                received.reply.into_iter().filter(|_| first || acknowledges_twice).for_each(|reply| back.put(reply));
                heard.extend(received.heard.into_iter().map(|heard| match heard {
                    Heard::Data { payload, .. } => payload,
                    other @ Heard::Closed(_) => panic!("{other:?}"),
                }));
            }
            if let Some(bytes) = back.under_way.pop_front() {
                from.receive(&bytes, now).unwrap();
            }
            // Whose last acknowledgement was lost never gets another one from an agent.
            if heard.len() == messages.len() && (from.unacknowledged.is_empty() || !acknowledges_twice) {
                return heard;
            }
        }
        panic!("{} of {} arrived, {} are unacknowledged", heard.len(), messages.len(), from.unacknowledged.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

        #[test]
        fn what_is_lost_repeated_or_out_of_order_arrives_once_and_in_order(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40).prop_map(Bytes::from), 0..60),
            seed in any::<u64>(),
            acknowledges_twice in any::<bool>(),
        ) {
            let (mut client, mut agent) = ends();
            prop_assert_eq!(carried(&mut client, &mut agent, &messages, seed, acknowledges_twice), messages.clone());
            let (mut client, mut agent) = ends();
            prop_assert_eq!(carried(&mut agent, &mut client, &messages, seed, acknowledges_twice), messages);
        }

        #[test]
        fn no_bytes_harm_a_channel(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (mut client, _) = ends();
            let _ = client.receive(&bytes.into(), MILLISECOND);
            prop_assert_eq!(client.expected, 0);
        }
    }

    #[test]
    fn who_does_not_acknowledge_is_sent_no_more_than_a_window() {
        let (mut client, _) = ends();
        let mut sent = 0;
        while client.has_room() {
            client.send(payload::BYTES, words("word"), Duration::ZERO);
            sent += 1;
        }
        assert_eq!(sent, WINDOW);
        assert_eq!(client.due(MILLISECOND), Vec::<Bytes>::new());
        assert_eq!(client.due(FIRST_TIMEOUT).len(), 1, "the oldest, and not all that are late");
        assert!(!client.is_dead(DEAD - MILLISECOND) && client.is_dead(DEAD));
    }

    #[test]
    fn what_is_known_to_be_missing_is_sent_again_at_once() {
        let (mut client, mut agent) = ends();
        let sent: Vec<Bytes> =
            ["a", "b", "c", "d"].map(|word| client.send(payload::BYTES, words(word), Duration::ZERO)).to_vec();
        let reply = agent.receive(&sent[2], MILLISECOND).unwrap().reply.unwrap();
        client.receive(&reply, MILLISECOND).unwrap();
        let again = client.due(FIRST_TIMEOUT);
        assert_eq!(again, sent[..2], "both before the one that arrived, and not the one after it");
        for bytes in &again {
            agent.receive(bytes, FIRST_TIMEOUT).unwrap();
        }
        assert_eq!(agent.receive(&sent[3], FIRST_TIMEOUT).unwrap().heard, [data("d")]);
    }

    #[test]
    fn what_was_lost_is_sent_again_though_what_is_before_it_had_arrived_and_nobody_heard_so() {
        let (mut client, mut agent) = ends();
        let sent = ["a", "b"].map(|word| client.send(payload::BYTES, words(word), Duration::ZERO));
        // "a" arrives and is acknowledged once, which is lost; "b" is lost.
        agent.receive(&sent[0], MILLISECOND).unwrap();
        assert_eq!(client.due(FIRST_TIMEOUT), sent[..1], "nobody knows better");
        assert_eq!(client.due(LATE), sent);
        let received = agent.receive(&sent[1], LATE).unwrap();
        assert_eq!(received.heard, [data("b")]);
        client.receive(&received.reply.unwrap(), LATE).unwrap();
        client.due(HAD);
        assert!(client.unacknowledged.is_empty(), "\"a\" must have arrived, too");
    }

    #[test]
    fn who_asks_for_a_pause_gets_one_until_there_is_a_sign_of_life() {
        let (mut client, mut agent) = ends();
        let mut bare = |kind| agent.message(kind, (0, 0), (0, Bytes::new()), Duration::ZERO).encode();
        let (pause, start) = (bare(Kind::Pause), bare(Kind::Start));
        client.send(payload::BYTES, words("a"), Duration::ZERO);
        client.receive(&pause, MILLISECOND).unwrap();
        assert!(!client.has_room() && client.due(LONGEST_TIMEOUT).is_empty() && !client.is_dead(DEAD));
        client.receive(&start, MILLISECOND).unwrap();
        assert!(client.has_room());
        client.receive(&pause, MILLISECOND).unwrap();
        let word = agent.send(payload::BYTES, words("b"), MILLISECOND);
        assert_eq!(client.receive(&word, MILLISECOND).unwrap().heard, [data("b")]);
        assert!(client.has_room());
    }

    #[test]
    fn a_new_socket_gets_everything_that_may_be_lost_and_the_stream_goes_on() {
        let (mut client, mut agent) = ends();
        let sent = ["a", "b"].map(|word| client.send(payload::BYTES, words(word), Duration::ZERO));
        let received = agent.receive(&sent[0], MILLISECOND).unwrap();
        assert_eq!(received.heard, [data("a")]);
        // Its acknowledgement and "b" were lost with the socket.
        let again = client.again(MILLISECOND);
        assert_eq!(again, sent);
        let heard: Vec<Heard> =
            again.iter().flat_map(|bytes| agent.receive(bytes, MILLISECOND).unwrap().heard).collect();
        assert_eq!(heard, [data("b")]);
    }

    #[test]
    fn the_end_of_a_session_comes_with_its_reason() {
        let (mut client, mut agent) = ends();
        let mut closed =
            |payload: &'static str| agent.message(Kind::Closed, (0, 0), (0, words(payload)), Duration::ZERO).encode();
        let (with, without) = (closed(r#"{"SessionId":"s","Output":"idle for 20 minutes\n"}"#), closed("{"));
        assert_eq!(
            client.receive(&with, MILLISECOND).unwrap().heard,
            [Heard::Closed("idle for 20 minutes".to_owned())]
        );
        assert_eq!(client.receive(&without, MILLISECOND).unwrap().heard, [Heard::Closed(String::new())]);
    }
}
