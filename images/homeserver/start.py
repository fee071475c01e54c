#!/usr/bin/env python3
"""Entry point of the homeserver's container: one Synapse on one volume, configured from what the fleet declares.

    start.py          take the volume's lock, write Synapse's configuration, become its user, become Synapse
    start.py health   exit code 0 when it serves

Reads /fleet/homeserver.json (no secrets: {"schema": 1, "server_name": …, "port": …, "data": "/data", "uid": …, "gid": …})
and the keys below /fleet/secrets, one file each. Optional: "bind" (default 0.0.0.0), "log_level" (WARNING), and "extra",
settings of Synapse that replace those made here. FLEET_ROOT puts another folder in front of both paths, for tests.

Where no files can be put into a container (ECS), the variable FLEET_HOMESERVER has what homeserver.json would have, and a
variable FLEET_KEY_<LABEL> each key. They win over files, and Synapse gets no key in its environment.
"""

import base64
import fcntl
import json
import os
import pathlib
import secrets
import signal
import socket
import stat
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(os.environ.get("FLEET_ROOT", "/"))
DECLARED = ROOT / "fleet/homeserver.json"
KEYS = ROOT / "fleet/secrets"
PACKAGES = "/opt/synapse/lib/python3.11/site-packages"
# How often a homeserver that waits for the volume looks again, and says again that it waits.
LOOK_SECONDS, SAY_SECONDS = 0.5, 30


class Unusable(Exception):
    """Something that must be there is not; the text says what and what to do."""


def say(text):
    print(f"homeserver: {text}", flush=True)


def declared():
    try:
        found = json.loads(os.environ.get("FLEET_HOMESERVER") or DECLARED.read_text())
        if found["schema"] != 1:
            raise Unusable(f"{DECLARED} has schema {found['schema']}, this image understands 1: build the image anew")
        wanted = {"server_name": str, "port": int, "data": str, "uid": int, "gid": int}
        for name, kind in wanted.items():
            if not isinstance(found[name], kind):
                raise Unusable(f"{DECLARED}: {name} must be of type {kind.__name__}")
        return found
    except FileNotFoundError:
        raise Unusable(f"{DECLARED} is missing: start this container with fleetctl") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise Unusable(f"{DECLARED} is not understood: {error!r}") from None


def key(label):
    file = KEYS / label
    try:
        # Out of the environment, so that Synapse does not inherit it.
        value = os.environ.pop("FLEET_KEY_" + label.upper().replace("-", "_"), None) or file.read_text()
        value = value.strip()
    except OSError as error:
        raise Unusable(f"the key {file} cannot be read: {error.strerror}") from None
    if len(value) < 16:
        raise Unusable(f"the key {file} is too short to be one")
    return value


def lock(data):
    """The volume's lock, held until this process and Synapse after it are gone. Its descriptor survives exec."""
    try:
        fd = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Unusable(f"the volume {data} cannot be used: {error.strerror}") from None
    said = None
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if said is None or time.monotonic() - said > SAY_SECONDS:
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "somebody"
                say(f"another homeserver runs on this volume ({holder}); waiting until it ends")
                said = time.monotonic()
            time.sleep(LOOK_SECONDS)
    os.ftruncate(fd, 0)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    os.pwrite(fd, f"host {socket.gethostname()}, process {os.getpid()}, since {since}".encode(), 0)
    os.set_inheritable(fd, True)
    if said is not None:
        say("the volume is free now")
    return fd


def own(data, uid, gid):
    """Gives the volume to Synapse's user: from the leaves up, so that an interrupted run begins again."""
    if os.geteuid() != 0 or (data.stat().st_uid, data.stat().st_gid) == (uid, gid):
        return
    for folder, _, files in os.walk(data, topdown=False):
        for name in files:
            os.lchown(os.path.join(folder, name), uid, gid)
        os.lchown(folder, uid, gid)


def become(uid, gid):
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def signing_key(data, server_name):
    """Made once; it is who this server is."""
    file = data / f"{server_name}.signing.key"
    if not file.exists():
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        draft = file.with_suffix(".draft")
        draft.write_text(f"ed25519 a_{secrets.token_hex(2)} {seed}\n")
        draft.chmod(0o600)
        draft.rename(file)
    return str(file)


def configuration(found, keys, data, run):
    unlimited = {"per_second": 1000, "burst_count": 10000}
    return {
        "server_name": found["server_name"],
        "pid_file": str(run / "homeserver.pid"),
        "listeners": [{
            "port": found["port"], "bind_addresses": [found.get("bind", "0.0.0.0")], "tls": False, "type": "http",
            "x_forwarded": False, "resources": [{"names": ["client"], "compress": False}],
        }],
        "database": {"name": "sqlite3", "args": {"database": str(data / "homeserver.db")}},
        "media_store_path": str(data / "media"),
        "signing_key_path": signing_key(data, found["server_name"]),
        "log_config": str(run / "log.yaml"),
        "registration_shared_secret": keys["synapse-registration-shared-secret"],
        "macaroon_secret_key": keys["synapse-macaroon-secret"],
        "form_secret": keys["synapse-form-secret"],
        # Strangers cannot make accounts, and there is no other server to talk to.
        "enable_registration": False,
        "trusted_key_servers": [], "suppress_key_server_warning": True,
        "federation_domain_whitelist": [], "send_federation": False, "allow_public_rooms_over_federation": False,
        "report_stats": False, "url_preview_enabled": False, "presence": {"enabled": False},
        # Passwords are 128 random bits: stretching them would only make sign-ins slow.
        "bcrypt_rounds": 6,
        # Everybody on this server is one of us, and a fleet starts all at once.
        "rc_message": unlimited, "rc_registration": unlimited, "rc_joins_per_room": unlimited,
        "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": {"per_second": 1, "burst_count": 50}},
        "rc_joins": {"local": unlimited, "remote": unlimited},
        "rc_invites": {"per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited},
        "rc_room_creation": unlimited, "rc_media_create": unlimited, "rc_reports": unlimited,
        "rc_user_directory": unlimited, "rc_delayed_event_mgmt": unlimited,
    }


def logging_configuration(level):
    return {
        "version": 1,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}},
        "root": {"level": level, "handlers": ["out"]},
        "disable_existing_loggers": False,
    }


def write(file, content):
    """JSON is YAML, and needs no library to write."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as out:
        json.dump(content, out, indent=1)


def run_folder(uid, gid):
    """A folder for what lives as long as the container: /run, or /tmp where /run cannot be written."""
    for parent in (os.environ.get("FLEET_RUN"), "/run", "/tmp"):
        if parent is None:
            continue
        folder = pathlib.Path(parent) / "fleet-homeserver"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0:
                os.chown(folder, uid, gid)
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid in (uid, os.geteuid()):
                return folder
        except OSError:
            continue
    raise Unusable("neither /run nor /tmp can be written")


def serve():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as process 1 nothing is ended by default
    os.umask(0o077)
    found = declared()
    data, uid, gid = pathlib.Path(found["data"]), found["uid"], found["gid"]
    keys = {label: key(label) for label in
            ("synapse-registration-shared-secret", "synapse-macaroon-secret", "synapse-form-secret")}
    lock(data)
    own(data, uid, gid)
    run = run_folder(uid, gid)
    become(uid, gid)
    write(run / "log.yaml", logging_configuration(found.get("log_level", "WARNING")))
    write(run / "homeserver.yaml", configuration(found, keys, data, run) | found.get("extra", {}))
    environment = dict(os.environ, HOME=str(data))
    environment.setdefault("PYTHONPYCACHEPREFIX", str(run / "pycache"))  # a restart is quicker by seconds
    if os.path.isdir(PACKAGES):
        environment.setdefault("PYTHONPATH", PACKAGES)
    say(f"Synapse for {found['server_name']} starts on port {found['port']}")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(data)
    os.execve(sys.executable, [sys.executable, "-m", "synapse.app.homeserver", "-c", str(run / "homeserver.yaml")], environment)


def health():
    url = f"http://127.0.0.1:{declared()['port']}/health"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=4) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, urllib.error.URLError) as error:
        print(f"homeserver: {url} does not answer: {error}", file=sys.stderr)
        return 1


def main(arguments):
    try:
        if arguments == ["health"]:
            return health()
        if arguments:
            raise Unusable(f"unknown argument {arguments[0]!r}; there is only `health`")
        return serve()
    except Unusable as error:
        print(f"homeserver: {error}", file=sys.stderr, flush=True)
        return 78


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
