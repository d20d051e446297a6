"""MLflow: a server, or a local store beside the run; the bundle becomes a version of a registered model.

runs/mlflow.db          the local store: parameters, curves, registry (SQLite)
runs/mlflow-artifacts/  its files: images, bundles
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

# Read by MLflow when it is imported or asks a server; what the user has set stays.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its 7 keep a training waiting for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from training.data.cache import Pixels
from training.recipe import Recipe
from training.tracking.tracker import Parameter, State, headline
from visionserve.errors import BundleError
from visionserve.model_card import ModelCard

_KIND = {"mlflow.experimentKind": "custom_model_development"}  # or its page looks for conversations
LOCAL_STORE, LOCAL_FILES = "mlflow.db", "mlflow-artifacts"
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it reports each table of a new store


class Mlflow:
    """One run of an experiment."""

    def __init__(self, client: MlflowClient, run_id: str, uri: str) -> None:
        self._client, self.id = client, run_id
        self._logger = MLFlowLogger(tracking_uri=uri, run_id=run_id)
        self.location = f"MLflow run {run_id} at {uri}"

    def parameters(self, values: Mapping[str, Parameter], text: str) -> None:
        """Log the recipe; parameters of MLflow cannot change, so what a resumed run changed becomes a tag."""
        logged = self._client.get_run(self.id).data.params
        self._logger.log_hyperparams({name: value for name, value in values.items() if name not in logged})
        for name, value in values.items():
            if name in logged and logged[name] != str(value)[: len(logged[name])]:
                self._client.set_tag(self.id, f"resumed.{name}", str(value))
        self._client.log_text(self.id, text, "recipe.yaml")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log points."""
        self._logger.log_metrics(values, step)

    def image(self, name: str, pixels: Pixels, step: int) -> None:  # noqa: ARG002  # the image says its epoch
        """Log an image in place of the last one."""
        self._client.log_image(self.id, pixels, f"{name}.png")

    def bundle(self, folder: Path, card: ModelCard, step: int) -> str:
        """Log the bundle's files and register them; each card has a folder of its own, so a version never changes."""
        folder_name = f"bundle/{card.version}-{card.digest[:8]}"
        self._client.log_artifacts(self.id, str(folder), folder_name)
        self.metrics(headline(card), step)
        self._register(card, f"{self._client.get_run(self.id).info.artifact_uri}/{folder_name}")
        return f"MLflow has a copy of {folder}, as an artifact of the run: {self.location}"

    def close(self, status: str) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self.id, "FINISHED" if status == "success" else "FAILED")

    def _register(self, card: ModelCard, source: str) -> None:
        tags = {
            "version": card.version,
            "architecture": card.architecture,
            "card_sha256": card.digest,
            "licence": str(card.provenance.get("licence", "not stated")),
            "top1": str(card.metrics.get("top1", "not measured")),
        }
        if not self._client.search_registered_models(f"name = '{card.name}'"):
            self._client.create_registered_model(card.name, description=str(card.provenance.get("trained_on", "")))
        versions = self._client.search_model_versions(f"name = '{card.name}' and run_id = '{self.id}'")
        if all(version.tags.get("card_sha256") != card.digest for version in versions):
            self._client.create_model_version(card.name, source, self.id, tags, description=_description(card))


def open_tracker(recipe: Recipe, folder: Path, state: State) -> Mlflow:
    """Open the run of ``state``, or begin one named after the run's folder in the experiment of the project."""
    settings, beside = recipe.tracking, folder.resolve().parent
    uri = settings.uri or f"sqlite:///{beside / LOCAL_STORE}"
    client = MlflowClient(uri, registry_uri=uri)
    if state.id:
        try:
            client.update_run(state.id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise BundleError(
                f"MLflow no longer has run {state.id}: delete {folder / 'tracking.json'} to begin another"
            ) from error
        return Mlflow(client, state.id, uri)
    experiment = client.get_experiment_by_name(settings.project)
    # A server knows where its files go; a store by itself would put them below the current folder.
    files = None if uri.startswith(("http://", "https://")) else (beside / LOCAL_FILES).as_uri()
    number = experiment.experiment_id if experiment else client.create_experiment(settings.project, files, _KIND)
    return Mlflow(client, client.create_run(number, run_name=folder.name).info.run_id, uri)


def _description(card: ModelCard) -> str:
    """Return the card's first lines as Markdown; the whole card is among the version's files."""
    figures = [f"| {name.removeprefix('bundle/')} | {value:g} |" for name, value in headline(card).items()]
    about = (
        f"{card.architecture}, {len(card.labels)} labels, measured on the {card.metrics.get('split', 'test')} split."
    )
    return "\n".join([about, "", "| figure | value |", "|---|---|", *figures])
