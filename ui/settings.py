"""The addresses of the service and the file for feedback, read from the environment once, by the page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The ports of `make serve`: TorchServe itself, and the status server beside it.
SERVICE_URL = "http://127.0.0.1:8080"
STATUS_URL = "http://127.0.0.1:8083"
FEEDBACK = Path("runs/feedback.jsonl")


@dataclass(frozen=True)
class Settings:
    """The page's settings.

    ``status_url`` reports models and health; a gateway does both at ``service_url``. ``docs_url`` is the API's
    description as a browser reaches it, which may differ from the page's own way to the service.
    """

    service_url: str = SERVICE_URL
    status_url: str = STATUS_URL
    docs_url: str = f"{STATUS_URL}/openapi.yaml"
    api_key: str | None = None
    feedback: Path = FEEDBACK

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Read UI_SERVICE_URL, UI_STATUS_URL, UI_DOCS_URL, UI_API_KEY and UI_FEEDBACK; an empty one counts as unset.

        A service alone means a gateway, which reports the status too.
        """
        service = environment.get("UI_SERVICE_URL", "").rstrip("/")
        status = environment.get("UI_STATUS_URL", "").rstrip("/") or service or STATUS_URL
        return cls(
            service_url=service or SERVICE_URL,
            status_url=status,
            docs_url=environment.get("UI_DOCS_URL", "") or f"{status}/openapi.yaml",
            api_key=environment.get("UI_API_KEY") or None,
            feedback=Path(environment.get("UI_FEEDBACK") or FEEDBACK),
        )
