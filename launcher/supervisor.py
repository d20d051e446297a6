"""Supervisor: runs a service from its start to its end.

preflight -> TorchServe, and beside it the worker monitor, the status server, the gateway's records -> every worker has
answered -> serving -> a signal -> drain -> TorchServe stops. It ends by itself, with an exit code, when TorchServe has
ended or no worker will come back; whatever started it can then start it again.
"""

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from launcher import access_log, gateway_process, gpus, preflight, process, releases, self_test, signals, status_server
from launcher.addresses import bindable
from launcher.default_versions import DefaultVersions
from launcher.drain import Drain
from launcher.gateway_process import Gateway
from launcher.metrics import Metrics
from launcher.settings import Settings
from launcher.signals import SignalQueue
from launcher.torchserve_api import TorchServe
from launcher.workers import WorkerMonitor

DONE, FAILED, UNUSABLE = 0, 1, 2
_STARTING_S, _SERVING_S = 0.05, 1.0
# For what the gateway has given up waiting for.
_LEAST_DRAIN_S = 1.0
_OPENAPI = Path("docs/openapi.yaml")
_OUT, _ERR = 1, 2
_MESSAGES = {
    "idle": "Stopped.",
    "timed out": "Stopped, though something was still in flight when the time for draining was over.",
    "interrupted": "Stopped at once.",
}


def serve(settings: Settings, environment: Mapping[str, str]) -> int:
    """Serve until a signal or a failure; return the exit code.

    Raises:
        SetupError: something is missing or in the way.
    """
    with signals.receive() as queue, contextlib.ExitStack() as stack:
        archives = preflight.check(settings, environment)
        secret = secrets.token_hex(16)
        listing = gpus.listing(environment) if environment.get(gpus.VISIBLE) else ""
        devices = gpus.for_torchserve(environment, listing)
        server_environment = {**devices, "VISIONSERVE_PROBE": secret}
        child, folder = stack.enter_context(process.running(settings, archives, server_environment))
        images = {archive.key: self_test.probe_image(archive, settings.model_store) for archive in archives}
        encoded = {key: image for key, (_, image) in images.items()}
        torchserve = TorchServe(settings, folder, secret, encoded)
        monitor = WorkerMonitor(torchserve, archives)
        defaults = DefaultVersions(settings.model_store / releases.FILE_NAME, monitor, torchserve, _print)
        metrics = Metrics(monitor)
        service = status_server.Service(monitor, metrics, lambda: child.poll() is None, torchserve.metrics, _OPENAPI)
        stack.enter_context(status_server.serve(bindable(settings.status_host), settings.status_port, service))
        stack.enter_context(access_log.listen(settings.access_port, metrics))
        stack.callback(monitor.stop)
        gateway = stack.enter_context(gateway_process.prepared(settings, environment))
        monitor.start()
        titles = {key: title for key, (title, _) in images.items()}
        return _run(settings, child, gateway, monitor, queue, titles, defaults)


def _run(
    settings: Settings,
    child: subprocess.Popen[bytes],
    gateway: Gateway | None,
    monitor: WorkerMonitor,
    queue: SignalQueue,
    titles: Mapping[str, str],
    defaults: DefaultVersions,
) -> int:
    """Print the first prediction and when it serves; return when it should not or cannot serve any longer."""
    printed = serving = False
    left_out: set[str] = set()
    while True:
        if queue.wait(_SERVING_S if serving else _STARTING_S):
            return _stop(settings, child, gateway, monitor, queue)
        _reap(child, gateway)
        if child.poll() is not None:
            _print(f"TorchServe exited unexpectedly (exit code {child.returncode}); see its log above.", _ERR)
            return FAILED
        if reason := monitor.failure():
            # Of several workers some may still answer: what they were given is answered first.
            if monitor.answers():
                _stop(settings, child, gateway, monitor, queue)
            # Before the reason, which is to be the last line of the log, come TorchServe's about it.
            process.stop(child)
            _print(reason, _ERR)
            return UNUSABLE if monitor.refused() else FAILED
        if gateway and gateway.failure():
            _print(gateway.failure(), _ERR)
            return FAILED if gateway.serves else UNUSABLE
        for model in monitor.left_out():
            if model.archive.key not in left_out:
                left_out.add(model.archive.key)
                _print(f"{model.failure} It is left out, and the others go on.", _ERR)
        key = monitor.defaults[settings.model].archive.key
        if not printed and (prediction := monitor.first_answers.get(key)):
            _print(self_test.table(titles[key], prediction))
            printed = True
        if not serving and monitor.complete():
            for line in _versions(settings, monitor):
                _print(line)
            _print(f"Serving at {settings.url}/predictions/{settings.model}; Ctrl-C stops it.")
            serving = True
            if gateway:
                gateway.serve()
        if serving:
            defaults.follow()


def _versions(settings: Settings, monitor: WorkerMonitor) -> Iterator[str]:
    """Yield a line for each model of which several versions are served."""
    for name, default in monitor.defaults.items():
        beside = [model.archive.version for model in monitor.versions(name)[1:] if not model.left_out]
        if beside:
            where = ", ".join(f"{settings.url}/predictions/{name}/{version}" for version in beside)
            yield f"{default.archive.title} answers at {settings.url}/predictions/{name}, beside it {where}"


def _stop(
    settings: Settings,
    child: subprocess.Popen[bytes],
    gateway: Gateway | None,
    monitor: WorkerMonitor,
    queue: SignalQueue,
) -> int:
    """Drain, if anything can be in flight: after the delay first the gateway. A second signal ends the wait."""
    if not monitor.complete():
        monitor.begin_drain()
        _print(_MESSAGES["interrupted"])
        return DONE

    def interrupted(seconds: float) -> bool:
        stop = queue.wait(seconds)
        _reap(child, gateway)
        return stop or child.poll() is not None

    timeout_s = settings.drain_timeout_s
    if gateway:
        delayed_until = monitor.begin_drain() + settings.drain_delay_s
        deadline = max(delayed_until, time.monotonic()) + timeout_s
        if not _finish(gateway, delayed_until, deadline, interrupted):
            _print(_MESSAGES["interrupted"])
            return DONE if child.poll() is None else FAILED
        timeout_s = max(_LEAST_DRAIN_S, deadline - time.monotonic())
    ports = (settings.ports["port"], settings.ports["grpc_port"])
    _print(_MESSAGES[Drain(monitor, ports, interrupted).wait(settings.drain_delay_s, timeout_s)])
    return DONE if child.poll() is None else FAILED


def _finish(gateway: Gateway, delayed_until: float, deadline: float, interrupted: Callable[[float], bool]) -> bool:
    """Let the gateway answer what it has, from that time on; False when interrupted."""
    while time.monotonic() < delayed_until:
        if interrupted(_STARTING_S):
            return False
    return gateway.finish(deadline, interrupted)


def _reap(child: subprocess.Popen[bytes], gateway: Gateway | None) -> None:
    if os.getpid() == 1:
        signals.reap_orphans(child, *([gateway.child] if gateway else []))


def _print(text: str, descriptor: int = _OUT) -> None:
    """Write a line; a full disk behind the log is not a reason to stop serving."""
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{text}\n".encode())
