"""MiniStack 1.5.33 with what our stacks need and it lacks: an AWS account on one port of loopback.

What is added, all of it on top of MiniStack's own services:

* resource types of CloudFormation that it refuses (`register` below). Each is made with MiniStack's own EC2, Backup or IAM
  calls, so that what a stack made is seen by whoever asks those services;
* a `Ref` of a secret that is its ARN, and passwords without punctuation where the template asks for that;
* buckets, clusters and vaults that are not removed as long as something is in them, and recovery points;
* whether a changed property replaces a resource, from a table that is handed in: MiniStack says "perhaps" of most types;
* a log of every request, as lines of JSON, so that tests and people see what was asked and what was written;
* bad answers, where tests ask for them;
* Service Quotas: `quotas.py`;
* Session Manager: `sessions.py`;
* tasks that run, as containers: `services.py`, `tasks.py`, `containers.py`, and `engine.py` for the engine they run in.

Its environment: MiniStack's own (`GATEWAY_PORT`, `BIND_HOST`, …), `FLEET_EMULATOR_LOG`, the file for requests,
`FLEET_EMULATOR_FAULTS`, the file of bad answers to give, `FLEET_EMULATOR_QUOTAS`, the file of quotas that the account asked for,
`FLEET_EMULATOR_LINE`, the file of what is wrong with the lines of sessions, `FLEET_EMULATOR_REPLACEMENTS`, the table: {"AWS::EC2::Subnet":
{"always": ["VpcId", …], "perhaps": […]}, …}, and `FLEET_EMULATOR_ENGINE`, the address of a container engine. Without that,
tasks are as MiniStack has them where there is no engine: on paper, running from the moment they are asked for.
It ends, with all that it started, on SIGTERM, and when its standard input ends without a word: then who started it is gone.
It shows how we read AWS, not how AWS is.
"""

import json
import logging
import os
import re
import signal
import string
import sys
import threading
import urllib.parse

from ministack import app as gateway
from ministack.services import backup, ec2, ecr, ecs, efs, iam, s3, secretsmanager, servicediscovery
from ministack.services.cloudformation import provisioners, stacks

import containers
import quotas
import services
import sessions
import tasks
from engine import FROM_TASKS, Engine, EngineError

HANDLERS = provisioners._RESOURCE_HANDLERS
CREDENTIALS = "/v2/credentials/"
# After which it ends, whatever does not.
END_SECONDS = 60


# ── asking MiniStack's services ─────────────────────────────────────────────────────────────────────────────────────


def answered(response):
    """The text of an answer, or the error that it is."""
    status, _, body = response
    text = body.decode() if isinstance(body, bytes) else body
    if status >= 400:
        raise ValueError(" ".join(re.sub(r"<[^>]+>", " ", text).split()))
    return text


def ask(action, **fields):
    """A call of a service that speaks the query protocol."""
    return answered(action({name: [str(value)] for name, value in fields.items() if value is not None}))


def first(text, tag):
    """What the first element of this name holds."""
    found = re.search(rf"<{tag}>([^<]*)</{tag}>", text)
    if not found:
        raise ValueError(f"the emulator's answer has no {tag}: {text}")
    return found.group(1)


def tagged(properties, kind):
    """The fields that tag a resource as it is made."""
    tags = properties.get("Tags") or []
    fields = {"TagSpecification.1.ResourceType": kind} if tags else {}
    for at, tag in enumerate(tags, 1):
        fields[f"TagSpecification.1.Tag.{at}.Key"] = tag["Key"]
        fields[f"TagSpecification.1.Tag.{at}.Value"] = tag["Value"]
    return fields


def register(kind, create, delete, in_place=()):
    """Adds a resource type. Properties of `in_place` can change without another resource taking its place."""

    def update(physical_id, old, new, stack, logical_id):
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if changed <= set(in_place):
            return physical_id, {}
        made = create(logical_id, new, stack)
        delete(physical_id, old)
        return made

    HANDLERS[kind] = {"create": create, "delete": delete, "update": update, "update_with_logical_id": True}


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_address(_, properties, __):
    made = ask(ec2._allocate_address, Domain=properties.get("Domain", "vpc"), **tagged(properties, "elastic-ip"))
    address = first(made, "publicIp")
    return address, {"AllocationId": first(made, "allocationId"), "PublicIp": address}


def drop_address(address, _):
    held = [name for name, record in ec2._addresses.items() if record["PublicIp"] == address]
    for allocation in held:
        ask(ec2._release_address, AllocationId=allocation)


def make_nat_gateway(_, properties, __):
    made = ask(
        ec2._create_nat_gateway,
        SubnetId=properties.get("SubnetId"),
        AllocationId=properties.get("AllocationId"),
        ConnectivityType=properties.get("ConnectivityType"),
        **tagged(properties, "natgateway"),
    )
    gateway_id = first(made, "natGatewayId")
    return gateway_id, {"NatGatewayId": gateway_id}


def drop_nat_gateway(gateway_id, _):
    ask(ec2._delete_nat_gateway, NatGatewayId=gateway_id)


def permission(properties, peer):
    """One rule of a security group as the EC2 API takes it."""
    fields = {"GroupId": properties["GroupId"], "IpPermissions.1.IpProtocol": properties.get("IpProtocol", "-1")}
    for name in ("FromPort", "ToPort"):
        fields[f"IpPermissions.1.{name}"] = properties.get(name)
    if properties.get("CidrIp"):
        fields["IpPermissions.1.IpRanges.1.CidrIp"] = properties["CidrIp"]
        fields["IpPermissions.1.IpRanges.1.Description"] = properties.get("Description")
    if properties.get(peer):
        fields["IpPermissions.1.Groups.1.GroupId"] = properties[peer]
        fields["IpPermissions.1.Groups.1.Description"] = properties.get("Description")
    return fields


def register_rules(direction, authorize, revoke, peer):
    def create(_, properties, __):
        rule = first(ask(authorize, **permission(properties, peer)), "securityGroupRuleId")
        return rule, {"Id": rule}

    def delete(_, properties):
        if properties["GroupId"] in ec2._security_groups:
            ask(revoke, **permission(properties, peer))

    register(f"AWS::EC2::SecurityGroup{direction}", create, delete)


def make_flow_log(_, properties, __):
    made = ask(
        ec2._create_flow_logs,
        **{"ResourceId.1": properties["ResourceId"]},
        ResourceType=properties.get("ResourceType"),
        TrafficType=properties.get("TrafficType"),
        LogGroupName=properties.get("LogGroupName"),
        LogDestination=properties.get("LogDestination"),
        LogDestinationType=properties.get("LogDestinationType"),
    )
    log = first(made, "item")
    return log, {"Id": log}


def drop_flow_log(log, _):
    ask(ec2._delete_flow_logs, **{"FlowLogId.1": log})


def make_instance(_, properties, __):
    groups = {f"SecurityGroupId.{at}": group for at, group in enumerate(properties.get("SecurityGroupIds") or [], 1)}
    profile = properties.get("IamInstanceProfile")
    if profile:
        groups["IamInstanceProfile.Name"] = profile.rsplit("/", 1)[-1]
    made = ask(
        ec2._run_instances,
        ImageId=properties["ImageId"],
        InstanceType=properties.get("InstanceType"),
        SubnetId=properties.get("SubnetId"),
        MinCount=1,
        MaxCount=1,
        **groups,
        **tagged(properties, "instance"),
    )
    instance = first(made, "instanceId")
    return instance, {"InstanceId": instance, "PrivateIp": ec2._instances[instance].get("PrivateIpAddress", "")}


def drop_instance(instance, _):
    ask(ec2._terminate_instances, **{"InstanceId.1": instance})


register("AWS::EC2::EIP", make_address, drop_address, in_place=("Tags",))
register("AWS::EC2::NatGateway", make_nat_gateway, drop_nat_gateway, in_place=("Tags",))
register("AWS::EC2::FlowLog", make_flow_log, drop_flow_log, in_place=("Tags",))
register("AWS::EC2::Instance", make_instance, drop_instance, in_place=("Tags", "SecurityGroupIds", "MetadataOptions"))
register_rules("Ingress", ec2._authorize_sg_ingress, ec2._revoke_sg_ingress, "SourceSecurityGroupId")
register_rules("Egress", ec2._authorize_sg_egress, ec2._revoke_sg_egress, "DestinationSecurityGroupId")


# ── backups and identity ────────────────────────────────────────────────────────────────────────────────────────────


def make_selection(_, properties, __):
    plan = properties["BackupPlanId"]
    made = json.loads(answered(backup._create_selection(plan, {"BackupSelection": properties["BackupSelection"]})))
    selection = made["SelectionId"]
    return f"{selection}_{plan}", {"Id": f"{selection}_{plan}", "SelectionId": selection, "BackupPlanId": plan}


def drop_selection(physical_id, _):
    backup._selections.pop(physical_id.split("_")[0], None)


def make_identity_provider(_, properties, __):
    fields = {"Url": properties["Url"]}
    for name, member in (("ClientIdList", "ClientIDList"), ("ThumbprintList", "ThumbprintList")):
        for at, value in enumerate(properties.get(name) or [], 1):
            fields[f"{member}.member.{at}"] = value
    arn = first(ask(iam._create_oidc_provider, **fields), "OpenIDConnectProviderArn")
    return arn, {"Arn": arn}


def drop_identity_provider(arn, _):
    ask(iam._delete_oidc_provider, OpenIDConnectProviderArn=arn)


register("AWS::Backup::BackupSelection", make_selection, drop_selection)
register("AWS::IAM::OIDCProvider", make_identity_provider, drop_identity_provider, in_place=("Tags",))


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def secrets_have_arns():
    """`Ref` of a secret is its ARN on AWS and its name in MiniStack; the handlers take the name."""
    handler = HANDLERS["AWS::SecretsManager::Secret"]
    create, delete, update = handler["create"], handler["delete"], handler["update"]

    def name_of(reference):
        return secretsmanager._resolve(reference)[0] or reference

    def made(logical_id, properties, stack):
        _, attributes = create(logical_id, properties, stack)
        return attributes["Arn"], attributes

    def changed(physical_id, old, new, stack, *more):
        _, attributes = update(name_of(physical_id), old, new, stack, *more)
        return physical_id, {"Id": physical_id, "Arn": physical_id, **(attributes or {})}

    handler.update(create=made, update=changed, delete=lambda physical_id, old: delete(name_of(physical_id), old))


def secrets_without_punctuation():
    """`ExcludePunctuation`, which MiniStack ignores."""
    generate = provisioners._sm_secret_string

    def generated(properties):
        wanted = properties.get("GenerateSecretString")
        if wanted and str(wanted.get("ExcludePunctuation", "")).lower() == "true":
            without = wanted.get("ExcludeCharacters", "") + string.punctuation
            properties = {**properties, "GenerateSecretString": {**wanted, "ExcludeCharacters": without}}
        return generate(properties)

    provisioners._sm_secret_string = generated


secrets_have_arns()
secrets_without_punctuation()


# ── access points ───────────────────────────────────────────────────────────────────────────────────────────────────


def access_points_by_token():
    """A creation token makes one access point, however often it is sent; MiniStack ignores it."""
    create = efs._create_access_point

    def created(body):
        token = body.get("ClientToken")
        if token and any(point["ClientToken"] == token for point in efs._access_points.values()):
            return efs._error(409, "AccessPointAlreadyExists", f"there is one by the token {token}")
        return create(body)

    efs._create_access_point = created


access_points_by_token()


# ── namespaces ──────────────────────────────────────────────────────────────────────────────────────────────────────


def namespaces_by_network():
    """A private namespace has its name for itself in its network; MiniStack lets an account have one of a name."""
    create, network_of = servicediscovery._create_namespace_record, sessions.NETWORK_OF

    def created(name, kind, *more, **fields):
        network = fields.get("vpc", more[3] if len(more) > 3 else None)
        known = servicediscovery._namespaces
        elsewhere = {
            key: record
            for key, record in known.items()
            if record["Name"] == name and network and network_of.get(key) not in (None, network)
        }
        for key in elsewhere:
            del known[key]
        try:
            made, error = create(name, kind, *more, **fields)
        finally:
            for key, record in elsewhere.items():
                known[key] = record
        if made:
            network_of[made["Id"]] = network
        return made, error

    servicediscovery._create_namespace_record = created


namespaces_by_network()
sessions.install()


# ── the registry ────────────────────────────────────────────────────────────────────────────────────────────────────────


def manifests_of_what_is_there():
    """A manifest of blobs that were never sent is refused, as by every registry; MiniStack keeps it, and pulls fail."""
    put = ecr._v2_put_manifest

    def checked(name, reference, headers, body):
        try:
            manifest = json.loads(body)
            parts = [*manifest.get("layers", []), *([manifest["config"]] if "config" in manifest else [])]
            blobs, images = ecr._layer_blobs.get(name, {}), ecr._manifest_blobs.get(name, {})
            missing = [part["digest"] for part in parts if part["digest"] not in blobs]
            missing += [part["digest"] for part in manifest.get("manifests", []) if part["digest"] not in images]
        except (ValueError, TypeError, KeyError, AttributeError) as why:
            return ecr._registry_error(400, "MANIFEST_INVALID", f"it is not understood: {why}", {})
        if missing:
            return ecr._registry_error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", {"digest": missing[0]})
        return put(name, reference, headers, body)

    ecr._v2_put_manifest = checked


manifests_of_what_is_there()


# ── what does not go as long as something is in it ──────────────────────────────────────────────────────────────────


def goes_when_empty(kind, action):
    """Resources that CloudFormation removes by the service's own call, which refuses; MiniStack's handlers just forget them."""
    former = HANDLERS[kind]["delete"]

    def delete(physical_id, properties):
        answered(action(physical_id))
        former(physical_id, properties)

    HANDLERS[kind]["delete"] = delete


def delete_bucket(name):
    if name not in s3._buckets:
        return 204, {}, b""
    return s3._delete_bucket(name)


def delete_cluster(name):
    there = [service for key, service in ecs._services.items() if key.startswith(f"{name}/")]
    if any(service["status"] != "INACTIVE" for service in there):
        why = "The Cluster cannot be deleted while Services are active."
        return 400, {}, json.dumps({"__type": "ClusterContainsServicesException", "message": why})
    return 200, {}, "{}"


def recovery_points():
    """Recovery points are listed and removed, and a vault that has any stays. MiniStack knows them as jobs only."""
    handle, delete_vault = backup.handle_request, backup._delete_vault

    def of(vault):
        return [job for job in backup._jobs.values() if job["BackupVaultName"] == vault and job["RecoveryPointArn"]]

    def listed(vault, query):
        if vault not in backup._vaults:
            return backup._not_found(f"Vault '{vault}' not found.")
        points = [{"RecoveryPointArn": job["RecoveryPointArn"], "BackupVaultName": vault} for job in of(vault)]
        return backup._paginate(points, query, "RecoveryPoints")

    def emptied(vault):
        if of(vault):
            return backup._err("InvalidRequestException", "Backup vault cannot be deleted because it contains recovery points.")
        return delete_vault(vault)

    async def handled(method, path, headers, body, query):
        parts = [part for part in path.strip("/").split("/") if part]
        if method == "DELETE" and parts[0] == "backup-vaults" and parts[2:3] == ["recovery-points"]:
            found = [job for job in of(parts[1]) if job["RecoveryPointArn"] == "/".join(parts[3:])]
            for job in found:
                job["RecoveryPointArn"] = ""
            return backup._no_content() if found else backup._not_found("Recovery point not found.")
        return await handle(method, path, headers, body, query)

    backup.handle_request, backup._delete_vault, backup._list_recovery_points_by_vault = handled, emptied, listed


goes_when_empty("AWS::S3::Bucket", delete_bucket)
goes_when_empty("AWS::ECS::Cluster", delete_cluster)
recovery_points()


# ── replacement ─────────────────────────────────────────────────────────────────────────────────────────────────────


def replace_by(table):
    """A property is judged by the rows that name it or something in it."""

    def recreation(kind, name):
        row = table.get(kind)
        if row is None:
            return "Conditionally"
        named = {word for word, paths in row.items() if any(path.split("/")[0] == name for path in paths)}
        return "Always" if "always" in named else "Conditionally" if "perhaps" in named else "Never"

    provisioners._property_recreation = recreation
    stacks._property_recreation = recreation


# ── the log of requests, and faults ─────────────────────────────────────────────────────────────────────────────────────────────


def action_of(scope, body):
    """`cloudformation CreateChangeSet`, `ecr GetAuthorizationToken`, `PUT /v2/…`."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", [])}
    signed = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", headers.get("authorization", ""))
    service = signed.group(1) if signed else ""
    target = headers.get("x-amz-target", "")
    if target:
        return f"{service} {target.rsplit('.', 1)[-1]}"
    form = urllib.parse.parse_qs(body.decode("latin-1")) if b"Action=" in body else {}
    if "Action" in form:
        return f"{service} {form['Action'][0]}"
    return f"{scope['method']} {scope['path']}"


class Gateway:
    """The gateway, with every request written down before it is answered, and some answered badly where that is asked for.
    Bodies are not written down: they may hold secrets."""

    def __init__(self, app, log, faults):
        self.app = app
        self.log = open(log, "a", buffering=1, encoding="utf-8")
        self.faults = faults

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket" and scope["path"].startswith(sessions.PATH):
            self.write("ssmmessages OpenDataChannel", False)
            return await sessions.serve(scope, receive, send)
        if scope["type"] != "http" or scope["path"].startswith("/_ministack/"):
            return await self.app(scope, receive, send)
        if scope["path"].startswith(CREDENTIALS):
            return await task_credentials(scope["path"], send)
        by_task = (scope.get("client") or ("",))[0] == FROM_TASKS
        if scope["path"].startswith("/v2/"):
            self.write(f"{scope['method']} {scope['path']}", by_task)
            return await self.app(scope, receive, send)
        messages, body = [], b""
        while True:
            message = await receive()
            messages.append(message)
            body += message.get("body", b"")
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        action = action_of(scope, body)
        self.write(action, by_task)

        async def again():
            return messages.pop(0) if messages else await receive()

        fault = self.fault(action)
        if fault is None and action.startswith("servicequotas "):
            return await tell_quota(action.split()[1], body, send)
        if fault is None:
            return await self.app(scope, again, send)
        if fault == "lose":
            await self.app(scope, again, nobody)
        return await bad_answer(send, scope, fault)

    def write(self, action, by_task):
        self.log.write(json.dumps({"action": action, "by_task": by_task}) + "\n")

    def fault(self, action):
        """The next fault for this action, which is then used up: a file of `[["cloudformation CreateChangeSet", "lose"]]`."""
        if not self.faults or not os.path.exists(self.faults):
            return None
        with open(self.faults, encoding="utf-8") as file:
            waiting = json.load(file)
        for at, (wanted, fault) in enumerate(waiting):
            if wanted == action:
                del waiting[at]
                with open(self.faults, "w", encoding="utf-8") as file:
                    json.dump(waiting, file)
                return fault
        return None


async def nobody(_):
    """An answer that does not arrive."""


# Status, code and message. The last two as services with a JSON protocol word them (IAM user guide, "Troubleshoot Signature
# Version 4").
BAD_ANSWERS = {
    "throttle": (400, "Throttling", "as asked for"),
    "fail": (500, "InternalFailure", "as asked for"),
    "lose": (500, "InternalFailure", "as asked for"),
    "deny": (403, "AccessDenied", "as asked for"),
    "expire": (400, "ExpiredTokenException", "The security token included in the request is expired"),
    "skew": (400, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z"),
}


async def bad_answer(send, scope, fault):
    """In the protocol of who asks: JSON, or that of CloudFormation."""
    status, code, message = BAD_ANSWERS[fault]
    if any(name.lower() == b"x-amz-target" for name, _ in scope["headers"]):
        kind, error = b"application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
    else:
        error = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        kind = b"text/xml"
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": error.encode()})


async def tell_quota(action, body, send):
    status, document = quotas.answer(action, body, os.environ["MINISTACK_REGION"], os.environ["MINISTACK_ACCOUNT_ID"])
    headers = [(b"content-type", b"application/x-amz-json-1.1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


async def task_credentials(path, send):
    """No log: the path is as good as the credentials."""
    found = tasks.credentials(path)
    start = {"type": "http.response.start", "status": 200 if found else 404, "headers": [(b"content-type", b"application/json")]}
    await send(start)
    await send({"type": "http.response.body", "body": json.dumps(found or {"message": "no task has these credentials"}).encode()})


# ── beginning and end ──────────────────────────────────────────────────────────────────────────────────────────────────


def end_with_the_starter():
    """Ends when the other end of standard input is closed, unless a word arrived first."""
    if not sys.stdin.buffer.read(1):
        os.kill(os.getpid(), signal.SIGTERM)


def containers_of(address):
    """Tasks run in this engine. Where it does not answer they wait for it, and stacks do not wait for them."""
    engine = Engine(address, int(os.environ["GATEWAY_PORT"]))
    if not address:
        containers.install(None)
        return engine
    services.Scheduler(engine).install()
    try:
        engine.clean()
        containers.install(engine)
    except EngineError as why:
        logging.getLogger("fleet").warning("%s", why)
        containers.install(None)
    return engine


if __name__ == "__main__":
    if os.environ.get("FLEET_EMULATOR_REPLACEMENTS"):
        with open(os.environ["FLEET_EMULATOR_REPLACEMENTS"], encoding="utf-8") as table_file:
            replace_by(json.load(table_file))
    if os.environ.get("FLEET_EMULATOR_LOG"):
        faults = os.environ.get("FLEET_EMULATOR_FAULTS")
        gateway.app = Gateway(gateway.app, os.environ["FLEET_EMULATOR_LOG"], faults)
    engine = containers_of(os.environ.get("FLEET_EMULATOR_ENGINE", ""))
    threading.Thread(target=end_with_the_starter, daemon=True).start()
    try:
        gateway.main()
    finally:
        threading.Timer(END_SECONDS, os._exit, [1]).start()
        engine.close()
        # Not by returning: threads that wait for tasks would keep the process.
        os._exit(0)
