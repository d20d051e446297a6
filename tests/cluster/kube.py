"""Asks a cluster as an operator does: by kubectl, and nothing else.

Nothing here needs a route to the pods or to a kubelet: requests to pods go through the API server's proxy, and a
process in a container is killed by an ephemeral container. So it is the same on kind, k3d and a cluster far away.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
NAMESPACE = "visionserve"
TOOLS_NAMESPACE = "visionserve-test"
DEPLOYMENT = "deployment/visionserve"
SELECTOR = "app.kubernetes.io/name=visionserve"
ROLLOUT_TIMEOUT_S = 600
_COMMAND_TIMEOUT_S = ROLLOUT_TIMEOUT_S + 60
Resource = dict[str, Any]
T = TypeVar("T")


def attempt(*arguments: str, data: object = None) -> subprocess.CompletedProcess[str]:
    """Run kubectl, whose standard input is ``data``: text, or what is written as JSON. It may fail."""
    text = data if isinstance(data, str) or data is None else json.dumps(data)
    return subprocess.run(
        ["kubectl", *arguments],
        input=text or "",
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
        cwd=ROOT,
        check=False,
    )


def kubectl(*arguments: str, data: object = None) -> str:
    """Run kubectl and return what it printed; its complaint fails the test."""
    done = attempt(*arguments, data=data)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def in_namespace(*arguments: str, data: object = None) -> str:
    """Run kubectl in the service's namespace."""
    return kubectl("--namespace", NAMESPACE, *arguments, data=data)


def apply(*manifests: Resource) -> str:
    """Apply manifests."""
    return kubectl("apply", "--filename=-", data={"apiVersion": "v1", "kind": "List", "items": list(manifests)})


def get(*arguments: str, namespace: str = NAMESPACE) -> Resource:
    """Return a resource, or a list of them."""
    resource: Resource = json.loads(kubectl("--namespace", namespace, "get", "--output=json", *arguments))
    return resource


def pods(selector: str = SELECTOR) -> list[Resource]:
    """Return the service's pods that are not being deleted."""
    items: list[Resource] = get("pods", f"--selector={selector}")["items"]
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def names(listed: list[Resource]) -> set[str]:
    """Return the names of resources."""
    return {resource["metadata"]["name"] for resource in listed}


def is_ready(pod: Resource) -> bool:
    """Return whether a pod is ready."""
    conditions = pod["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def ready_pods(selector: str = SELECTOR) -> list[Resource]:
    """Return the service's pods that are ready."""
    return [pod for pod in pods(selector) if is_ready(pod)]


def container_status(pod: Resource, name: str) -> Resource:
    """Return the status of a pod's container."""
    statuses = [*pod["status"].get("containerStatuses", []), *pod["status"].get("initContainerStatuses", [])]
    status: Resource = next(status for status in statuses if status["name"] == name)
    return status


def pod(name: str) -> Resource:
    """Return a pod."""
    return get("pod", name)


def rolled_out(deployment: str = DEPLOYMENT) -> None:
    """Wait until a Deployment is as its manifest says."""
    in_namespace("rollout", "status", deployment, f"--timeout={ROLLOUT_TIMEOUT_S}s")


def events(name: str) -> str:
    """Return what was said about a resource."""
    listed = get("events", f"--field-selector=involvedObject.name={name}")["items"]
    return "\n".join(f"{event['reason']}: {event['message']}" for event in listed)


def until(ready: Callable[[], T], what: Callable[[], str], timeout_s: float = 300) -> T:
    """Wait until something holds and return it; fail with ``what`` is wrong otherwise."""
    deadline = time.monotonic() + timeout_s
    while not (value := ready()):
        assert time.monotonic() < deadline, f"after {timeout_s} s: {what()}"
        time.sleep(1)
    return value


def overview() -> str:
    """Return what runs, for the message of a failure."""
    return attempt("--namespace", NAMESPACE, "get", "all,events", "--output=wide").stdout


def through_proxy(path: str, content: Resource | None = None, namespace: str = TOOLS_NAMESPACE) -> str:
    """GET a path of a pod through the API server's proxy, or POST JSON to it."""
    where = f"/api/v1/namespaces/{namespace}/pods/{path}"
    if content is None:
        return kubectl("get", "--raw", where)
    return kubectl("create", "--raw", where, "--filename=-", data=content)


def kill_process(pod_name: str, container: str, words: str, signal: int = 9) -> None:
    """Send a signal to the first process of a container whose command line holds ``words``."""
    # Not itself: these words are on its own command line too.
    program = (
        "import os, pathlib\n"
        "paths = pathlib.Path('/proc').glob('[0-9]*/cmdline')\n"
        "lines = {int(path.parent.name): path.read_bytes().decode() for path in paths}\n"
        f"os.kill(min(n for n, line in lines.items() if {words!r} in line and n != os.getpid()), {signal})\n"
        # At once: a process of the container whose end may end this one too.
        "os._exit(0)\n"
    )
    number = len(pod(pod_name)["spec"].get("ephemeralContainers", []))
    name = f"kill-{number}"
    least = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    image = next(one["image"] for one in pod(pod_name)["spec"]["containers"] if one["name"] == "server")
    added = {
        "name": name,
        "image": image,
        "command": ["python", "-c", program],
        "targetContainerName": container,
        "securityContext": least,
    }
    patch = json.dumps({"spec": {"ephemeralContainers": [added]}})
    in_namespace("patch", "pod", pod_name, "--subresource=ephemeralcontainers", f"--patch={patch}")

    def ended() -> list[Resource]:
        statuses = pod(pod_name)["status"].get("ephemeralContainerStatuses", [])
        states = [status["state"].get("terminated") for status in statuses if status["name"] == name]
        return [state for state in states if state]

    (state,) = until(ended, lambda: events(pod_name), 60)
    assert state["exitCode"] == 0, state
