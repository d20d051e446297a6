"""What a run uses without a change of its result: processes, and where its figures are kept."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from visionserve.errors import BundleError

TrackerName = Literal["tensorboard", "mlflow", "wandb", "none"]


@dataclass(frozen=True)
class Machine:
    """What the run may use; with the same global batch the result does not depend on it.

    Attributes:
        devices: processes per node, each with a GPU where there are any.
        nodes: machines; the launcher (torchrun, a PyTorchJob) tells each which it is.
        compile: fuse the network's step with torch.compile: minutes at the start, faster steps afterwards.
    """

    devices: int = 1
    nodes: int = 1
    compile: bool = False

    @property
    def processes(self) -> int:
        """All of them, on all machines."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class Tracking:
    """Where a run's figures and images are kept besides its folder.

    Attributes:
        tracker: TensorBoard writes below the run's folder; MLflow and Weights & Biases as ``uri`` and ``offline`` say.
        uri: of the MLflow server or store; None is a local store beside the run.
        project: MLflow's experiment, Weights & Biases' project.
        offline: Weights & Biases writes to disk only, to be sent with ``wandb sync``.
    """

    tracker: TrackerName = "tensorboard"
    uri: str | None = None
    project: str = "visionserve"
    offline: bool = True

    def __post_init__(self) -> None:
        # It is written into the run's files, and a process list shows it.
        if self.uri is not None and "@" in urlsplit(self.uri).netloc:
            raise BundleError(
                "tracking.uri must not hold a user or a password: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
            )
