"""What each tracker keeps of a run, read back by the tracker's own reader; nothing of it needs a network."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from tests.unit.training.tracking import wandb_file
from training import tracking
from training.fit.run import Run
from training.fit.trainer import fit
from training.recipe import Recipe, TrackerName, Tracking
from training.tracking.tracker import State, read_state
from visionserve.errors import BundleError
from visionserve.model_card import Input, ModelCard
from visionserve.network import MEAN, STD

pytestmark = LIGHTNING
CURVES = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr-SGD/pg1"}
PICTURES = {"images/confusion", "images/samples", "images/mistakes"}
STEPS = 3  # of an epoch: 30 images, 8 in a batch


@dataclass(frozen=True)
class Tracked:
    """A run of three epochs that was killed in the third, went on, and whose bundle was kept."""

    run: Run
    bundle: Path
    card: ModelCard


class Killed(Callback):
    """Ends a run as a signal does, after its curves of the third epoch and before its checkpoint."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.current_epoch == 2:
            raise SystemExit("killed")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = dict(os.environ)  # wandb wants the place of its copies there
    yield tmp_path_factory.mktemp("runs")
    os.environ.clear()
    os.environ.update(before)


def recipe_of(images: Path, tracker: TrackerName, **changes: Any) -> Recipe:
    return synthetic_images.recipe(images, tracking=Tracking(tracker=tracker), **changes)


def tracked(images: Path, runs: Path, tracker: TrackerName) -> Tracked:
    run = Run(runs / tracker)
    with pytest.raises(SystemExit, match="killed"):
        fit(recipe_of(images, tracker), run, callbacks=[Killed()])
    fit(recipe_of(images, tracker, patience=16), run, resume="auto")
    bundle = runs / f"bundle-{tracker}"
    bundle.mkdir()
    card = ModelCard(
        "colours",
        "1.2",
        "shufflenet_v2_x0_5",
        tuple(synthetic_images.COLOURS),
        Input(synthetic_images.SIDE, 0.9, MEAN, STD),
        metrics={"split": "test", "top1": 0.75, "top1_interval": [0.5, 0.9]},
        provenance={"licence": "CC0-1.0", "trained_on": "drawn colours"},
    )
    card.save(bundle / "card.json")
    (bundle / "weights.safetensors").write_bytes(b"weights")
    tracking.keep(run.folder, bundle, card)
    return Tracked(run, bundle, card)


@pytest.fixture(scope="module")
def tensorboard(images: Path, runs: Path) -> tuple[Tracked, Any]:
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    made = tracked(images, runs, "tensorboard")
    (folder,) = made.run.folder.glob("version_*")
    return made, event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0}).Reload()


def test_tensorboard_has_each_point_of_a_killed_run_once(tensorboard: tuple[Tracked, Any]) -> None:
    _, events = tensorboard
    assert set(events.Tags()["scalars"]) >= CURVES
    for curve in CURVES:
        steps = [point.step for point in events.Scalars(curve)]
        assert len(steps) == 3
        assert steps == sorted(set(steps))
    assert all(events.Images(image) for image in PICTURES)


def test_tensorboard_has_the_recipe_and_the_card(tensorboard: tuple[Tracked, Any]) -> None:
    made, events = tensorboard
    text = {tag: events.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in _texts(events)}
    assert "architecture: shufflenet_v2_x0_5" in text["recipe/text_summary"]
    assert '"version": "1.2"' in text["bundle/card/text_summary"]
    assert str(made.bundle) in text["bundle/place/text_summary"]
    assert [point.value for point in events.Scalars("bundle/top1")] == [0.75]
    assert "_hparams_/session_start_info" in events.summary_metadata


@pytest.fixture(scope="module")
def mlflow(images: Path, runs: Path) -> tuple[Tracked, Any]:
    made = tracked(images, runs, "mlflow")
    from mlflow import MlflowClient

    store = f"sqlite:///{runs / 'mlflow.db'}"
    return made, MlflowClient(store, registry_uri=store)


def test_mlflow_has_each_point_of_a_killed_run_once(mlflow: tuple[Tracked, Any]) -> None:
    made, client = mlflow
    for curve in CURVES:
        steps = [point.step for point in client.get_metric_history(_id(made), curve)]
        assert len(steps) == 3
        assert steps == sorted(set(steps))
    found = client.get_run(_id(made))
    assert found.info.status == "FINISHED"
    assert found.data.params["architecture"] == "shufflenet_v2_x0_5"
    assert found.data.params["patience"] == "15"
    assert found.data.tags["resumed.patience"] == "16"
    assert not [name for name in found.data.params if name.startswith("tracking")]
    assert {f"{file.path}" for file in client.list_artifacts(_id(made), "images")} == {f"{p}.png" for p in PICTURES}


def test_mlflow_registers_the_bundle_with_its_card_and_a_second_time_changes_nothing(
    mlflow: tuple[Tracked, Any], tmp_path: Path
) -> None:
    made, client = mlflow
    tracking.keep(made.run.folder, made.bundle, made.card)
    (version,) = client.search_model_versions("name = 'colours'")
    assert version.tags["top1"] == "0.75"
    assert version.tags["licence"] == "CC0-1.0"
    assert version.tags["card_sha256"] == made.card.digest
    assert "| top1 | 0.75 |" in version.description
    place = version.source.partition("/artifacts/")[2]
    fetched = Path(client.download_artifacts(_id(made), place, str(tmp_path)))
    assert ModelCard.load(fetched / "card.json") == made.card
    assert sorted(path.name for path in fetched.iterdir()) == ["card.json", "weights.safetensors"]


def test_a_run_that_mlflow_has_forgotten_says_what_to_do(mlflow: tuple[Tracked, Any], images: Path, runs: Path) -> None:
    del mlflow  # its store is there
    run = Run(runs / "forgotten")
    run.folder.mkdir()
    State("mlflow", id="0" * 32).save(run.folder)
    with pytest.raises(BundleError, match=r"no longer has run 0+: delete .*tracking\.json"):
        fit(recipe_of(images, "mlflow"), run, resume="auto")


@pytest.fixture(scope="module")
def wandb(images: Path, runs: Path) -> tuple[Tracked, list[Any]]:
    """The records of the three folders that fit, fit and bundle left, in the order in which they would be sent."""
    made = tracked(images, runs, "wandb")
    folders = sorted((made.run.folder / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_mtime)
    found = [record for folder in folders for file in folder.glob("*.wandb") for record in wandb_file.records(file)]
    return made, found


def test_wandb_has_each_point_of_a_killed_run_once_in_rows_that_rise(wandb: tuple[Tracked, list[Any]]) -> None:
    made, records = wandb
    assert {record.run.run_id for record in records if record.HasField("run")} == {_id(made)}
    rows = [_items(record.history.item) for record in records if record.HasField("history")]
    numbers = [row["_step"] for row in rows]
    assert numbers == sorted(set(numbers))
    for curve in CURVES:
        steps = [row["trainer/global_step"] for row in rows if curve in row]
        assert len(steps) == 3
        assert steps == sorted(set(steps))
    for image in PICTURES:
        drawn_last = next(row[f"{image}:path"] for row in reversed(rows) if f"{image}:path" in row)
        assert list((made.run.folder / "wandb").glob(f"*/files/{drawn_last}"))


def test_wandb_has_the_recipe_and_the_bundle_with_its_card(wandb: tuple[Tracked, list[Any]]) -> None:
    _, records = wandb
    config = {k: v for record in records if record.HasField("config") for k, v in _items(record.config.update).items()}
    assert config["architecture"] == "shufflenet_v2_x0_5"
    assert not [name for name in config if name.startswith("tracking")]
    artifacts = [record.request.log_artifact.artifact for record in records if record.request.HasField("log_artifact")]
    artifacts += [record.artifact for record in records if record.HasField("artifact")]
    model = next(artifact for artifact in artifacts if artifact.type == "model")
    assert model.name == "colours"
    assert json.loads(model.metadata)["provenance"]["licence"] == "CC0-1.0"
    assert {entry.path for entry in model.manifest.contents} == {"card.json", "weights.safetensors"}


def test_the_tracker_does_not_change_the_weights(
    tensorboard: tuple[Tracked, Any],
    mlflow: tuple[Tracked, Any],
    wandb: tuple[Tracked, Any],
    images: Path,
    runs: Path,
) -> None:
    plain = Run(runs / "none")
    fit(recipe_of(images, "none"), plain)
    assert not (plain.folder / "tracking.json").exists()
    for made, _ in (tensorboard, mlflow, wandb):
        assert made.run.weights.read_bytes() == plain.weights.read_bytes()


def test_a_run_that_starts_anew_gets_a_new_place(tensorboard: tuple[Tracked, Any], images: Path) -> None:
    made, _ = tensorboard
    recipe = replace(recipe_of(images, "tensorboard", epochs=1), name="again")
    fit(recipe, made.run, resume="none")
    assert _id(made) == "version_1"


@pytest.mark.parametrize("uri", ["https://ann:secret@example.org", "postgresql://ann:secret@example.org/runs"])
def test_a_password_in_the_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(BundleError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        Tracking(tracker="mlflow", uri=uri)
    assert "secret" not in str(refused.value)


def _id(made: Tracked) -> str:
    found = read_state(made.run.folder)
    assert found is not None
    return found.id


def _texts(events: Any) -> list[str]:
    return [tag for tag in events.Tags()["tensors"] if tag.endswith("text_summary")]


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ":".join(item.nested_key): json.loads(item.value_json) for item in items}
