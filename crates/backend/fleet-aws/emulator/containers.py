"""`install`: CloudFormation's `AWS::ECS::TaskDefinition` and `AWS::ECS::Service`, handed to ECS whole, and waited for.

MiniStack drops entry points, secrets, health checks and volumes of a definition and registries of a service on the way, and a
stack of it is complete before anything runs. On AWS a service is complete once its tasks run and are healthy; when the circuit
breaker gives its deployment up, the stack fails.
"""

from ministack.services import ecs
from ministack.services.cloudformation import provisioners, stacks

import services

# Maps whose keys are not names of properties.
FREE = {"Options", "DockerLabels"}
# Spelt in another way by the API.
SPELT = {"EFSVolumeConfiguration": "efsVolumeConfiguration", "FilesystemId": "fileSystemId", "IAM": "iam"}


def as_the_api(value, free=False):
    """Properties of a template as the API of ECS names them."""
    if isinstance(value, dict):
        return {
            name if free else SPELT.get(name, name[:1].lower() + name[1:]): as_the_api(inner, name in FREE)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [as_the_api(inner) for inner in value]
    return value


def make_definition(former):
    def make(logical_id, properties, stack):
        arn, attributes = former(logical_id, properties, stack)
        whole = as_the_api(properties)
        definition = ecs._task_defs[ecs._resolve_td_key(arn)]
        for container in whole.get("containerDefinitions") or []:
            container.setdefault("cpu", 0)
            container.setdefault("essential", True)
        for name in ("containerDefinitions", "volumes", "runtimePlatform", "ephemeralStorage"):
            if whole.get(name):
                definition[name] = whole[name]
        return arn, attributes

    return make


def make_service(engine):
    def make(logical_id, properties, stack):
        asked = as_the_api({**properties, "ServiceName": properties.get("ServiceName", f"{stack}-{logical_id}")})
        status, _, body = ecs._create_service(asked)
        if status >= 400:
            raise ValueError(f"AWS::ECS::Service: {text(body)}")
        cluster = ecs._resolve_cluster_name(asked.get("cluster", "default"))
        account, region = services.here()
        arn = f"arn:aws:ecs:{region}:{account}:service/{cluster}/{asked['serviceName']}"
        if engine is not None and (why := services.wait_until_settled(arn, account, region)):
            # It has no physical id yet by which a rollback would find it.
            drop_service(arn, properties)
            raise ValueError(f"Resource handler returned message: \"{why}\"")
        return arn, {"ServiceArn": arn, "Name": asked["serviceName"]}

    return make


def change_service(engine, former):
    def change(arn, old, new, stack):
        former(arn, old, new, stack)
        if new.get("ServiceRegistries") != old.get("ServiceRegistries"):
            where = {"cluster": arn.split("/")[1], "service": arn}
            ecs._update_service({**where, "serviceRegistries": as_the_api(new.get("ServiceRegistries") or [])})
        if engine is not None and (why := services.wait_until_settled(arn, *services.here())):
            # Where it rolls itself back, that comes to its end first.
            services.wait_until_settled(arn, *services.here())
            raise ValueError(f"Resource handler returned message: \"{why}\"")
        return arn, {"ServiceArn": arn, "Name": arn.rsplit("/", 1)[-1]}

    return change


def drop_service(arn, _):
    ecs._delete_service({"cluster": arn.split("/")[1], "service": arn, "force": True})
    services.wait_until_gone(arn)


def text(body):
    return body.decode() if isinstance(body, bytes) else body


def install(engine):
    """With `engine` None nothing runs, and nothing is waited for."""
    handlers = provisioners._RESOURCE_HANDLERS
    definition, service = handlers["AWS::ECS::TaskDefinition"], handlers["AWS::ECS::Service"]
    definition["create"] = provisioners._ecs_task_def_create = make_definition(definition["create"])
    service.update(create=make_service(engine), update=change_service(engine, service["update"]), delete=drop_service)
    on_worker = stacks._runs_on_worker_thread
    stacks._runs_on_worker_thread = lambda kind: kind == "AWS::ECS::Service" or on_worker(kind)
