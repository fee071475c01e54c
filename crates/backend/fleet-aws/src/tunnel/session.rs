//! [`Session`]: one session while it lives: moves bytes between its socket and connections, and takes it up again on another
//! socket where that one is lost.
//!
//! A connection that does not take what arrives for it holds the socket up, and with it everything behind: nothing is dropped,
//! and no more is kept than [`STREAM_QUEUE`](super::connection::STREAM_QUEUE) frames of each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fleet_apply::{Event, Events, Retry, SystemClock, retry::Passing};
use futures::{SinkExt as _, StreamExt as _, stream::SplitSink};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, interval, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Far, TunnelError,
    channel::{Channel, Heard},
    connection::{Order, carry},
    handshake,
    message::{Id, flag, payload},
    mux::{Command, FIRST, Frame, Frames, STEP},
    sessions::{Sessions, Ticket},
    socket::{self, Socket},
};
use crate::error::AwsError;

/// Orders of connections, and messages to the socket, that wait.
const ORDER_QUEUE: usize = 64;
const SOCKET_QUEUE: usize = 4096;
/// How long agent and client may take to agree.
const AGREED_WITHIN: Duration = Duration::from_secs(30);
/// How long the last words may take.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);
/// A socket shows that it is there, as the official client does.
const PING: Duration = Duration::from_secs(300);

/// A session. It ends with this value.
pub(super) struct Session {
    orders: mpsc::Sender<Order>,
    next: AtomicU32,
    stop: oneshot::Sender<()>,
    driver: JoinHandle<()>,
}

impl Session {
    /// Begins one; returns once connections can be made.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub(super) async fn begin(sessions: Sessions, far: &Far, events: Arc<dyn Events>) -> Result<Self, TunnelError> {
        let ticket = sessions.begin(far).await?;
        let (orders, ordered) = mpsc::channel(ORDER_QUEUE);
        let (stop, stopped) = oneshot::channel();
        let (ready, agreed) = oneshot::channel();
        let mut random = fastrand::Rng::new();
        let driver = Driver {
            client: Id::random(&mut random),
            session: ticket.session.clone(),
            channel: Channel::client(SystemTime::now(), random),
            frames: Frames::default(),
            streams: BTreeMap::new(),
            full: None,
            orders: ordered,
            stopped,
            ready: Some(ready),
            began: Instant::now(),
            far: far.clone(),
            sessions,
            events,
        };
        let driver = tokio::spawn(driver.run(ticket));
        let session = Self { orders, next: AtomicU32::new(FIRST), stop, driver };
        match timeout(AGREED_WITHIN, agreed).await {
            Ok(Ok(Ok(()))) => return Ok(session),
            Ok(Ok(Err(error))) => return Err(error),
            Ok(Err(_)) | Err(_) => {}
        }
        session.end().await;
        let why = format!("the agent on the bastion said nothing for {} s", AGREED_WITHIN.as_secs());
        Err(TunnelError::Gateway { why })
    }

    /// It is over.
    pub(super) fn is_over(&self) -> bool {
        self.orders.is_closed()
    }

    /// Ends it.
    pub(super) async fn end(self) {
        let _ = self.stop.send(());
        let _ = self.driver.await;
    }

    /// What moves the bytes of a connection, until one of its ends is over.
    pub(super) fn carry(&self, connection: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let stream = self.next.fetch_add(STEP, Ordering::Relaxed);
        carry(connection, stream, self.orders.clone())
    }
}

/// Why bytes are moved no further on a socket.
enum Left {
    Asked,
    Lost(String),
    Over(TunnelError),
}

struct Driver {
    sessions: Sessions,
    far: Far,
    events: Arc<dyn Events>,
    client: Id,
    session: String,
    channel: Channel,
    frames: Frames,
    /// Connections that take what arrives.
    streams: BTreeMap<u32, mpsc::Sender<Bytes>>,
    /// What one of them has no room for yet.
    full: Option<(mpsc::Sender<Bytes>, Bytes)>,
    orders: mpsc::Receiver<Order>,
    stopped: oneshot::Receiver<()>,
    /// Until agent and client agree.
    ready: Option<oneshot::Sender<Result<(), TunnelError>>>,
    began: Instant,
}

/// Messages to a socket.
type Out = mpsc::Sender<Message>;

impl Driver {
    async fn run(mut self, ticket: Ticket) {
        let outcome = self.live(ticket).await;
        self.orders.close();
        self.streams.clear();
        // Also where AWS is about to find out by itself: until then the session counts.
        let ended = self.sessions.end(&self.session).await;
        match (outcome, self.ready.take()) {
            (Ok(()), _) => {
                if let Err(error) = ended {
                    self.say(&format!("session {} may go on until it is idle: {error}", self.session));
                }
            }
            (Err(error), Some(ready)) => drop(ready.send(Err(error))),
            (Err(error), None) => {
                self.say(&format!("the tunnel to {} is closed: {error}; the next connection opens another", self.far));
            }
        }
    }

    fn say(&self, text: &str) {
        self.events.emit(Event::Notice { text: text.to_owned() });
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Until it is asked to end.
    async fn live(&mut self, ticket: Ticket) -> Result<(), TunnelError> {
        let mut socket = socket::open(&self.sessions.account, &ticket, self.client).await?;
        loop {
            let why = match self.pump(socket).await {
                Left::Asked => return Ok(()),
                Left::Over(error) => return Err(error),
                Left::Lost(why) if self.ready.is_some() => return Err(TunnelError::Gateway { why }),
                Left::Lost(why) => why,
            };
            self.say(&format!("the tunnel to {} was interrupted ({why}); taking it up again", self.far));
            socket = tokio::select! {
                socket = resumed(&self.sessions, &self.session, self.client) => socket?,
                _ = &mut self.stopped => return Ok(()),
            };
        }
    }

    async fn pump(&mut self, socket: Socket) -> Left {
        let (sink, mut incoming) = socket.split();
        let (out, outgoing) = mpsc::channel(SOCKET_QUEUE);
        let mut writer = tokio::spawn(write(sink, outgoing));
        let left = self.pumped(&mut incoming, &out, &mut writer).await;
        if matches!(left, Left::Lost(_)) {
            writer.abort();
        } else {
            let terminate = Bytes::copy_from_slice(&flag::TERMINATE.to_be_bytes());
            let last = self.channel.send(payload::FLAG, terminate, self.now());
            let _ = out.try_send(Message::Binary(last));
            drop(out);
            let _ = timeout(LAST_WORDS_WITHIN, writer).await;
        }
        left
    }

    async fn pumped(
        &mut self,
        incoming: &mut futures::stream::SplitStream<Socket>,
        out: &Out,
        writer: &mut JoinHandle<String>,
    ) -> Left {
        let mut ping = interval(PING);
        if self.ready.is_none() {
            self.begin_again(out).await;
        }
        loop {
            if let Err(left) = self.deliver(out).await {
                return left;
            }
            let agreed = self.ready.is_none();
            let look = self.channel.next_look(self.now()).map(|at| self.began + at);
            tokio::select! {
                _ = &mut self.stopped => return Left::Asked,
                why = &mut *writer => return Left::Lost(why.unwrap_or_default()),
                _ = ping.tick() => send(out, Message::Ping(Bytes::from_static(b"keepalive"))).await,
                () = has_room(&self.full), if self.full.is_some() => {
                    if let Some((to, bytes)) = self.full.take() {
                        // Nobody else fills it. Who is gone needs nothing.
                        let _ = to.try_send(bytes);
                        self.channel.listens(self.now());
                    }
                }
                frame = incoming.next(), if self.full.is_none() => {
                    if let Err(left) = self.arrived(frame, out).await {
                        return left;
                    }
                }
                Some(order) = self.orders.recv(), if agreed && self.channel.has_room() => self.follow(order, out).await,
                () = sleep_until(look.unwrap_or(self.began)), if look.is_some() => {
                    // What we do not read cannot be acknowledged.
                    if self.full.is_none() && self.channel.is_dead(self.now()) {
                        return Left::Over(TunnelError::Over { why: "the bastion does not answer any more".to_owned() });
                    }
                    for bytes in self.channel.due(self.now()) {
                        send(out, Message::Binary(bytes)).await;
                    }
                }
            }
        }
    }

    /// What may have been lost with the former socket, and something new: by its acknowledgement it is seen what else arrived.
    async fn begin_again(&mut self, out: &Out) {
        for bytes in self.channel.again(self.now()) {
            send(out, Message::Binary(bytes)).await;
        }
        self.put(&Frame::bare(Command::Nothing, 0), out).await;
        self.say(&format!("the tunnel to {} goes on", self.far));
    }

    async fn put(&mut self, frame: &Frame, out: &Out) {
        let bytes = self.channel.send(payload::BYTES, frame.encode(), self.now());
        send(out, Message::Binary(bytes)).await;
    }

    async fn follow(&mut self, order: Order, out: &Out) {
        let frame = match order {
            Order::Open { stream, to } => {
                self.streams.insert(stream, to);
                Frame::bare(Command::Open, stream)
            }
            Order::Bytes { stream, bytes } => Frame { command: Command::Bytes, stream, bytes },
            Order::End { stream } => {
                self.streams.remove(&stream);
                Frame::bare(Command::End, stream)
            }
        };
        self.put(&frame, out).await;
    }

    async fn arrived(
        &mut self,
        frame: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
        out: &Out,
    ) -> Result<(), Left> {
        let frame = match frame {
            Some(Ok(Message::Close(why))) => {
                let why = why.map(|why| why.reason.to_string()).filter(|why| !why.is_empty());
                return Err(Left::Lost(why.unwrap_or_else(|| "it was closed".to_owned())));
            }
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(Left::Lost(error.to_string())),
            None => return Err(Left::Lost("it was cut".to_owned())),
        };
        let Some(bytes) = socket::bytes_of(frame) else { return Ok(()) };
        // What is no message is not acknowledged, and comes again.
        let Ok(received) = self.channel.receive(&bytes, self.now()) else { return Ok(()) };
        if let Some(reply) = received.reply {
            send(out, Message::Binary(reply)).await;
        }
        for heard in received.heard {
            self.hear(heard, out).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, heard: Heard, out: &Out) -> Result<(), Left> {
        let (payload_type, bytes) = match heard {
            Heard::Data { payload_type, payload } => (payload_type, payload),
            Heard::Closed(why) => {
                let why = if why.is_empty() { "Session Manager closed it".to_owned() } else { why };
                return Err(Left::Over(TunnelError::Over { why }));
            }
        };
        match payload_type {
            payload::BYTES => self.frames.push(&bytes),
            payload::HANDSHAKE_REQUEST => {
                let (answer, outcome) = handshake::answer(&bytes);
                let answer = Bytes::from(answer.to_string());
                let answer = self.channel.send(payload::HANDSHAKE_RESPONSE, answer, self.now());
                send(out, Message::Binary(answer)).await;
                outcome.map_err(Left::Over)?;
            }
            payload::HANDSHAKE_COMPLETE => {
                if let Some(ready) = self.ready.take() {
                    drop(ready.send(Ok(())));
                }
            }
            payload::FLAG if bytes[..] == flag::NOT_CONNECTED.to_be_bytes() => {
                self.say(&format!(
                    "the bastion cannot connect to {}: does its service run? `fleetctl status`",
                    self.far
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives connections what arrived for them, until one has no room.
    async fn deliver(&mut self, out: &Out) -> Result<(), Left> {
        while self.full.is_none() {
            let frame = self.frames.next().map_err(|why| Left::Over(TunnelError::Gateway { why: why.to_string() }))?;
            let Some(Frame { command, stream, bytes }) = frame else { break };
            match command {
                Command::Bytes => {
                    let Some(to) = self.streams.get(&stream) else { continue };
                    if let Err(mpsc::error::TrySendError::Full(bytes)) = to.try_send(bytes) {
                        self.full = Some((to.clone(), bytes));
                    }
                }
                Command::End => drop(self.streams.remove(&stream)),
                // Agents before 3.1.1511 close a session that sends none. Later ones ask nothing, so that an idle one ends.
                Command::Nothing if self.channel.has_room() => self.put(&Frame::bare(Command::Nothing, 0), out).await,
                Command::Nothing | Command::Open => {}
            }
        }
        Ok(())
    }
}

/// A session on a new socket.
async fn resumed(sessions: &Sessions, session: &str, client: Id) -> Result<Socket, TunnelError> {
    let attempt = || async {
        let ticket = sessions.resume(session).await?;
        socket::open(&sessions.account, &ticket, client).await
    };
    let passing = |error: &TunnelError| match error {
        TunnelError::Gateway { .. } | TunnelError::Aws(AwsError::Unreachable { .. } | AwsError::Throttled { .. }) => {
            Some(Passing { after: None })
        }
        _ => None,
    };
    Retry::network(&SystemClock).run(attempt, passing, |_, _| {}).await
}

/// Waits until a connection takes something, or is gone.
async fn has_room(full: &Option<(mpsc::Sender<Bytes>, Bytes)>) {
    if let Some((to, _)) = full {
        drop(to.reserve().await);
    }
}

/// That the writer is gone is seen where it is waited for.
async fn send(out: &Out, message: Message) {
    let _ = out.send(message).await;
}

/// Writes what it is given until there is no more of it, or it cannot; returns why it could not.
async fn write(mut sink: SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<Message>) -> String {
    while let Some(message) = outgoing.recv().await {
        if let Err(error) = sink.send(message).await {
            return error.to_string();
        }
    }
    let _ = sink.close().await;
    String::new()
}
