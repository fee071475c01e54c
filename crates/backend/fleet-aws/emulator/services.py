"""`Scheduler`: keeps as many tasks of each service as it asks for, and rolls it to another revision within its percentages.

It counts only what `tasks.py` says of containers. MiniStack's own scheduler is switched off. Stricter than ECS in one point:
a task that is stopping still counts, so that two tasks of a service with 0/100 are never there at once; on ECS the successor
may start meanwhile. Deliberately absent: load balancers, daemons, placement.
"""

import logging
import math
import threading
import time

from ministack.core.responses import error_response_json, get_account_id, get_region, new_uuid, now_iso, request_scope
from ministack.services import ecs

import tasks

log = logging.getLogger("fleet.services")

TICK_SECONDS = 0.25
# How long a task without a health check runs before it counts as one that works.
STEADY_SECONDS = 3
# Pause before a task is started again that failed: doubled each time, up to the last.
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1, 60
# Failures in a row after which it is said.
SAID_AFTER = 4
# Events that are kept of a service, as on AWS.
EVENTS = 100
BREAKER = "ECS deployment circuit breaker"
# Held whenever services or their deployments change.
LOCK = threading.RLock()


class Scheduler:
    def __init__(self, engine):
        self.engine = engine
        self.woken = threading.Event()

    def install(self):
        """Takes the place of MiniStack's scheduler."""
        ecs._get_docker = lambda: self.engine
        ecs._run_task_worker = lambda record, definition, overrides, engine, account, region: tasks.run(
            engine, record, definition, overrides, account, region
        )
        ecs._reconcile_service_tasks = lambda *_: self.woken.set()
        ecs._refresh_service_state = lambda *_: None
        ecs._maybe_mark_stopped = lambda *_: None
        ecs._ensure_ecs_reaper_thread = lambda: None
        make = ecs._make_deployment
        ecs._make_deployment = lambda *asked, **more: {**make(*asked, **more), **fresh()}
        for action, changed in {
            "_create_service": create_service,
            "_update_service": update_service,
            "_delete_service": delete_service,
            "_run_task": run_task,
            "_stop_task": stop_task,
            "_execute_command": no_session,
            "_delete_task_definitions": delete_definitions,
        }.items():
            self.replace(action, changed)
        threading.Thread(target=self.run, daemon=True, name="fleet-scheduler").start()

    def replace(self, action, changed):
        former = getattr(ecs, action)

        def replaced(data):
            return changed(former, data)

        setattr(ecs, action, replaced)
        for name, function in ecs._ACTION_MAP.items():
            if function is former:
                ecs._ACTION_MAP[name] = replaced

    def run(self):
        while not self.engine.closed:
            self.woken.wait(TICK_SECONDS)
            self.woken.clear()
            for (account, region, key), service in list(ecs._services.all_items()):
                try:
                    with request_scope(account, region), LOCK:
                        Tended(key.split("/", 1)[0], service).tend()
                except Exception:
                    log.exception("service %s", key)


def fresh():
    """What a new deployment begins with. Names with a line in front are ours and are not answered."""
    return {
        "rolloutState": "IN_PROGRESS",
        "rolloutStateReason": "ECS deployment in progress.",
        "_failures": 0,
        "_not_before": 0.0,
        "_rollback": False,
    }


class Tended:
    """A service at one moment."""

    def __init__(self, cluster, service):
        self.cluster, self.service = cluster, service
        self.of_service = [
            task
            for task in list(ecs._tasks.values())
            if task["group"] == f"service:{service['serviceName']}" and task["clusterArn"] == service["clusterArn"]
        ]
        self.there = [task for task in self.of_service if task["lastStatus"] != "STOPPED"]
        self.desired = int(service.get("desiredCount", 0))

    def tend(self):
        self.count()
        if self.service["status"] == "DRAINING":
            self.drain()
        if self.service["status"] != "ACTIVE":
            return
        self.replace_unhealthy()
        self.judge()
        self.scale()
        self.complete()

    # ── what is there ──

    def primary(self):
        return next(deployment for deployment in self.service["deployments"] if deployment["status"] == "PRIMARY")

    def live(self, of=None):
        wanted = [task for task in self.there if task["desiredStatus"] == "RUNNING"]
        return wanted if of is None else [task for task in wanted if task["_deployment_id"] == of["id"]]

    def others(self):
        return [task for task in self.live() if task["_deployment_id"] != self.primary()["id"]]

    def count(self):
        def counts(of):
            running = sum(task["lastStatus"] == "RUNNING" for task in of)
            pending = sum(task["lastStatus"] in ("PROVISIONING", "PENDING", "ACTIVATING") for task in of)
            return {"runningCount": running, "pendingCount": pending}

        self.service.update(counts(self.there))
        for deployment in self.service["deployments"]:
            deployment.update(counts([task for task in self.there if task["_deployment_id"] == deployment["id"]]))
        ecs._recount_cluster(self.cluster)

    def say(self, words):
        event = {"id": new_uuid(), "createdAt": now_iso(), "message": f"(service {self.service['serviceName']}) {words}"}
        self.service["events"] = [event, *self.service["events"]][:EVENTS]

    def stop(self, task, reason, failed=False):
        tasks.stop(task, reason, "ServiceSchedulerInitiated", failed)
        self.say(f"has stopped 1 running tasks: (task {task['taskArn'].rsplit('/', 1)[-1]}).")

    # ── failures ──

    def replace_unhealthy(self):
        grace = int(self.service.get("healthCheckGracePeriodSeconds") or 0)
        for task in self.live():
            if task["healthStatus"] == "UNHEALTHY" and running_for(task) >= grace:
                self.say(f"(task {task['taskArn'].rsplit('/', 1)[-1]}) failed container health checks.")
                self.stop(task, "Task failed container health checks", failed=True)

    def judge(self):
        """Counts tasks that ended by themselves, and gives a deployment up that has too many."""
        primary = self.primary()
        for task in self.of_service:
            if task["lastStatus"] != "STOPPED" or not task.get("_failed"):
                continue
            task["_failed"] = False
            if task["_deployment_id"] != primary["id"]:
                continue
            if primary["rolloutState"] == "IN_PROGRESS":
                primary["failedTasks"] += 1
            primary["_failures"] += 1
            pause = min(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (primary["_failures"] - 1))
            primary["_not_before"] = time.monotonic() + pause
            if primary["_failures"] == SAID_AFTER:
                self.say("is unable to consistently start tasks successfully.")
        if any(works(task) for task in self.live(primary)):
            primary.update(failedTasks=0, _failures=0)
        breaker = (self.service.get("deploymentConfiguration") or {}).get("deploymentCircuitBreaker") or {}
        gives_up = breaker.get("enable") and primary["rolloutState"] == "IN_PROGRESS" and not primary["_rollback"]
        if gives_up and primary["failedTasks"] >= ecs._circuit_breaker_threshold(self.service):
            self.give_up(primary, breaker.get("rollback"))

    def give_up(self, failed, rollback):
        failed.update(rolloutState="FAILED", rolloutStateReason=f"{BREAKER}: tasks failed to start.", updatedAt=now_iso())
        failed["desiredCount"] = 0
        self.say(f"(deployment {failed['id']}) deployment failed: tasks failed to start.")
        for task in self.live(failed):
            self.stop(task, f"Task stopped by (deployment {failed['id']})")
        good = self.service.get("_last_good")
        if not rollback or good is None:
            return
        known = [row for row in self.service["deployments"] if row["id"] == good["id"]]
        former = known[0] if known else good
        former.update(fresh(), status="PRIMARY", desiredCount=self.desired, failedTasks=0, updatedAt=now_iso(), _rollback=True)
        former["rolloutStateReason"] = f"{BREAKER}: rolling back to deploymentId {former['id']}."
        failed["status"] = "ACTIVE"
        self.service["deployments"] = [former, *(row for row in self.service["deployments"] if row is not former)]
        self.service["taskDefinition"] = former["taskDefinition"]
        self.say(f"rolling back to deployment {former['id']}.")

    # ── as many as asked for ──

    def scale(self):
        primary = self.primary()
        live, others = self.live(primary), self.others()
        setting = self.service.get("deploymentConfiguration") or {}
        most = math.floor(self.desired * int(setting.get("maximumPercent", 200)) / 100)
        least = math.ceil(self.desired * int(setting.get("minimumHealthyPercent", 100)) / 100)
        for task in sorted(live, key=lambda task: (works(task), task["createdAt"]))[: max(0, len(live) - self.desired)]:
            self.stop(task, f"Scaling activity initiated by (deployment {primary['id']})")
        need = self.desired - len(live)
        room = max(0, most - len(self.there))
        enough = sum(map(works, live)) >= self.desired
        if primary["rolloutState"] == "FAILED":
            return
        working = sum(map(works, live + others))
        for task in sorted(others, key=works):
            spare = working > least
            if (enough or need > room) and (spare or not works(task)):
                self.stop(task, f"Scaling activity initiated by (deployment {primary['id']})")
                working -= works(task)
        if need > 0 and room > 0 and time.monotonic() >= primary["_not_before"]:
            self.start(primary, min(need, room))

    def start(self, primary, count):
        status, _, body = ecs._run_task(
            {
                "cluster": self.cluster,
                "taskDefinition": primary["taskDefinition"],
                "count": count,
                "group": f"service:{self.service['serviceName']}",
                "startedBy": primary["id"],
                "launchType": self.service.get("launchType"),
                "capacityProviderStrategy": self.service.get("capacityProviderStrategy"),
                "platformVersion": self.service.get("platformVersion", ""),
                "networkConfiguration": self.service.get("networkConfiguration", {}),
                "enableExecuteCommand": self.service.get("enableExecuteCommand", False),
                "tags": self.service.get("tags", []) if self.service.get("propagateTags") == "SERVICE" else [],
                "_deploymentId": primary["id"],
            }
        )
        self.service["_steady"] = False
        if status >= 400:
            primary["_not_before"] = time.monotonic() + LAST_PAUSE_SECONDS
            self.say(f"was unable to place a task: {body.decode() if isinstance(body, bytes) else body}")
        else:
            self.say(f"has started {count} tasks.")

    def complete(self):
        """Says so where everything is as asked, and forgets deployments that have no task."""
        primary = self.primary()
        having = {task["_deployment_id"] for task in self.there}
        settled = sum(map(works, self.live(primary))) >= self.desired and not self.others() and having <= {primary["id"]}
        if settled and primary["rolloutState"] == "IN_PROGRESS":
            primary.update(rolloutState="COMPLETED", rolloutStateReason=f"ECS deployment {primary['id']} completed.")
            primary.update(updatedAt=now_iso(), _rollback=False)
            self.service["_last_good"] = dict(primary)
            self.say(f"(deployment {primary['id']}) deployment completed.")
        if settled and not self.service["_steady"]:
            self.service["_steady"] = True
            self.say("has reached a steady state.")
        done = primary["rolloutState"] == "COMPLETED"
        self.service["deployments"] = [
            row
            for row in self.service["deployments"]
            if row is primary or row["id"] in having or (row["rolloutState"] == "FAILED" and not done)
        ]

    def drain(self):
        for task in self.live():
            self.stop(task, "Service deleted")
        if not self.there:
            self.service["status"] = "INACTIVE"


def running_for(task):
    since = task.get("_running_since")
    return time.monotonic() - since if since else 0


def works(task):
    """It runs and is healthy; without a health check, it has run for a while."""
    if task["lastStatus"] != "RUNNING":
        return False
    return task["healthStatus"] == "HEALTHY" if task.get("_checked") else running_for(task) >= STEADY_SECONDS


# ── what is asked of the API ──


def whole_numbers(data):
    """CloudFormation hands numbers on as text."""
    for name in ("desiredCount", "healthCheckGracePeriodSeconds"):
        if isinstance(data.get(name), str):
            data[name] = int(data[name])


def service_of(data):
    cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
    name = (ecs._resolve_service_ref(data.get("service", "")) or ("",))[0]
    return ecs._services.get(f"{cluster}/{name}")


def no_cluster(data):
    name = ecs._resolve_cluster_name(data.get("cluster", "default"))
    known = ecs._clusters.get(name) if name else None
    if known is None or known.get("status") != "ACTIVE":
        return error_response_json("ClusterNotFoundException", "Cluster not found.", 400)
    return None


def create_service(former, data):
    whole_numbers(data)
    if refused := no_cluster(data):
        return refused
    with LOCK:
        there = service_of({**data, "service": data.get("serviceName", "")})
        if there and there["status"] == "DRAINING":
            return error_response_json("InvalidParameterException", "Unable to Start a service that is still Draining.", 400)
        answer = former(data)
        made = service_of({**data, "service": data.get("serviceName", "")})
        if answer[0] < 400:
            made.update(_last_good=None, _steady=False)
        return answer


def update_service(former, data):
    whole_numbers(data)
    with LOCK:
        service = service_of(data)
        if service and service["status"] != "ACTIVE":
            return error_response_json("ServiceNotActiveException", "Service was not ACTIVE.", 400)
        for name in ("networkConfiguration", "capacityProviderStrategy", "platformVersion", "serviceRegistries"):
            # Changes that start new tasks.
            if service and name in data and data[name] != service.get(name):
                data["forceNewDeployment"] = True
                service[name] = data[name]
        events = list(service["events"]) if service else []
        answer = former(data)
        if answer[0] >= 400:
            return answer
        # MiniStack says that it drains connections, whatever happens.
        service["events"], service["_steady"] = events, False
        return ecs.json_response({"service": ecs._sanitize(service)})


def delete_service(former, data):
    with LOCK:
        service = service_of(data)
        if service and service["status"] != "ACTIVE":
            return ecs.json_response({"service": ecs._sanitize(service)})
        answer = former(data)
        if answer[0] >= 400:
            return answer
        # INACTIVE once its tasks have stopped.
        service["status"] = "DRAINING"
        return ecs.json_response({"service": ecs._sanitize(service)})


def run_task(former, data):
    if refused := no_cluster(data):
        return refused
    key = ecs._resolve_td_key(data.get("taskDefinition", ""))
    definition = ecs._task_defs.get(key) if key else None
    if definition and not data.get("group"):
        data["group"] = f"family:{definition['family']}"
    return former(data)


def stop_task(_, data):
    cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
    task = ecs._resolve_task(data.get("task", ""), cluster)
    if not task:
        return error_response_json("InvalidParameterException", "The referenced task was not found.", 400)
    tasks.stop(task, data.get("reason") or "Task stopped by user", "UserInitiated")
    return ecs.json_response({"task": ecs._sanitize(task)})


def delete_definitions(former, data):
    """Ten at most, and none from which a task can still be started."""
    arns = data.get("taskDefinitions", [])
    active = [arn for arn in arns if (ecs._task_defs.get(ecs._resolve_td_key(arn)) or {}).get("status") == "ACTIVE"]
    if len(arns) > 10 or active:
        return error_response_json("InvalidParameterException", "Ten task definitions at most, all of them INACTIVE.", 400)
    return former(data)


def no_session(_, __):
    return error_response_json("InvalidParameterException", "This emulator opens no sessions in containers.", 400)


def wait_until_settled(arn, account, region):
    """Until a service's deployment is complete. Returns why it is not, where it fails."""
    with request_scope(account, region):
        with LOCK:
            service = service_of({"cluster": arn.split("/")[1], "service": arn})
            waiting = next(row["id"] for row in service["deployments"] if row["status"] == "PRIMARY")
        while service["status"] == "ACTIVE":
            with LOCK:
                row = next((row for row in service["deployments"] if row["id"] == waiting), None)
            if row is None or row["rolloutState"] == "FAILED":
                return "Error occurred during operation 'ECS Deployment Circuit Breaker was triggered'."
            if row["rolloutState"] == "COMPLETED":
                return None
            time.sleep(TICK_SECONDS)
        return "the service was deleted meanwhile"


def wait_until_gone(arn):
    service = service_of({"cluster": arn.split("/")[1], "service": arn})
    while service and service["status"] == "DRAINING":
        time.sleep(TICK_SECONDS)


def here():
    return get_account_id(), get_region()
