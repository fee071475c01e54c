//! [`Message`]: one frame of a data channel of Session Manager, as bytes and as a value.
//!
//! What is where in it, and what is in payloads, is from the sources that AWS publishes of both ends: `clientmessage.go` and
//! `messageparser.go` of [session-manager-plugin](https://github.com/aws/session-manager-plugin), `model.go` of
//! [amazon-ssm-agent](https://github.com/aws/amazon-ssm-agent) in `agent/session/contracts`. Numbers are big-endian.
//! Deliberately absent: the order of messages, which is the channel's.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Length of the header, as it says itself: everything before the length of the payload.
const HEADER: usize = 116;
/// Where the payload begins.
const PAYLOAD: usize = HEADER + 4;
/// Length of the name of a kind, filled up with spaces.
const NAME: usize = 32;
/// Version of the schema that there is.
const SCHEMA: u32 = 1;
/// First and last of its sequence: how acknowledgements are marked.
pub(super) const ALONE: u64 = 0b11;

/// What a payload of stream data is.
pub(super) mod payload {
    /// Bytes of the stream.
    pub const BYTES: u32 = 1;
    /// What the agent asks of the client before the stream begins.
    pub const HANDSHAKE_REQUEST: u32 = 5;
    /// The client's answer.
    pub const HANDSHAKE_RESPONSE: u32 = 6;
    /// The stream begins.
    pub const HANDSHAKE_COMPLETE: u32 = 7;
    /// One of `flag`.
    pub const FLAG: u32 = 10;
}

/// What a flag says: a number of 32 bits.
pub(super) mod flag {
    /// The client ends the session.
    pub const TERMINATE: u32 = 2;
    /// The agent could not connect to where it was to.
    pub const NOT_CONNECTED: u32 = 3;
}

/// What a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Stream data to the agent.
    Input,
    /// Stream data from the agent.
    Output,
    /// Stream data has arrived.
    Acknowledge,
    /// The session is over.
    Closed,
    /// The other end listens again.
    Start,
    /// The other end does not listen for now.
    Pause,
    /// Something newer than this.
    Other(String),
}

impl Kind {
    /// As it stands in the header.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Input => "input_stream_data",
            Self::Output => "output_stream_data",
            Self::Acknowledge => "acknowledge",
            Self::Closed => "channel_closed",
            Self::Start => "start_publication",
            Self::Pause => "pause_publication",
            Self::Other(name) => name,
        }
    }

    fn of(name: &str) -> Self {
        [Self::Input, Self::Output, Self::Acknowledge, Self::Closed, Self::Start, Self::Pause]
            .into_iter()
            .find(|known| known.name() == name)
            .unwrap_or_else(|| Self::Other(name.to_owned()))
    }

    /// These two come without a payload whose hash could be told.
    const fn is_bare(&self) -> bool {
        matches!(self, Self::Start | Self::Pause)
    }
}

/// An identifier of 16 bytes, written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub [u8; 16]);

impl Id {
    /// A random one (RFC 9562, version 4).
    pub(super) fn random(random: &mut fastrand::Rng) -> Self {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// On the wire its halves are swapped.
    fn swapped(self) -> [u8; 16] {
        let mut swapped = self.0;
        swapped.rotate_left(8);
        swapped
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: Kind,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Its place among the stream data of its direction, from 0.
    pub sequence: i64,
    /// Bit 0: the first of its sequence. Bit 1: the last.
    pub flags: u64,
    pub id: Id,
    /// One of [`payload`]; 0 where it is no stream data.
    pub payload_type: u32,
    pub payload: Bytes,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it ends within its header")]
    Short,
    #[error("its lengths do not fit")]
    Length,
    #[error("its payload is not what its hash says")]
    Hash,
}

impl Message {
    /// The bytes of it.
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(PAYLOAD + self.payload.len());
        // Lengths are bounded by what a socket takes, far below 4 GiB.
        bytes.put_u32(HEADER as u32);
        let name = self.kind.name().as_bytes();
        let name = &name[..name.len().min(NAME)];
        bytes.put_slice(name);
        bytes.put_bytes(b' ', NAME - name.len());
        bytes.put_u32(SCHEMA);
        bytes.put_u64(self.created);
        bytes.put_i64(self.sequence);
        bytes.put_u64(self.flags);
        bytes.put_slice(&self.id.swapped());
        bytes.put_slice(&Sha256::digest(&self.payload));
        bytes.put_u32(self.payload_type);
        bytes.put_u32(self.payload.len() as u32);
        bytes.put_slice(&self.payload);
        bytes.freeze()
    }

    /// What bytes say.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let header: &[u8; PAYLOAD] = bytes.first_chunk().ok_or(Malformed::Short)?;
        let number = |at: usize| u32::from_be_bytes(field(header, at));
        // A longer header of some day: the payload comes after it and its own length.
        let begins = (number(0) as usize).checked_add(4).ok_or(Malformed::Length)?;
        if begins < PAYLOAD || begins > bytes.len() || number(HEADER) as usize != bytes.len() - begins {
            return Err(Malformed::Length);
        }
        let kind = Kind::of(String::from_utf8_lossy(&header[4..4 + NAME]).trim_matches(['\0', ' ']));
        let payload = bytes.slice(begins..);
        let hash: [u8; 32] = field(header, 80);
        if !payload.is_empty() && !kind.is_bare() && hash != <[u8; 32]>::from(Sha256::digest(&payload)) {
            return Err(Malformed::Hash);
        }
        Ok(Self {
            kind,
            created: u64::from_be_bytes(field(header, 40)),
            sequence: i64::from_be_bytes(field(header, 48)),
            flags: u64::from_be_bytes(field(header, 56)),
            id: Id(Id(field(header, 64)).swapped()),
            payload_type: number(112),
            payload,
        })
    }
}

/// Some bytes of a header, which all constant places are within.
fn field<const LENGTH: usize>(header: &[u8; PAYLOAD], at: usize) -> [u8; LENGTH] {
    header.get(at..at + LENGTH).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; LENGTH])
}

/// The payload of an acknowledgement.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Acknowledged {
    #[serde(rename = "AcknowledgedMessageType")]
    pub kind: String,
    #[serde(rename = "AcknowledgedMessageId")]
    pub id: String,
    #[serde(rename = "AcknowledgedMessageSequenceNumber")]
    pub sequence: i64,
    #[serde(rename = "IsSequentialMessage")]
    pub sequential: bool,
}

/// The payload of the end of a session, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Closing {
    /// Why, for people; may be empty.
    pub output: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_kind() -> impl Strategy<Value = Kind> {
        let known = [Kind::Input, Kind::Output, Kind::Acknowledge, Kind::Closed, Kind::Start, Kind::Pause];
        let newer = prop_oneof!["agent_[a-z]{1,26}"].prop_map(Kind::Other);
        prop_oneof![proptest::sample::select(known.to_vec()), newer]
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let payload = proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Bytes::from);
        (any_kind(), any::<u64>(), any::<i64>(), any::<u64>(), any::<[u8; 16]>(), any::<u32>(), payload).prop_map(
            |(kind, created, sequence, flags, id, payload_type, payload)| Message {
                kind,
                created,
                sequence,
                flags,
                id: Id(id),
                payload_type,
                payload,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in any_message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn no_bytes_are_more_than_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Message::decode(&bytes.into());
        }

        #[test]
        fn a_bit_that_flips_in_a_payload_is_found(message in any_message(), at in any::<proptest::sample::Index>()) {
            prop_assume!(!message.payload.is_empty() && !message.kind.is_bare());
            let mut bytes = message.encode().to_vec();
            let at = PAYLOAD + at.index(message.payload.len());
            bytes[at] ^= 1;
            prop_assert_eq!(Message::decode(&bytes.into()), Err(Malformed::Hash));
        }
    }

    #[test]
    fn everything_is_where_the_agent_looks_for_it() {
        let id = Id([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let message = Message {
            kind: Kind::Input,
            created: 1,
            sequence: 2,
            flags: 3,
            id,
            payload_type: payload::BYTES,
            payload: Bytes::from_static(b"hello"),
        };
        let bytes = message.encode();
        assert_eq!(&bytes[..4], &[0, 0, 0, 116]);
        assert_eq!(&bytes[4..36], b"input_stream_data               ");
        assert_eq!(
            &bytes[36..64],
            &[&[0, 0, 0, 1][..], &[0, 0, 0, 0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0, 0, 2], &[0, 0, 0, 0, 0, 0, 0, 3]]
                .concat()
        );
        assert_eq!(&bytes[64..80], &[8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7]);
        // `printf hello | sha256sum`
        assert_eq!(hex::encode(&bytes[80..112]), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(&bytes[112..], b"\0\0\0\x01\0\0\0\x05hello");
        assert_eq!(id.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
