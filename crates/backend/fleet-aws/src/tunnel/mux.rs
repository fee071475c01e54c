//! Many connections within the one stream of a session: frames of smux, version 1, as bytes and as values, and [`Frames`], which
//! finds them in a stream that is cut anywhere.
//!
//! The agent takes [xtaci/smux](https://github.com/xtaci/smux), whose README has the header: version, command, length (two bytes)
//! and stream (four), both little-endian. A client's streams are odd and begin with 3. Deliberately absent: windows, which
//! version 1 has none of; who is slow is waited for by the session.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Version of the protocol.
const VERSION: u8 = 1;
/// Length of a header.
pub(super) const HEADER: usize = 8;
/// The first stream of a client, and how far it is to the next one.
pub(super) const FIRST: u32 = 3;
pub(super) const STEP: u32 = 2;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A stream begins.
    Open,
    /// Nothing further comes on a stream.
    End,
    /// Bytes of a stream.
    Bytes,
    /// Somebody asks whether we are there.
    Nothing,
}

impl Command {
    const fn number(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::End => 1,
            Self::Bytes => 2,
            Self::Nothing => 3,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::Open, Self::End, Self::Bytes, Self::Nothing].into_iter().find(|known| known.number() == number)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub command: Command,
    pub stream: u32,
    /// At most 65,535 bytes; what is more is not sent.
    pub bytes: Bytes,
}

impl Frame {
    /// One without bytes.
    pub(super) const fn bare(command: Command, stream: u32) -> Self {
        Self { command, stream, bytes: Bytes::new() }
    }

    /// The bytes of it.
    pub(super) fn encode(&self) -> Bytes {
        let length = u16::try_from(self.bytes.len()).unwrap_or(u16::MAX);
        let mut encoded = BytesMut::with_capacity(HEADER + self.bytes.len());
        encoded.put_u8(VERSION);
        encoded.put_u8(self.command.number());
        encoded.put_u16_le(length);
        encoded.put_u32_le(self.stream);
        encoded.put_slice(&self.bytes[..length.into()]);
        encoded.freeze()
    }
}

/// Bytes that are no frames: nothing that follows can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent's streams are not in the protocol smux, version 1 (it sent {version}, {command})")]
pub(super) struct NoFrame {
    version: u8,
    command: u8,
}

/// Frames of a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What no frame was made of yet.
    bytes: BytesMut,
}

impl Frames {
    /// More bytes have arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.put_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`NoFrame`].
    pub(super) fn next(&mut self) -> Result<Option<Frame>, NoFrame> {
        let Some(&[version, command, low, high, a, b, c, d]) = self.bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let known = Command::of(command).filter(|_| version == VERSION);
        let known = known.ok_or(NoFrame { version, command })?;
        let length = usize::from(u16::from_le_bytes([low, high]));
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        self.bytes.advance(HEADER);
        let bytes = self.bytes.split_to(length).freeze();
        Ok(Some(Frame { command: known, stream: u32::from_le_bytes([a, b, c, d]), bytes }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let command = proptest::sample::select(vec![Command::Open, Command::End, Command::Bytes, Command::Nothing]);
        let bytes = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        (command, any::<u32>(), bytes).prop_map(|(command, stream, bytes)| Frame { command, stream, bytes })
    }

    proptest! {
        #[test]
        fn frames_are_found_wherever_the_stream_is_cut(
            sent in proptest::collection::vec(any_frame(), 0..12),
            piece in 1_usize..50,
        ) {
            let stream: Vec<u8> = sent.iter().flat_map(|frame| frame.encode().to_vec()).collect();
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                frames.push(bytes);
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame);
                }
            }
            prop_assert_eq!(found, sent);
        }

        #[test]
        fn no_bytes_are_more_than_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next() {}
        }
    }

    #[test]
    fn a_header_is_as_smux_has_it() {
        let frame = Frame { command: Command::Bytes, stream: 0x0102_0304, bytes: Bytes::from_static(b"hi") };
        assert_eq!(&frame.encode()[..], &[1, 2, 2, 0, 4, 3, 2, 1, b'h', b'i']);
        assert_eq!(&Frame::bare(Command::Open, 3).encode()[..], &[1, 0, 0, 0, 3, 0, 0, 0]);
        let mut frames = Frames::default();
        frames.push(&[2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frames.next(), Err(NoFrame { version: 2, command: 0 }));
    }
}
