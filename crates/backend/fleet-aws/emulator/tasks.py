"""`Task`: one task of ECS as containers, from PROVISIONING to STOPPED.

MiniStack keeps the records that are answered (`DescribeTasks`, `ListTasks`); what they say comes from what the engine says of
the containers. A definition that asks for something that is not done here does not start, and the task says what.
Deliberately absent: services, which are in `services.py`; security groups, routes and permissions, which are not enforced.
"""

import logging
import re
import threading
import time
from datetime import datetime

from docker import errors
from ministack.core.concurrency import resource_lock
from ministack.core.responses import get_account_id, get_region, new_uuid, now_iso, request_scope
from ministack.services import cloudwatch_logs, ec2, ecs, efs, servicediscovery, sts

from definition import CannotStart, creation, health, limits, refuse, secret_value
from engine import LOOPBACK, EngineError

log = logging.getLogger("fleet.tasks")

LOOK_SECONDS = 0.25
# Between SIGTERM and SIGKILL, where the definition does not say.
STOP_SECONDS = 30
# For its last lines to arrive before a task says that it has stopped.
LAST_WORDS_SECONDS = 5
# Between two tries to find an engine.
ENGINE_SECONDS = 2
ACCOUNT_REGISTRY = re.compile(r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/")

# Tasks that are not over, by ARN.
LIVE = {}


class Stopped(Exception):
    """It is to stop before it ran."""


def stop(record, reason, code, failed=False):
    """Asks a task to stop; it is STOPPED once its containers are gone."""
    with resource_lock("ecs-task", record["taskArn"]):
        if record["desiredStatus"] == "STOPPED":
            return
        record.update(desiredStatus="STOPPED", stoppingAt=now_iso(), stoppedReason=reason, stopCode=code, _failed=failed)
        ecs._bump_task_version(record)


def run(engine, record, definition, overrides, account, region):
    """A task, to its end, on a thread of its own."""
    with request_scope(account, region):
        Task(engine, record, definition, overrides).run()


class Task:
    def __init__(self, engine, record, definition, overrides):
        self.engine, self.record, self.definition = engine, record, definition
        self.overrides = {override.get("name"): override for override in overrides}
        self.id = record["taskArn"].rsplit("/", 1)[-1]
        self.containers = []  # (id, its record, its definition)
        self.outputs, self.names, self.volumes = [], [], {}
        self.credentials = new_uuid()

    # ── its life ──

    def run(self):
        LIVE[self.record["taskArn"]] = self
        checked = any(row.get("healthCheck") and row.get("essential", True) for row in self.definition["containerDefinitions"])
        # Names with a line in front are ours and are not answered. All are there from the beginning: answers are made meanwhile.
        self.record.setdefault("_failed", False)
        self.record.update(_checked=checked, _running_since=None)
        if self.record["desiredStatus"] != "STOPPED":
            self.record.update(stopCode=None, stoppedReason=None)
        for container in self.record["containers"]:
            container["reason"] = None
        try:
            self.wait_for_engine()
            self.start()
            self.watch()
        except Stopped:
            pass
        except CannotStart as why:
            stop(self.record, str(why), "TaskFailedToStart", failed=True)
        except (EngineError, errors.DockerException, OSError) as why:
            stop(self.record, f"ResourceInitializationError: {why}", "TaskFailedToStart", failed=True)
        except Exception as why:  # a task never just vanishes
            log.exception("task %s", self.id)
            stop(self.record, f"ResourceInitializationError: {why}", "TaskFailedToStart", failed=True)
        finally:
            try:
                self.end()
            except Exception:
                log.exception("end of task %s", self.id)
            self.set(lastStatus="STOPPED", stoppedAt=now_iso(), executionStoppedAt=now_iso())
            LIVE.pop(self.record["taskArn"], None)

    def set(self, **fields):
        with resource_lock("ecs-task", self.record["taskArn"]):
            self.record.update(fields)
            if "lastStatus" in fields:
                ecs._bump_task_version(self.record)

    def check(self):
        """Between any two steps of its start."""
        if self.record["desiredStatus"] == "STOPPED":
            raise Stopped

    def wait_for_engine(self):
        self.set(lastStatus="PENDING")
        while True:
            self.check()
            try:
                self.engine.client()
                break
            except EngineError as why:
                for container in self.record["containers"]:
                    container["reason"] = f"ContainerRuntimeError: {why}"
                time.sleep(ENGINE_SECONDS)
        for container in self.record["containers"]:
            container["reason"] = None

    def start(self):
        definitions = self.definition["containerDefinitions"]
        refuse(self.definition)
        self.set(lastStatus="ACTIVATING", pullStartedAt=now_iso())
        for definition in definitions:
            self.check()
            self.pull(definition)
        self.set(pullStoppedAt=now_iso())
        network, gateway = self.engine.network(self.vpc())
        self.names = self.found_by()
        for definition, container in zip(definitions, self.record["containers"]):
            self.check()
            self.start_container(definition, container, network, gateway)
        self.running(gateway)

    def running(self, gateway):
        address = self.engine.address_of(self.containers[0][0])
        subnet = self.record.get("_subnet")
        details = [{"name": "subnetId", "value": subnet}] if subnet else []
        details.append({"name": "privateIPv4Address", "value": address})
        interface = {"id": new_uuid(), "type": "ElasticNetworkInterface", "status": "ATTACHED", "details": details}
        for container in self.record["containers"]:
            container["networkInterfaces"] = [{"attachmentId": interface["id"], "privateIpv4Address": address}]
        for service, _ in self.names:
            attributes = {"AWS_INSTANCE_IPV4": address, "ECS_SERVICE_NAME": self.record["group"].partition(":")[2]}
            servicediscovery._register_instance({"ServiceId": service, "InstanceId": self.id, "Attributes": attributes})
        self.set(lastStatus="RUNNING", startedAt=now_iso(), attachments=[interface], _running_since=time.monotonic())

    def watch(self):
        """Until it is to stop, or a container without which it is nothing has ended."""
        while self.record["desiredStatus"] != "STOPPED":
            time.sleep(LOOK_SECONDS)
            try:
                seen = self.engine.look()
            except (EngineError, errors.DockerException, OSError) as why:
                if self.engine.closed:
                    return
                log.warning("the engine does not answer: %s", why)
                continue
            for container, record, definition in self.containers:
                self.observe(container, record, definition, *seen.get(container, ("gone", "")))
            self.observe_health()

    def observe(self, container, record, definition, state, words):
        if state in ("exited", "dead", "gone") and record["lastStatus"] != "STOPPED":
            code, memory, running = self.engine.ended(container)
            if running:
                # The look at all containers was older than this one.
                return
            reason = "OutOfMemoryError: Container killed due to memory usage" if memory else record.get("reason")
            record.update(lastStatus="STOPPED", exitCode=code, reason=reason)
            if definition.get("essential", True):
                stop(self.record, "Essential container in task exited", "EssentialContainerExited", failed=True)
        elif definition.get("healthCheck"):
            known = {"(healthy)": "HEALTHY", "(unhealthy)": "UNHEALTHY"}
            record["healthStatus"] = next((health for word, health in known.items() if word in words), "UNKNOWN")

    def observe_health(self):
        checked = [
            record["healthStatus"]
            for _, record, definition in self.containers
            if definition.get("healthCheck") and definition.get("essential", True)
        ]
        worst = next((health for health in ("UNHEALTHY", "UNKNOWN", "HEALTHY") if health in checked), "UNKNOWN")
        if worst != self.record["healthStatus"]:
            self.set(healthStatus=worst)

    def end(self):
        for service, _ in self.names:
            servicediscovery._deregister_instance({"ServiceId": service, "InstanceId": self.id})
        self.set(lastStatus="STOPPING" if self.containers else "DEPROVISIONING")
        for container, record, definition in reversed(self.containers):
            if self.engine.closed:
                break
            if record["lastStatus"] != "STOPPED":
                self.engine.stop(container, int(definition.get("stopTimeout") or STOP_SECONDS))
                record["exitCode"] = self.engine.ended(container)[0]
        for output in self.outputs:
            output.join(LAST_WORDS_SECONDS)
        for container, record, _ in self.containers:
            record["lastStatus"] = "STOPPED"
            if not self.engine.closed:
                self.engine.remove(container)
        for record in self.record["containers"]:
            record["lastStatus"] = "STOPPED"
        for name in self.volumes.values():
            if not self.engine.closed:
                self.engine.remove_volume(name)

    # ── what it needs ──

    def pull(self, definition):
        image = self.image(definition)
        platform = (self.definition.get("runtimePlatform") or {}).get("cpuArchitecture") or "X86_64"
        try:
            self.engine.pull(image, {"ARM64": "linux/arm64"}.get(platform, "linux/amd64"))
        except EngineError as why:
            raise CannotStart(f"CannotPullContainerError: {definition['image']}: {why}") from None

    def image(self, definition):
        """The account's registry is this emulator."""
        return ACCOUNT_REGISTRY.sub(f"{LOOPBACK}:{self.engine.port}/", definition["image"])

    def vpc(self):
        """One network of the engine is one VPC."""
        subnet = self.record.get("_subnet")
        if subnet is None:
            return "default"
        if subnet not in ec2._subnets:
            raise CannotStart(f"ResourceInitializationError: the subnet {subnet} does not exist")
        return ec2._subnets[subnet]["VpcId"]

    def found_by(self):
        """(id of the Cloud Map service, name) under which the task is found."""
        group = self.record["group"]
        cluster = ecs._cluster_name_from_arn(self.record["clusterArn"])
        service = ecs._services.get(f"{cluster}/{group.removeprefix('service:')}") if group.startswith("service:") else None
        found = []
        for registry in (service or {}).get("serviceRegistries") or []:
            known = servicediscovery._services.get(registry["registryArn"].rsplit("/", 1)[-1])
            if known is None:
                raise CannotStart(f"ResourceInitializationError: {registry['registryArn']} does not exist")
            namespace = servicediscovery._namespaces[known["NamespaceId"]]
            found.append((known["Id"], f"{known['Name']}.{namespace['Name']}"))
        return found

    def start_container(self, definition, record, network, gateway):
        override = self.overrides.get(definition["name"], {})
        config = {
            "Env": [f"{name}={value}" for name, value in self.environment(definition, override, gateway).items()],
            "Entrypoint": definition.get("entryPoint") or None,
            "Cmd": override.get("command") or definition.get("command") or None,
            "User": definition.get("user") or "",
            "WorkingDir": definition.get("workingDirectory") or "",
            "Labels": {**(definition.get("dockerLabels") or {}), **self.labels(definition)},
            "ExposedPorts": {
                f"{port['containerPort']}/{port.get('protocol', 'tcp')}": {} for port in definition.get("portMappings") or []
            },
        }
        if definition.get("healthCheck"):
            config["Healthcheck"] = health(definition["healthCheck"])
        host = limits(definition, self.definition, self.engine.cpus())
        host["Binds"] = [self.mount(definition, point) for point in definition.get("mountPoints") or []]
        where = {"network": network, "aliases": [name for _, name in self.names]}
        if self.containers:
            # Containers of a task share one interface.
            host["NetworkMode"], where = f"container:{self.containers[0][0]}", {}
        place = self.log_place(definition)
        name = f"fleet-emulator-{self.engine.port}-{self.id[:12]}-{definition['name']}"
        try:
            container = self.engine.start(name, self.image(definition), config, host, **where)
        except (EngineError, errors.APIError) as why:
            raise CannotStart(f"CannotStartContainerError: {definition['name']}: {why}") from None
        self.containers.append((container, record, definition))
        record.update(lastStatus="RUNNING", runtimeId=container)
        if place:
            forward = threading.Thread(target=self.forward, args=(container, *place), daemon=True)
            forward.start()
            self.outputs.append(forward)

    def labels(self, definition):
        return {
            "com.amazonaws.ecs.cluster": self.record["clusterArn"],
            "com.amazonaws.ecs.container-name": definition["name"],
            "com.amazonaws.ecs.task-arn": self.record["taskArn"],
            "com.amazonaws.ecs.task-definition-family": self.definition["family"],
            "com.amazonaws.ecs.task-definition-version": str(self.definition["revision"]),
        }

    def environment(self, definition, override, gateway):
        region = get_region()
        environment = {
            # Where AWS is, for this task; on AWS nothing says so.
            "AWS_ENDPOINT_URL": f"http://{gateway}:{self.engine.port}",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
        }
        if self.definition.get("taskRoleArn"):
            address = self.engine.credentials_address()
            environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://{address}/v2/credentials/{self.credentials}"
        for variable in [*(definition.get("environment") or []), *(override.get("environment") or [])]:
            environment[variable["name"]] = variable["value"]
        for secret in definition.get("secrets") or []:
            environment[secret["name"]] = secret_value(secret["valueFrom"])
        return environment

    def mount(self, definition, point):
        volume = next((row for row in self.definition["volumes"] if row["name"] == point["sourceVolume"]), None)
        if volume is None:
            raise CannotStart(f"ResourceInitializationError: the definition has no volume {point['sourceVolume']}")
        source = self.files(definition, volume)
        return f"{source}:{point['containerPath']}:{'ro' if point.get('readOnly') else 'rw'}"

    def files(self, definition, volume):
        """Where the engine has a volume: a folder of a file system, or one of the task alone."""
        asked = volume.get("efsVolumeConfiguration")
        if not asked:
            name, _ = self.engine.volume(f"{self.id[:12]}-{volume['name']}")
            self.volumes[volume["name"]] = name
            return name
        system = asked["fileSystemId"]
        failed = "ResourceInitializationError: failed to invoke EFS utils commands to set up EFS volumes"
        if system not in efs._file_systems:
            raise CannotStart(f"{failed}: Failed to resolve {system}")
        if not any(target["FileSystemId"] == system for target in efs._mount_targets.values()):
            raise CannotStart(f"{failed}: {system} has no mount target")
        path, owner = asked.get("rootDirectory") or "/", None
        point = (asked.get("authorizationConfig") or {}).get("accessPointId")
        if point:
            known = efs._access_points.get(point)
            if known is None or known["FileSystemId"] != system:
                raise CannotStart(f"{failed}: the access point {point} does not exist")
            root = known.get("RootDirectory") or {}
            path, owner = root.get("Path") or "/", creation(root.get("CreationInfo"))
        name, place = self.engine.volume(system)
        path = "/" + "/".join(part for part in path.split("/") if part not in ("", ".", ".."))
        if path != "/" and not self.engine.folder(name, self.image(definition), path, owner):
            raise CannotStart(f"{failed}: {path} does not exist on {system}, and nothing says who would own it")
        return place + path

    # ── its output ──

    def log_place(self, definition):
        """(group, stream) of its output. A group that is not there keeps a task from starting."""
        asked = definition.get("logConfiguration")
        if not asked:
            return None
        options = asked.get("options") or {}
        group, prefix = options.get("awslogs-group"), options.get("awslogs-stream-prefix")
        if options.get("awslogs-create-group") == "true":
            cloudwatch_logs._create_log_group({"logGroupName": group})
        stream = f"{prefix}/{definition['name']}/{self.id}"
        status, _, body = cloudwatch_logs._create_log_stream({"logGroupName": group, "logStreamName": stream})
        if status >= 400:
            said = body.decode() if isinstance(body, bytes) else body
            raise CannotStart(f"ResourceInitializationError: failed to validate logger args: {group}: {said}")
        return group, stream

    def forward(self, container, group, stream):
        with request_scope(self.record["taskArn"].split(":")[4], self.record["taskArn"].split(":")[3]):
            rest = b""
            try:
                for piece in self.engine.output(container):
                    *lines, rest = (rest + piece).split(b"\n")
                    tell(group, stream, lines)
                tell(group, stream, [rest] if rest else [])
            except (EngineError, errors.DockerException, OSError) as why:
                log.info("output of %s ends: %s", stream, why)


def tell(group, stream, lines):
    events = []
    for line in lines:
        when, _, words = line.decode(errors="replace").partition(" ")
        # The engine counts nanoseconds.
        moment = datetime.fromisoformat(when[:23] + "+00:00")
        events.append({"timestamp": int(moment.timestamp() * 1000), "message": words.rstrip("\r")})
    if events:
        cloudwatch_logs._put_log_events({"logGroupName": group, "logStreamName": stream, "logEvents": events})


def credentials(path):
    """What a task gets at its address for credentials: those of a session of its role. None for nobody's address."""
    asked = path.rsplit("/", 1)[-1]
    task = next((task for task in list(LIVE.values()) if task.credentials == asked), None)
    role = task and task.definition.get("taskRoleArn")
    if not role:
        return None
    account, region = role.split(":")[4], task.record["taskArn"].split(":")[3]
    with request_scope(account, region):
        key, secret, token = sts._gen_session_access_key(), sts._gen_secret(), sts._gen_session_token()
        session = {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role.rsplit('/', 1)[-1]}/{task.id}",
            "UserId": f"{sts._role_id(role)}:{task.id}",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": time.time() + 3600,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
        }
        sts.register_session(key, session)
        return {
            "RoleArn": role,
            "AccessKeyId": key,
            "SecretAccessKey": secret,
            "Token": token,
            "Expiration": sts._future(3600),
        }
