"""TensorBoard: event files in <run>/version_N, read by `tensorboard --logdir`; the bundle stays where it is."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from training.data.cache import Pixels
from training.recipe import Recipe
from training.tracking.tracker import Parameter, State, headline
from visionserve.model_card import ModelCard

COMPARED = ("val/accuracy", "val/loss", "bundle/top1")  # beside the parameters of every run, on the HParams page


class TensorBoard:
    """One folder of event files; a resumed run adds a file to it."""

    def __init__(self, logger: TensorBoardLogger, resumed: bool) -> None:
        self._logger, self._resumed = logger, resumed
        self.id = Path(logger.log_dir).name
        self.location = logger.log_dir

    def parameters(self, values: Mapping[str, Parameter], text: str) -> None:
        """Log the recipe as text, and for the HParams page, which reads no second one."""
        self._writer.add_text("recipe", _code(text))
        if not self._resumed:
            for summary in hparams(dict(values), dict.fromkeys(COMPARED)):  # type: ignore[no-untyped-call]
                self._writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        self._logger.save()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log points and write them out: a kill must not lose them."""
        self._logger.log_metrics(dict(values), step)
        self._logger.save()

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        """Log an image beside those of earlier steps."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def bundle(self, folder: Path, card: ModelCard, step: int) -> str:
        """Log the card and the place of the bundle as text, the card's figures as points."""
        content = json.dumps(asdict(card), indent=2, ensure_ascii=False)
        self._writer.add_text("bundle/card", _code(content), step)
        self._writer.add_text("bundle/place", f"`{folder}`, card {card.digest}", step)
        self.metrics(headline(card), step)
        return f"TensorBoard shows the card of {folder} beside the run's curves: tensorboard --logdir {self.location}"

    def close(self, status: str) -> None:
        """Close the file."""
        self._logger.finalize(status)

    @property
    def _writer(self) -> SummaryWriter:
        writer: SummaryWriter = self._logger.experiment
        return writer


def open_tracker(recipe: Recipe, folder: Path, state: State) -> TensorBoard:  # noqa: ARG001  # as the other two
    """Open the run's folder of event files, or a new one."""
    logger = TensorBoardLogger(folder, name="", version=state.id or None, default_hp_metric=False)
    return TensorBoard(logger, resumed=bool(state.id))


def _code(text: str) -> str:
    """Return Markdown that shows ``text`` as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
