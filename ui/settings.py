"""The page's settings, read from the environment once: the service, the file for feedback, where images are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ui.kept_images import DAYS, KeptImages

# The ports of `make serve`: TorchServe itself, and the status server beside it.
SERVICE_URL = "http://127.0.0.1:8080"
STATUS_URL = "http://127.0.0.1:8083"
FEEDBACK = Path("runs/feedback.jsonl")


@dataclass(frozen=True)
class Settings:
    """The page's settings.

    ``status_url`` reports models and health; a gateway does both at ``service_url``. ``docs_url`` is the API's
    description as a browser reaches it, which may differ from the page's own way to the service. ``kept`` is None
    unless images may be kept with people's feedback. ``samples`` is a folder with a test image NAME.jpg of each model,
    None unless the page may show them: a data set's licence may not let them go further than this machine.
    """

    service_url: str = SERVICE_URL
    status_url: str = STATUS_URL
    docs_url: str = f"{STATUS_URL}/docs"
    api_key: str | None = None
    feedback: Path = FEEDBACK
    kept: KeptImages | None = None
    samples: Path | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the environment; an empty variable counts as unset.

        UI_SERVICE_URL, UI_STATUS_URL, UI_DOCS_URL and UI_API_KEY: a service alone means a gateway, which reports the
        status too. UI_FEEDBACK, UI_FEEDBACK_IMAGES, UI_FEEDBACK_IMAGES_DAYS and UI_SAMPLES: see docs/page.md.

        Raises:
            ValueError: UI_FEEDBACK_IMAGES_DAYS is not a number of days.
        """
        service = environment.get("UI_SERVICE_URL", "").rstrip("/")
        status = environment.get("UI_STATUS_URL", "").rstrip("/") or service or STATUS_URL
        return cls(
            service_url=service or SERVICE_URL,
            status_url=status,
            docs_url=environment.get("UI_DOCS_URL", "") or f"{status}/docs",
            api_key=environment.get("UI_API_KEY") or None,
            feedback=Path(environment.get("UI_FEEDBACK") or FEEDBACK),
            kept=_kept(environment),
            samples=Path(environment["UI_SAMPLES"]) if environment.get("UI_SAMPLES") else None,
        )


def _kept(environment: Mapping[str, str]) -> KeptImages | None:
    address, days = (
        environment.get("UI_FEEDBACK_IMAGES", ""),
        environment.get("UI_FEEDBACK_IMAGES_DAYS", "") or str(DAYS),
    )
    if not address:
        return None
    if not days.isdecimal() or not 1 <= int(days) <= 36500:
        raise ValueError(f"UI_FEEDBACK_IMAGES_DAYS is the number of days that images are kept, 1 or more, not {days!r}")
    return KeptImages(address, int(days))
