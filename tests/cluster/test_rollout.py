"""Changes of a running service under a constant load: no request is lost."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.conftest import BROKEN, CLUSTER
from tests.cluster.kube import (
    DEPLOYMENT,
    ROLLOUT_TIMEOUT_S,
    container_status,
    get,
    in_namespace,
    is_ready,
    kubectl,
    names,
    overview,
    pods,
    ready_pods,
    rolled_out,
    until,
)
from tests.cluster.overlays import compose
from tests.cluster.traffic import Traffic

pytestmark = CLUSTER
Record = Callable[[str], None]
# How long a roll-out that cannot succeed is watched.
WATCHED_S = 20


def test_the_first_rollout_has_two_ready_pods_behind_the_service(service: Traffic) -> None:
    assert service.address
    assert len(ready_pods()) == 2
    slices = get("endpointslices", "--selector=kubernetes.io/service-name=visionserve")["items"]
    assert sum(len(one["endpoints"]) for one in slices) == 2


def test_an_image_is_answered_through_the_service(service: Traffic) -> None:
    response = service.send()
    assert response["status"] == 200, response
    assert '"pink-yellow dahlia"' in response["text"]


def test_the_smoke_test_passes(service: Traffic) -> None:
    done = service.smoke()
    assert done["code"] == 0, done["output"]


def test_a_rolling_restart_loses_nothing(steady: Traffic, record: Record) -> None:
    before = names(pods())
    with steady.load() as outcome:
        in_namespace("rollout", "restart", DEPLOYMENT)
        rolled_out()
        until(lambda: not names(pods()) & before, overview)
    record(f"rolling restart of two pods: {outcome}")
    assert not outcome.lost


def test_an_image_that_does_not_exist_leaves_the_old_pods_serving_and_undo_heals(
    steady: Traffic, record: Record
) -> None:
    def waits_for_its_image() -> bool:
        states = [container_status(pod, "server")["state"] for pod in new_pods(before) if has_started(pod)]
        return any(state.get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff") for state in states)

    before = names(pods())
    with steady.load() as outcome:
        in_namespace("set", "image", DEPLOYMENT, "server=visionserve:absent")
        until(waits_for_its_image, overview)
        old_pods_serve_and_undo_heals(before)
    record(f"an image that does not exist, and undo: {outcome}")
    assert not outcome.lost


def test_a_broken_model_leaves_the_old_pods_serving_and_undo_heals(steady: Traffic, record: Record) -> None:
    def has_ended_with_2() -> bool:
        statuses = [container_status(pod, "server") for pod in new_pods(before) if has_started(pod)]
        ended = [status["lastState"].get("terminated") or status["state"].get("terminated") for status in statuses]
        return any(end and end["exitCode"] == 2 for end in ended)

    before = names(pods())
    with steady.load() as outcome:
        in_namespace("set", "image", DEPLOYMENT, f"server={BROKEN}")
        until(has_ended_with_2, overview)
        old_pods_serve_and_undo_heals(before)
    record(f"a release whose model is cut off, and undo: {outcome}")
    assert not outcome.lost


def test_a_changed_setting_rolls_the_pods_by_itself(steady: Traffic, record: Record, tmp_path: Path) -> None:
    before = names(pods())
    with steady.load() as outcome:
        kubectl("apply", "--kustomize", str(compose(tmp_path, settings={"TS_JOB_QUEUE_SIZE": "90"})))
        rolled_out()
        until(lambda: not names(pods()) & before, overview)
    record(f"a changed setting: {outcome}")
    assert not outcome.lost
    (settings,) = {pod["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"] for pod in pods()}
    assert get("configmap", settings)["data"]["TS_JOB_QUEUE_SIZE"] == "90"


def test_scaling_from_one_to_three_to_one_loses_nothing(steady: Traffic, record: Record) -> None:
    scale_to(1)
    with steady.load() as outcome:
        scale_to(3)
        scale_to(1)
    record(f"scaling 1, 3, 1: {outcome}")
    assert not outcome.lost


def scale_to(replicas: int) -> None:
    in_namespace("scale", DEPLOYMENT, f"--replicas={replicas}")
    rolled_out()
    # Deleted ones go on for as long as their clients need them.
    until(lambda: len(get("pods", "--selector=visionserve.io/track=stable")["items"]) == replicas, overview)


def new_pods(before: set[str]) -> list[dict[str, object]]:
    return [pod for pod in pods() if pod["metadata"]["name"] not in before]


def has_started(pod: dict[str, object]) -> bool:
    status = pod["status"]
    return isinstance(status, dict) and "containerStatuses" in status


def old_pods_serve_and_undo_heals(before: set[str]) -> None:
    """Watch a roll-out that cannot succeed, undo it, and wait for the end of the new pod."""
    deadline = time.monotonic() + WATCHED_S
    while time.monotonic() < deadline:
        assert names(ready_pods()) == before
        time.sleep(2)
    in_namespace("rollout", "undo", DEPLOYMENT)
    rolled_out()
    until(lambda: names(pods()) == before and all(map(is_ready, pods())), overview, ROLLOUT_TIMEOUT_S)
