"""`install`: Session Manager, with the agent of every instance: StartSession, ResumeSession, TerminateSession, DescribeSessions of
those that go on, and the data channel, a WebSocket beside the calls, through which ports of other hosts are forwarded. MiniStack
has none of it.

Written from what AWS publishes of its agent (github.com/aws/amazon-ssm-agent: `agent/session/contracts`, `datachannel` and
`plugins/port`) and of smux, version 1 (github.com/xtaci/smux). As there: stream data is numbered and acknowledged one by one, what
comes early is kept, what comes twice is dropped without a word, only the oldest unacknowledged message is sent again, a `FIN` ends
both directions of a connection. Stricter than the agent: it waits where that would forget what is unacknowledged. Names are those of
private namespaces of the instance's network; nothing else is connected to. Deliberately absent: shells, encryption, time limits.

Tests have the line disturbed: `FLEET_EMULATOR_LINE` names a file of JSON, read when a session begins: `{"lose": 11, "repeat": 7,
"swap": 5, "cut": 300}` loses every 11th message, sends every 7th twice, every 5th after the next one, in both directions, and
closes the socket after 300, once.
"""

import asyncio
import hashlib
import json
import logging
import os
import secrets
import struct
import time
import uuid

from ministack.core.responses import error_response_json, get_account_id, get_region, json_response, request_scope
from ministack.services import ec2, servicediscovery, ssm

log = logging.getLogger("fleet.sessions")

DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"
PATH = "/v1/data-channel/"
AGENT_VERSION = "3.3.1611.0"
# Length of the header as it says itself, then: kind, schema, created, sequence, flags, id, hash, type and length of the payload.
HEADER = struct.Struct(">I32sIQqQ16s32sII")
INPUT, OUTPUT, ACKNOWLEDGE, CLOSED = "input_stream_data", "output_stream_data", "acknowledge", "channel_closed"
BYTES, HANDSHAKE_REQUEST, HANDSHAKE_RESPONSE, HANDSHAKE_COMPLETE, FLAG = 1, 5, 6, 7, 10
TERMINATE, NOT_CONNECTED = 2, 3
PAYLOAD = 1024
# Messages that may be unacknowledged, or early.
KEPT = 10000
RESEND_SECONDS, FIRST_TIMEOUT, LONGEST_TIMEOUT = 0.02, 0.2, 1.0
# smux: version, command, length, stream.
FRAME = struct.Struct("<BBHI")
SYN, FIN, PSH, NOP = range(4)
FRAME_BYTES = 32768
CONNECT_SECONDS = 5

# Sessions by their ids.
SESSIONS = {}
# Networks of private namespaces.
NETWORK_OF = {}


# ── what is asked of the API ──


class Session:
    def __init__(self, instance, host, port):
        self.id = f"fleet-{secrets.token_hex(9)}"
        self.instance, self.host, self.port = instance, host, port
        self.account, self.region = get_account_id(), get_region()
        self.agent, self.token = None, None

    def ticket(self):
        """What opens its data channel; a former one does not any more."""
        self.token = secrets.token_urlsafe(48)
        url = f"ws://127.0.0.1:{os.environ['GATEWAY_PORT']}{PATH}{self.id}?role=publish_subscribe"
        return {"SessionId": self.id, "TokenValue": self.token, "StreamUrl": url}

    def address(self):
        """An address that the instance finds under the name, or an `OSError`."""
        with request_scope(self.account, self.region):
            network = ec2._instances[self.instance].get("VpcId")
            for key, namespace in servicediscovery._namespaces.items():
                name = self.host.removesuffix(f".{namespace['Name']}")
                if name == self.host or NETWORK_OF.get(key) not in (None, network):
                    continue
                for service in servicediscovery._services.values():
                    if service["NamespaceId"] != key or service["Name"] != name:
                        continue
                    for found in (servicediscovery._instances.get(service["Id"]) or {}).values():
                        if address := (found.get("Attributes") or {}).get("AWS_INSTANCE_IPV4"):
                            return address
        raise OSError(f"no such host: {self.host}")


def gone(session):
    return error_response_json("DoesNotExistException", f"Session {session} does not exist or is terminated.", 400)


def start(body):
    instance = body.get("Target", "")
    known = ec2._instances.get(instance)
    if known is None or (known.get("State") or {}).get("Name") != "running":
        return error_response_json("TargetNotConnected", f"{instance} is not connected.", 400)
    if body.get("DocumentName") != DOCUMENT:
        return error_response_json("InvalidDocument", f"Document with name {body.get('DocumentName')} does not exist.", 400)
    try:
        host, port = body["Parameters"]["host"][0], int(body["Parameters"]["portNumber"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        return error_response_json("InvalidParameters", "host and portNumber are lists of one text each.", 400)
    session = Session(instance, host, port)
    SESSIONS[session.id] = session
    return json_response(session.ticket())


def resume(body):
    session = SESSIONS.get(body.get("SessionId"))
    return json_response(session.ticket()) if session else gone(body.get("SessionId"))


async def terminate(body):
    session = SESSIONS.pop(body.get("SessionId"), None)
    if session and session.agent:
        await session.agent.end()
    # One that is over is no error.
    return json_response({"SessionId": body.get("SessionId")})


def describe():
    known = [{"SessionId": session.id, "Target": session.instance, "Status": "Connected"} for session in SESSIONS.values()]
    return json_response({"Sessions": known})


def install():
    handle = ssm.handle_request

    async def handled(method, path, headers, body, query):
        action = headers.get("x-amz-target", "").rsplit(".", 1)[-1]
        asked = json.loads(body or b"{}") if action.endswith(("Session", "Sessions")) else {}
        match action:
            case "StartSession":
                return start(asked)
            case "ResumeSession":
                return resume(asked)
            case "TerminateSession":
                return await terminate(asked)
            case "DescribeSessions":
                return describe()
        return await handle(method, path, headers, body, query)

    ssm.handle_request = handled


# ── the data channel ──


def pack(kind, sequence, flags, payload_type, payload):
    identity = uuid.uuid4().bytes
    now, digest = int(time.time() * 1000), hashlib.sha256(payload).digest()
    return (
        HEADER.pack(
            HEADER.size - 4,
            kind.encode().ljust(32),
            1,
            now,
            sequence,
            flags,
            identity[8:] + identity[:8],
            digest,
            payload_type,
            len(payload),
        )
        + payload
    )


class Line:
    """What lies between the ends of a session, in one direction."""

    def __init__(self, faults):
        self.faults, self.count, self.held = faults, 0, []

    def through(self, message):
        """What arrives when this is sent."""
        self.count += 1

        def due(fault):
            return fault in self.faults and self.count % self.faults[fault] == 0

        if due("lose"):
            return []
        if due("swap") and not self.held:
            self.held = [message]
            return []
        arrives = [message] * (2 if due("repeat") else 1) + self.held
        self.held = []
        return arrives


def disturbances():
    path = os.environ.get("FLEET_EMULATOR_LINE", "")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Agent:
    """The agent's end of one session. It stays while sockets come and go."""

    def __init__(self, session):
        self.session, self.send, self.over = session, None, False
        faults = disturbances()
        self.outward, self.inward, self.cut = Line(faults), Line(faults), faults.get("cut", 0)
        self.expected, self.early = 0, {}
        self.next, self.unacknowledged, self.room = 0, {}, asyncio.Event()
        self.smooth, self.variation, self.timeout = 0.1, 0.0, FIRST_TIMEOUT
        self.agreed, self.received = False, bytearray()
        self.streams, self.whole = {}, asyncio.Lock()
        self.tasks = set()
        self.spawn(self.resend())

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # ── messages ──

    async def attach(self, send):
        self.send = send
        if self.next:
            for message, *_ in list(self.unacknowledged.values()):
                await self.put(message)
            return
        port = {"portNumber": str(self.session.port), "host": self.session.host, "type": "LocalPortForwarding"}
        action = {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Port", "Properties": port}}
        asked = {"AgentVersion": AGENT_VERSION, "RequestedClientActions": [action]}
        await self.say(HANDSHAKE_REQUEST, json.dumps(asked).encode())

    async def put(self, message):
        """To the socket, if there is one."""
        if self.send is None:
            return
        try:
            await self.send(message)
        except Exception as why:  # it closes meanwhile
            log.info("session %s: %s", self.session.id, why)

    async def say(self, payload_type, payload):
        while len(self.unacknowledged) >= KEPT and not self.over:
            self.room.clear()
            await self.room.wait()
        sequence, self.next = self.next, self.next + 1
        message = pack(OUTPUT, sequence, 0 if sequence else 1, payload_type, payload)
        self.unacknowledged[sequence] = [message, time.monotonic(), False]
        for arrives in self.outward.through(message) if self.agreed else [message]:
            await self.put(arrives)

    async def resend(self):
        while not self.over:
            await asyncio.sleep(RESEND_SECONDS)
            oldest = next(iter(self.unacknowledged.values()), None)
            if oldest and time.monotonic() - oldest[1] > self.timeout:
                oldest[1:] = [time.monotonic(), True]
                await self.put(oldest[0])

    async def take(self, raw):
        for message in self.inward.through(raw) if self.agreed else [raw]:
            await self.arrived(message)
        if self.cut and self.inward.count + self.outward.count >= self.cut:
            self.cut = 0
            raise ConnectionError("cut, as asked for")

    async def arrived(self, raw):
        length, kind, _, _, sequence, _, identity, digest, payload_type, size = HEADER.unpack_from(raw)
        payload, kind = bytes(raw[length + 4 :]), kind.decode().strip()
        if len(payload) != size or hashlib.sha256(payload).digest() != digest:
            log.warning("session %s: a message that is none", self.session.id)
            return
        if kind == ACKNOWLEDGE:
            self.acknowledged(json.loads(payload)["AcknowledgedMessageSequenceNumber"])
        if kind != INPUT or sequence < self.expected or (sequence > self.expected and len(self.early) >= KEPT):
            return
        identity = uuid.UUID(bytes=identity[8:] + identity[:8])
        content = {
            "AcknowledgedMessageType": kind,
            "AcknowledgedMessageId": str(identity),
            "AcknowledgedMessageSequenceNumber": sequence,
            "IsSequentialMessage": True,
        }
        await self.put(pack(ACKNOWLEDGE, 0, 3, 0, json.dumps(content).encode()))
        self.early[sequence] = (payload_type, payload)
        while self.expected in self.early:
            payload_type, payload = self.early.pop(self.expected)
            self.expected += 1
            await self.hear(payload_type, payload)

    def acknowledged(self, sequence):
        message, sent, again = self.unacknowledged.pop(sequence, (None, 0, True))
        self.room.set()
        if message is None or again:
            return
        took = time.monotonic() - sent
        self.variation = 0.75 * self.variation + 0.25 * abs(self.smooth - took)
        self.smooth = 0.875 * self.smooth + 0.125 * took
        self.timeout = min(LONGEST_TIMEOUT, self.smooth + max(0.01, 4 * self.variation))

    async def hear(self, payload_type, payload):
        if payload_type == HANDSHAKE_RESPONSE:
            errors = json.loads(payload).get("Errors")
            if errors:
                self.spawn(self.end(f"----------ERROR-------\nHandshake failed: {errors}"))
                return
            complete = {"HandshakeTimeToComplete": 1000000, "CustomerMessage": ""}
            await self.say(HANDSHAKE_COMPLETE, json.dumps(complete).encode())
            self.agreed = True
        elif payload_type == FLAG and payload == struct.pack(">I", TERMINATE):
            SESSIONS.pop(self.session.id, None)
            self.spawn(self.end())
        elif payload_type == BYTES and self.agreed:
            self.received += payload
            self.frames()

    # ── connections ──

    def frames(self):
        while len(self.received) >= FRAME.size:
            version, command, length, stream = FRAME.unpack_from(self.received)
            if version != 1 or command > NOP:
                self.spawn(self.end("the streams are not those of smux, version 1"))
                return
            if len(self.received) < FRAME.size + length:
                return
            content = bytes(self.received[FRAME.size : FRAME.size + length])
            del self.received[: FRAME.size + length]
            if command == SYN and stream not in self.streams:
                self.streams[stream] = asyncio.Queue()
                self.spawn(self.connect(stream, self.streams[stream]))
            elif command in (PSH, FIN) and stream in self.streams:
                self.streams[stream].put_nowait(content if command == PSH else None)

    async def frame(self, command, stream, content=b""):
        """Whole, whoever else sends meanwhile."""
        whole = FRAME.pack(1, command, len(content), stream) + content
        async with self.whole:
            for at in range(0, len(whole), PAYLOAD):
                await self.say(BYTES, whole[at : at + PAYLOAD])

    async def connect(self, stream, queue):
        try:
            to = asyncio.open_connection(self.session.address(), self.session.port)
            reader, writer = await asyncio.wait_for(to, CONNECT_SECONDS)
        except (OSError, asyncio.TimeoutError, KeyError) as why:
            log.info("session %s: %s:%s: %s", self.session.id, self.session.host, self.session.port, why)
            self.streams.pop(stream, None)
            await self.say(FLAG, struct.pack(">I", NOT_CONNECTED))
            await self.frame(FIN, stream)
            return
        self.spawn(self.back(stream, reader, queue))
        try:
            while (content := await queue.get()) is not None:
                writer.write(content)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def back(self, stream, reader, queue):
        try:
            while content := await reader.read(FRAME_BYTES):
                await self.frame(PSH, stream, content)
        except OSError:
            pass
        finally:
            self.streams.pop(stream, None)
            queue.put_nowait(None)
        await self.frame(FIN, stream)

    # ── the end ──

    async def end(self, why=""):
        if self.over:
            return
        self.over = True
        self.room.set()
        closing = {"MessageType": CLOSED, "SessionId": self.session.id, "SchemaVersion": 1, "Output": why}
        await self.put(pack(CLOSED, 0, 0, 0, json.dumps(closing).encode()))
        for queue in self.streams.values():
            queue.put_nowait(None)
        await asyncio.sleep(0)
        own = asyncio.current_task()
        for task in [task for task in self.tasks if task is not own]:
            task.cancel()


async def serve(scope, receive, send):
    """One socket of a session."""
    session = SESSIONS.get(scope["path"].removeprefix(PATH))
    if (await receive())["type"] != "websocket.connect":
        return
    if session is None:
        return await send({"type": "websocket.close", "code": 1008})
    await send({"type": "websocket.accept"})
    hello = await receive()
    try:
        allowed = secrets.compare_digest(json.loads(hello.get("text") or "{}").get("TokenValue", ""), session.token or "")
    except (TypeError, ValueError):
        allowed = False
    if not allowed:
        return await send({"type": "websocket.close", "code": 1008, "reason": "not with this token"})
    # It is good for one socket.
    session.token = None
    session.agent = agent = session.agent or Agent(session)

    async def put(message):
        await send({"type": "websocket.send", "bytes": message})

    try:
        await agent.attach(put)
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("bytes"):
                await agent.take(message["bytes"])
    except ConnectionError as why:
        agent.send = None
        await send({"type": "websocket.close", "code": 1001, "reason": str(why)})
    finally:
        if agent.send is put:
            agent.send = None
