"""`Engine`: what tasks run in on this machine: containers, networks and volumes of a container engine, and nothing of AWS.

Everything that is made carries labels that say by which process, so that it is found again: it goes with the emulator that
made it, and what a killed one left goes when the next one starts. Containers reach the emulator at the gateway of their
network, and at 169.254.170.2, where ECS has credentials and metadata; nobody else does: both are addresses of this machine's
bridges. Deliberately absent: the host's folders, published ports, privileges.
"""

import asyncio
import io
import logging
import os
import tarfile
import threading
import time

import docker
from docker import errors, types

log = logging.getLogger("fleet.engine")

# Whose a thing is: see `own_mark`.
OWNER = "fleet.emulator.owner"
# Where SDKs look for the credentials of a task. They take no other address without TLS, except loopback.
CREDENTIALS = "169.254.170.2"
CREDENTIALS_NETWORK = "fleet-emulator-credentials"
# Where the emulator itself answers, and from where what containers ask is passed on to it.
LOOPBACK, FROM_TASKS = "127.0.0.1", "127.0.0.2"
CALL_SECONDS = 60
# How old a look at all containers may be.
LOOK_SECONDS = 0.25
# Output that the engine itself keeps of a container; the rest is in CloudWatch Logs.
OUTPUT_KEPT = "10m"


class EngineError(Exception):
    """What an engine did not do, and why."""


def _read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def own_mark():
    """This process among all of this machine, also after a restart: boot, namespace of processes, number, start."""
    start = _read("/proc/self/stat").rsplit(")", 1)[1].split()[19]
    return "/".join([_boot(), _namespace(), str(os.getpid()), start])


def _boot():
    return _read("/proc/sys/kernel/random/boot_id").strip()


def _namespace():
    return os.readlink("/proc/self/ns/pid")


def abandoned(mark):
    """Whether the process that a mark is of is gone. Of another namespace it cannot be told: then it is not."""
    try:
        boot, namespace, process, start = mark.split("/")
    except ValueError:
        return False
    if boot != _boot():
        return True
    if namespace != _namespace():
        return False
    try:
        return _read(f"/proc/{int(process)}/stat").rsplit(")", 1)[1].split()[19] != start
    except (OSError, ValueError):
        return True


class Engine:
    """One engine. Every method may be called from any thread."""

    def __init__(self, address, port):
        self.address, self.port = address, port
        self.mark = own_mark()
        self.labels = {OWNER: self.mark}
        self.closed = False
        self._lock = threading.RLock()
        self._client = None
        self._cpus = 1
        self._networks = {}
        self._relays = {}
        self._looked, self._seen = 0.0, {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="fleet-relays").start()

    # ── the engine itself ──

    def client(self):
        """The engine, or an `EngineError` that says why there is none."""
        with self._lock:
            if self.closed:
                raise EngineError("the emulator ends")
            if self._client is None:
                try:
                    client = docker.APIClient(base_url=self.address, version="auto", timeout=CALL_SECONDS)
                    self._cpus = max(1, int(client.info().get("NCPU") or 1))
                except (errors.DockerException, OSError) as why:
                    raise EngineError(f"no container engine answers at {self.address}: {why}") from None
                self._client = client
            return self._client

    def cpus(self):
        self.client()
        return self._cpus

    # ── networks ──

    def network(self, name):
        """Makes it once; returns its gateway, at which the emulator answers from then on."""
        with self._lock:
            if name not in self._networks:
                self._networks[name] = self._make_network(f"fleet-emulator-{self.port}-{name}")
            return self._networks[name]

    def _make_network(self, name):
        client = self.client()
        made = client.create_network(name, driver="bridge", labels=self.labels, check_duplicate=True)
        pools = client.inspect_network(made["Id"])["IPAM"]["Config"]
        gateway = next((pool["Gateway"] for pool in pools if pool.get("Gateway")), None)
        if not gateway:
            raise EngineError(f"the engine gives the network {name} no gateway")
        self._relay(gateway)
        return name, gateway

    def credentials_address(self):
        """Makes sure that the emulator answers at `CREDENTIALS`. That address belongs to the gateway of a network that all
        emulators of an engine share, with no container in it."""
        with self._lock:
            client = self.client()
            if not client.networks(names=[f"^{CREDENTIALS_NETWORK}$"]):
                pool = types.IPAMPool(subnet="169.254.170.0/24", gateway=CREDENTIALS)
                try:
                    client.create_network(CREDENTIALS_NETWORK, ipam=types.IPAMConfig(pool_configs=[pool]), check_duplicate=True)
                except errors.APIError as why:
                    # Another emulator was faster, or somebody else has these addresses: binding tells.
                    log.info("%s: %s", CREDENTIALS_NETWORK, why.explanation)
            self._relay(CREDENTIALS)
            return f"{CREDENTIALS}:{self.port}"

    def _relay(self, address):
        """Passes what arrives at an address on to the emulator."""
        if address in self._relays:
            return

        async def start():
            return await asyncio.start_server(self._pass_on, address, self.port)

        try:
            self._relays[address] = asyncio.run_coroutine_threadsafe(start(), self._loop).result(CALL_SECONDS)
        except OSError as why:
            raise EngineError(f"containers would not reach the emulator: {address}:{self.port}: {why}") from None

    async def _pass_on(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.port, local_addr=(FROM_TASKS, 0))
        except OSError:
            writer.close()
            return

        async def pump(source, target):
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
                target.write_eof()
            except (OSError, RuntimeError):
                pass

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        for end in (writer, far_writer):
            end.close()

    # ── volumes ──

    def volume(self, name):
        """Makes it once; returns its full name and where the engine keeps it."""
        full = f"fleet-emulator-{self.port}-{name}"
        made = self.client().create_volume(full, labels=self.labels)
        return full, made["Mountpoint"]

    def folder(self, volume, image, path, owner):
        """Makes a folder of a volume unless it is there: `owner` is (uid, gid, mode), or None where it has to be there.
        Returns whether it is there. No program is run: the engine unpacks an archive into a container that never starts."""
        client = self.client()
        helper = client.create_container(
            image, entrypoint=["none"], labels=self.labels, host_config=client.create_host_config(binds=[f"{volume}:/efs"])
        )["Id"]
        try:
            at = client._url("/containers/{0}/archive", helper)
            if client.head(at, params={"path": f"/efs{path}"}, timeout=CALL_SECONDS).status_code == 200:
                return True
            if owner is None:
                return False
            parts = path.strip("/").split("/")
            first = next(
                depth
                for depth in range(1, len(parts) + 1)
                if client.head(at, params={"path": "/efs/" + "/".join(parts[:depth])}).status_code != 200
            )
            made = io.BytesIO()
            with tarfile.open(fileobj=made, mode="w") as archive:
                for depth in range(first, len(parts) + 1):
                    entry = tarfile.TarInfo("/".join(parts[:depth]))
                    entry.type, entry.mtime = tarfile.DIRTYPE, int(time.time())
                    entry.uid, entry.gid, entry.mode = owner
                    archive.addfile(entry)
            client.put_archive(helper, "/efs", made.getvalue())
            return True
        finally:
            client.remove_container(helper, force=True)

    # ── containers ──

    def pull(self, image, platform):
        name, _, digest = image.partition("@")
        try:
            for line in self.client().pull(name, tag=digest or None, platform=platform, stream=True, decode=True):
                if "error" in line:
                    # What Docker before 23 says of a layer with zstd.
                    old = "invalid tar header" in line["error"]
                    hint = ' (an engine that does not know zstd? compression="gzip" of the environment\'s target)' if old else ""
                    raise EngineError(line["error"] + hint)
        except errors.APIError as why:
            raise EngineError(str(why.explanation or why)) from None

    def start(self, name, image, config, host, network=None, aliases=()):
        """Makes and starts a container: `config` and `host` as the engine's API names them. Returns its id."""
        client = self.client()
        host = {**host, "LogConfig": {"Type": "json-file", "Config": {"max-size": OUTPUT_KEPT}}}
        config = {**config, "Image": image, "HostConfig": host, "Labels": {**config.get("Labels", {}), **self.labels}}
        if network:
            config["NetworkingConfig"] = {"EndpointsConfig": {network: {"Aliases": list(aliases)}}}
            host["NetworkMode"] = network
        made = client.create_container_from_config(config, name)["Id"]
        try:
            if self.closed:
                raise EngineError("the emulator ends")
            client.start(made)
        except (errors.APIError, EngineError) as why:
            client.remove_container(made, force=True, v=True)
            raise EngineError(getattr(why, "explanation", None) or str(why)) from None
        return made

    def address_of(self, container):
        networks = self.client().inspect_container(container)["NetworkSettings"]["Networks"]
        return next((network["IPAddress"] for network in networks.values() if network.get("IPAddress")), "")

    def look(self):
        """(state, words of the engine about it) of every container, by id; not older than `LOOK_SECONDS`."""
        with self._lock:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                rows = self.client().containers(all=True, filters={"label": f"{OWNER}={self.mark}"})
                self._seen = {row["Id"]: (row["State"], row["Status"]) for row in rows}
                self._looked = time.monotonic()
            return self._seen

    def ended(self, container):
        """(exit code where it is known, whether it was ended for its memory, whether it runs after all)"""
        try:
            state = self.client().inspect_container(container)["State"]
        except errors.NotFound:
            return None, False, False
        return state.get("ExitCode"), bool(state.get("OOMKilled")), bool(state.get("Running"))

    def output(self, container):
        """Pieces of what it writes, each line with its time, until it ends."""
        return self.client().logs(container, stdout=True, stderr=True, stream=True, follow=True, timestamps=True)

    def stop(self, container, seconds):
        try:
            self.client().stop(container, timeout=seconds)
        except errors.NotFound:
            pass

    def remove(self, container):
        try:
            self.client().remove_container(container, v=True, force=True)
        except errors.NotFound:
            pass

    def remove_volume(self, name):
        self._quietly(self.client().remove_volume, name)

    # ── the end ──

    def clean(self):
        """Removes what emulators left that were killed."""
        self._clean(self.client(), abandoned)

    def close(self):
        """Removes everything of this emulator; afterwards nothing can be started."""
        client, self.closed = self._client, True
        if client is None:
            return
        for pause in (LOOK_SECONDS, 0):
            # Twice: something may have been starting.
            self._clean(client, lambda mark: mark == self.mark)
            time.sleep(pause)
        self._forget_images(client)

    def _clean(self, client, of):
        """Removes everything whose mark `of` accepts."""
        marked = {"label": OWNER}
        for row in client.containers(all=True, filters=marked):
            if of(row["Labels"].get(OWNER, "")):
                self._quietly(client.remove_container, row["Id"], v=True, force=True)
        networks = client.networks(filters=marked)
        for row in networks:
            if of(row["Labels"].get(OWNER, "")):
                self._quietly(client.remove_network, row["Id"])
        for row in client.volumes(filters=marked)["Volumes"] or []:
            if of(row["Labels"].get(OWNER, "")):
                self._quietly(client.remove_volume, row["Name"], force=True)
        if all(of(row["Labels"].get(OWNER, "")) for row in networks):
            for row in client.networks(names=[f"^{CREDENTIALS_NETWORK}$"]):
                self._quietly(client.remove_network, row["Id"])

    def _forget_images(self, client):
        """Removes the names under which images of this account's registry are known."""
        of_us = f"{LOOPBACK}:{self.port}/"
        for row in client.images():
            for name in [*(row.get("RepoTags") or []), *(row.get("RepoDigests") or [])]:
                if name.startswith(of_us):
                    self._quietly(client.remove_image, name)

    @staticmethod
    def _quietly(action, *what, **how):
        try:
            action(*what, **how)
        except (errors.APIError, OSError) as why:
            log.warning("%s %s: %s", action.__name__, what, why)
