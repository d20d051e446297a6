"""Life: a service from its start to its end.

preflight -> TorchServe, and beside it the watch, the status server, the gateway's records -> every worker has answered
-> serving -> a signal -> drain -> TorchServe stops. It ends by itself, with an exit code, when TorchServe has ended or
no worker will come back; whatever started it can then start it anew.
"""

import contextlib
import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from launcher import access_log, client, gpus, preflight, process, signals, status_server
from launcher.drain import Drain
from launcher.metrics import Metrics
from launcher.settings import Settings, SetupError
from launcher.signals import Inbox
from launcher.torchserve_api import TorchServe
from launcher.workers import Watch

DONE, FAILED = 0, 1
_STARTING_S, _SERVING_S = 0.05, 1.0
_OPENAPI = Path("docs/openapi.yaml")
_OUT, _ERR = 1, 2
_ENDINGS = {
    "quiet": "Stopped.",
    "late": "Stopped, though something was still in flight when the time for draining was over.",
    "cut": "Stopped at once.",
}


def serve(settings: Settings, environment: Mapping[str, str]) -> int:
    """Serve until a signal or a failure; return the exit code.

    Raises:
        SetupError: something is missing or in the way.
    """
    with signals.inbox() as inbox, contextlib.ExitStack() as stack:
        archives = preflight.check(settings, environment)
        secret = secrets.token_hex(16)
        named = gpus.for_torchserve(environment, gpus.listing(environment) if environment.get(gpus.VISIBLE) else "")
        child = stack.enter_context(process.running(settings, {**named, "VISIONSERVE_PROBE": secret}))
        title, picture = photograph()
        torchserve = TorchServe(settings, child.pid, secret, picture)
        watch = Watch(torchserve, archives)
        meter = Metrics(watch)
        told = status_server.Service(watch, meter, lambda: child.poll() is None, torchserve.metrics, _OPENAPI)
        stack.enter_context(status_server.serving(settings.status_host, settings.status_port, told))
        stack.enter_context(access_log.listening(settings.access_port, meter))
        stack.callback(watch.stop)
        watch.start()
        return _stay(settings, child, watch, inbox, title)


def photograph() -> tuple[str, bytes]:
    """Return what the workers are asked, and its name: a dahlia where scikit-learn is installed, else a drawing."""
    try:
        return "A dahlia, from scikit-learn:", client.dahlia().read_bytes()
    except (SetupError, OSError):
        return "A flower, drawn:", Path(__file__).with_name("sample.jpg").read_bytes()


def _stay(settings: Settings, child: subprocess.Popen[bytes], watch: Watch, inbox: Inbox, title: str) -> int:
    """Tell when it serves, and return when it should not or cannot any longer."""
    proved = serving = False
    while True:
        if inbox.wait(_SERVING_S if serving else _STARTING_S):
            return _leave(settings, child, watch, inbox)
        signals.reap(child)
        if child.poll() is not None:
            _say(f"TorchServe ended by itself (exit code {child.returncode}): its log above says why.", _ERR)
            return FAILED
        if watch.failure():
            _say(watch.failure(), _ERR)
            return FAILED
        if not proved and (answer := watch.first_answers.get(settings.model)):
            _say(client.table(title, answer))
            proved = True
        if not serving and watch.complete():
            _say(f"Serving at {settings.url}/predictions/{settings.model}; Ctrl-C stops it.")
            serving = True


def _leave(settings: Settings, child: subprocess.Popen[bytes], watch: Watch, inbox: Inbox) -> int:
    """Drain, if anything can be in flight; a second signal cuts it short."""
    if not watch.complete():
        watch.drain()
        _say(_ENDINGS["cut"])
        return DONE

    def interrupted(seconds: float) -> bool:
        stop = inbox.wait(seconds)
        signals.reap(child)
        return stop or child.poll() is not None

    ports = (settings.ports["port"], settings.ports["grpc_port"])
    _say(_ENDINGS[Drain(watch, ports, interrupted).wait(settings.drain_delay_s, settings.drain_timeout_s)])
    return DONE if child.poll() is None else FAILED


def _say(text: str, descriptor: int = _OUT) -> None:
    """Write a line; a full disk behind the log is no reason to stop serving."""
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{text}\n".encode())
