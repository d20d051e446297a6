"""All routes of the gateway: which paths and methods are proxied, to which server and path. All others are 404.

Patterns are regular expressions of a whole path after nginx has decoded and normalised it. They list the allowed
characters, so that nothing in a path can change the proxied request.
"""

from dataclasses import dataclass
from typing import Literal

# The kinds of request in access records.
Kind = Literal["predictions", "explanations", "models", "docs", "health"]

_MODEL = "[A-Za-z0-9._~-]{1,128}"
_VERSION = "[A-Za-z0-9._-]{1,32}"
_SEND, _READ = ("POST", "PUT"), ("GET", "HEAD")


@dataclass(frozen=True)
class Route:
    """A set of paths: ``target`` is the proxied path, with the pattern's groups; None leaves it unchanged."""

    kind: Kind
    shown: str
    pattern: str
    methods: tuple[str, ...]
    target: str | None = None

    @property
    def allow(self) -> str:
        """The value of the Allow header."""
        return ", ".join([*self.methods, "OPTIONS"])


# To TorchServe's inference port.
INFERENCE = (
    Route("predictions", "/predictions/{model}[/{version}]", f"/predictions/{_MODEL}(?:/{_VERSION})?", _SEND),
    Route("explanations", "/explanations/{model}[/{version}]", f"/explanations/{_MODEL}(?:/{_VERSION})?", _SEND),
    Route("predictions", "/v2/models/{model}/infer", f"/v2/models/({_MODEL})/infer", _SEND, "/predictions/$1"),
    Route(
        *("predictions", "/v2/models/{model}/versions/{version}/infer"),
        f"/v2/models/({_MODEL})/versions/({_VERSION})/infer",
        _SEND,
        "/predictions/$1/$2",
    ),
    Route("predictions", "/v1/models/{model}:predict", f"/v1/models/({_MODEL}):predict", _SEND, "/predictions/$1"),
)
# To the status server.
STATUS = (
    Route("models", "/models[/{model}[/{version}]]", f"/models(?:/{_MODEL}(?:/{_VERSION})?)?", _READ),
    Route("models", "/v1/models/{model}", f"/v1/models/({_MODEL})", _READ, "/models/$1"),
    Route(
        "models",
        "/v2[/models/{model}[/versions/{version}]]",
        f"/v2(?:/models/{_MODEL}(?:/versions/{_VERSION})?)?",
        _READ,
    ),
    # Needs no key, like the page that reads it: it says nothing that this repository does not.
    Route("docs", "/openapi.yaml", "/openapi\\.yaml", _READ),
    Route("health", "/livez", "/livez", _READ),
    Route("health", "/readyz", "/readyz", _READ),
    Route("health", "/health", "/health", _READ),
    Route("health", "/v2/health/(live|ready)", "/v2/health/(?:live|ready)", _READ),
    Route(
        *("health", "/v2/models/{model}[/versions/{version}]/ready"),
        f"/v2/models/{_MODEL}(?:/versions/{_VERSION})?/ready",
        _READ,
    ),
)
# To the status server too; for browsers, so the description of the API leaves it out.
DOCS = (Route("docs", "/docs", "/docs(?:/[a-z-]{0,64}(?:\\.(?:css|js))?)?", _READ),)
# Answered by the gateway itself, by way of both its stages.
GATEWAY_LIVENESS = "/gateway/livez"
# Never proxied to the web UI, even where that has every other path.
_FIRST = "api-description|docs|drain|explanations|gateway|invocations|metrics|models|ping|predictions|v1|v2|workflows"
RESERVED = f"/(?:{_FIRST})(?:/.*)?"
