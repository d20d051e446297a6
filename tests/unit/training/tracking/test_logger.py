"""A tracker that is missing, does not answer or fails on the way: a sentence before the training, a warning after."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training import tracking
from training.data.cache import Pixels
from training.fit.run import Run
from training.fit.trainer import fit
from training.recipe import TrackerName, Tracking
from training.tracking import logger
from training.tracking.logger import TrackerLogger
from training.tracking.tracker import Parameter, State, read_state
from visionserve.errors import BundleError
from visionserve.model_card import Input, ModelCard
from visionserve.network import MEAN, STD

pytestmark = LIGHTNING


class Moody:
    """A tracker that keeps what it is given, while it is in the mood."""

    id, location = "1", "memory"

    def __init__(self) -> None:
        self.kept: list[tuple[str, int]] = []
        self.willing = True
        self.asked = 0

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.asked += 1
        if not self.willing:
            raise OSError("not today\nand no trace of it")
        self.kept += [(name, step) for name in values]

    def image(self, name: str, pixels: Pixels, step: int) -> None:  # noqa: ARG002
        self.metrics({name: 0.0}, step)

    def parameters(self, values: Mapping[str, Parameter], text: str) -> None: ...

    def bundle(self, folder: Path, card: ModelCard, step: int) -> str:  # noqa: ARG002
        return ""

    def close(self, status: str) -> None:
        self.metrics({status: 0.0}, 0)


def test_what_a_tracker_refuses_is_offered_again_in_order_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, state = Moody(), State("mlflow", id="1")
    log = TrackerLogger(tracker, state, tmp_path)
    log.log_metrics({"loss": 3.0}, 1)
    tracker.willing = False
    for step in (2, 3, 4):
        log.log_metrics({"loss": 2.0}, step)
    assert tracker.asked == 2  # no more than once in a pause
    assert state.logged == {"loss": 1}
    monkeypatch.setattr(logger, "PAUSE_S", 0.0)
    log._not_before = 0.0
    log.log_metrics({"loss": 2.0}, 5)
    tracker.willing = True
    log.log_metrics({"loss": 2.0}, 6)
    assert tracker.kept == [("loss", step) for step in range(1, 7)]
    assert [record.message for record in caplog.records] == [
        "mlflow fails (not today): the training goes on, it will be retried"
    ]
    assert read_state(tmp_path) == state == State("mlflow", id="1", sent=6, logged={"loss": 6})


def test_what_was_logged_before_is_left_out(tmp_path: Path) -> None:
    tracker = Moody()
    log = TrackerLogger(tracker, State("mlflow", id="1", logged={"loss": 4, "lr": 6}), tmp_path)
    for step in (4, 5, 6, 7):
        log.log_metrics({"loss": 1.0, "lr": 0.1}, step)
    assert tracker.kept == [("loss", 5), ("loss", 6), ("loss", 7), ("lr", 7)]


def test_a_tracker_that_never_comes_back_costs_a_warning_with_the_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Moody()
    tracker.willing = False
    log = TrackerLogger(tracker, State("wandb"), tmp_path)
    log.log_metrics({"loss": 3.0}, 1)
    log.log_metrics({"loss": 2.0}, 2)
    log.finalize("success")
    assert caplog.messages[1:] == ["wandb stayed unavailable: 2 entries are lost"]


@pytest.mark.parametrize("name", ["mlflow", "wandb", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_refused_before_training(
    name: TrackerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"training.tracking.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    images = synthetic_images.image_folder(tmp_path / "colours")
    with pytest.raises(BundleError, match=rf"{name} is not installed .*pip install {name}"):
        fit(synthetic_images.recipe(images, tracking=Tracking(tracker=name)), Run(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_keeps_a_run_and_its_death_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.WARNING)
    images, run = synthetic_images.image_folder(tmp_path / "colours"), Run(tmp_path / "run")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    image = Input(synthetic_images.SIDE, 0.9, MEAN, STD)
    ModelCard("colours", "1.0", "shufflenet_v2_x0_5", tuple(synthetic_images.COLOURS), image).save(bundle / "card.json")
    with server(tmp_path) as (process, uri):
        recipe = synthetic_images.recipe(images, tracking=Tracking(tracker="mlflow", uri=uri))
        first = Run(tmp_path / "first")
        fit(replace(recipe, epochs=1), first)
        tracking.keep(first.folder, bundle, ModelCard.load(bundle / "card.json"))
        fit(recipe, run, callbacks=[Murder(process)])
    assert run.weights.is_file()
    assert [message for message in caplog.messages if message.startswith("mlflow fails")]
    with pytest.raises(BundleError, match=f"mlflow cannot be used at {uri}"):
        fit(recipe, Run(tmp_path / "other"))
    found = read_state(run.folder)
    assert found is not None
    store = MlflowClient(f"sqlite:///{tmp_path / 'server.db'}")  # what the server had written
    steps = [point.step for point in store.get_metric_history(found.id, "val/accuracy")]
    assert steps == [2]
    assert len(list((tmp_path / "files").rglob("images/confusion.png"))) == 2
    assert len(list((tmp_path / "files").rglob("bundle/*/card.json"))) == 1
    (version,) = store.search_model_versions("name = 'colours'")
    assert version.tags["card_sha256"] == ModelCard.load(bundle / "card.json").digest


class Murder(Callback):
    """Ends a process after the first epoch."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.current_epoch == 1:
            self._process.terminate()
            self._process.wait()


@contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run MLflow's own server on a free port, its files below ``folder``."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, *stores], cwd=folder, env=quiet, stdout=log, stderr=log)
    uri = f"http://127.0.0.1:{port}"
    try:
        _await(f"{uri}/health", process)
        yield process, uri
    finally:
        process.terminate()
        process.wait()


def _await(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300  # it takes ten seconds of one core, and minutes on a busy machine
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(address).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    pytest.fail("MLflow's server did not start")
