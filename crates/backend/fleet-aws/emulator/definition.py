"""What a task definition asks for, in the words of a container engine; and the refusal of what is not done here."""

import json

from ministack.services import secretsmanager, ssm

NANO = 10**9
# What a container may ask for; anything else that is not empty is refused.
DONE = {
    "name", "image", "essential", "entryPoint", "command", "environment", "secrets", "mountPoints", "user", "healthCheck",
    "cpu", "memory", "memoryReservation", "portMappings", "logConfiguration", "stopTimeout", "workingDirectory", "ulimits",
    "readonlyRootFilesystem", "dockerLabels", "linuxParameters", "startTimeout", "versionConsistency",
}


class CannotStart(Exception):
    """Why a task does not start, in the words of ECS."""


def refuse(definition):
    """What would be ignored is refused."""
    for container in definition["containerDefinitions"]:
        more = sorted(name for name, value in container.items() if value and name not in DONE)
        linux = container.get("linuxParameters") or {}
        more += sorted(name for name, value in linux.items() if value and name not in ("capabilities", "initProcessEnabled"))
        driver = (container.get("logConfiguration") or {}).get("logDriver", "awslogs")
        if driver != "awslogs":
            more.append(f"the log driver {driver}")
        elif container.get("logConfiguration") and not container["logConfiguration"]["options"].get("awslogs-stream-prefix"):
            more.append("awslogs without a stream prefix, which Fargate refuses, too")
        if more:
            raise CannotStart(f"EmulatorError: container {container['name']}: this emulator does not do {', '.join(more)}")
    for volume in definition.get("volumes") or []:
        more = sorted(name for name, value in volume.items() if value and name not in ("name", "efsVolumeConfiguration"))
        if more:
            raise CannotStart(f"EmulatorError: volume {volume['name']}: this emulator does not do {', '.join(more)}")


def creation(info):
    if not info:
        return None
    return int(info["OwnerUid"]), int(info["OwnerGid"]), int(info["Permissions"], 8)


def health(check):
    return {
        "Test": check["command"],
        "Interval": int(check.get("interval") or 30) * NANO,
        "Timeout": int(check.get("timeout") or 5) * NANO,
        "Retries": int(check.get("retries") or 3),
        "StartPeriod": int(check.get("startPeriod") or 0) * NANO,
    }


def secret_value(reference):
    """A secret of Secrets Manager, whole or one field of its JSON, or a parameter."""
    failed = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: "
    if ":secretsmanager:" not in reference:
        value = ssm.resolve_parameter_value(reference, decrypt=True)
        if value is None:
            raise CannotStart(f"{failed}unable to retrieve secrets from ssm: invalid parameters: {reference}")
        return value
    parts = [*reference.split(":"), "", "", ""]
    field, stage, version = parts[7:10]
    value = secretsmanager.resolve_secret_string(":".join(parts[:7]), stage or "AWSCURRENT", version or None)
    if value is None:
        raise CannotStart(f"{failed}unable to retrieve secret from asm: {reference} has no value")
    if not field:
        return value
    try:
        return str(json.loads(value)[field])
    except (ValueError, KeyError, TypeError):
        # Not chained: what cannot be read as JSON would be in the error.
        raise CannotStart(f"{failed}retrieved secret from Secrets Manager did not contain json key {field}") from None


def limits(container, task, cpus):
    """Limits and rights of a container as the engine names them; the task's are those of a container without its own."""
    cpu, memory = container.get("cpu") or task.get("cpu"), container.get("memory")
    memory = int(memory or task.get("memory") or 0) * 1024 * 1024
    linux = container.get("linuxParameters") or {}
    rights = linux.get("capabilities") or {}
    return {
        # More than the machine has is refused by the engine.
        "NanoCpus": int(min(int(cpu or 0) / 1024, cpus) * NANO),
        "Memory": memory,
        "MemorySwap": memory,
        "ReadonlyRootfs": bool(container.get("readonlyRootFilesystem")),
        "Init": bool(linux.get("initProcessEnabled")),
        "CapAdd": rights.get("add") or [],
        "CapDrop": rights.get("drop") or [],
        "Ulimits": [
            {"Name": limit["name"], "Soft": int(limit["softLimit"]), "Hard": int(limit["hardLimit"])}
            for limit in container.get("ulimits") or []
        ],
    }
