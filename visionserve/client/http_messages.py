"""HTTP requests to the service, and what its replies mean; the same for every transport, sends nothing itself.

image, options -> Call --(a transport)--> Reply -> Answer, Model, bytes | ResponseError | ServiceUnreachable
"""

import base64
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from os import PathLike
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import visionserve
from visionserve.client.errors import Cause, ResponseError, ServiceUnreachable
from visionserve.client.results import Answer, Model, read_model, read_native, read_v2
from visionserve.client.urls import DEFAULT_URL, check_service, without_password
from visionserve.files import read_regular

Protocol = Literal["native", "v2"]
Image = bytes | bytearray | PathLike[str]
Result = TypeVar("Result")

_OTHER_SERVER = "its response is not visionserve's; check the address"
# What servers that expect TLS say in plain HTTP: nginx, Go.
_TLS_EXPECTED = (b"plain HTTP request was sent to HTTPS", b"HTTP request to an HTTPS server")
# Error responses of TorchServe and of proxies carry no code of this service.
_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "image_too_large",
    429: "overloaded",
    502: "unavailable",
    503: "unavailable",
    504: "deadline_exceeded",
}


# Codes of errors that are the service's and not the image's: the same request may succeed later.
BUSY = ("overloaded", "unavailable", "deadline_exceeded")


@dataclass(frozen=True)
class Call:
    """One HTTP request, complete but for its connection."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def request_id(self) -> str:
        """The id under which the service logs it."""
        return self.headers["x-request-id"]


@dataclass(frozen=True)
class Reply:
    """What came back, and through which proxy; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    proxy: str = ""


@dataclass(frozen=True)
class NoReply:
    """No complete reply came: the time was over, or there was no connection, or it broke."""

    reason: str
    cause: Cause


@dataclass(frozen=True)
class Address:
    """A service's address, protocol and API key.

    ``status_url`` differs from ``url`` where no gateway is in front: TorchServe classifies images on one port, the
    status server reports models and health on another.
    """

    url: str = DEFAULT_URL
    api_key: str | None = field(default=None, repr=False)
    protocol: Protocol = "native"
    status_url: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers that calls go to."""
        return (self.url, self.status_url or self.url)

    def __post_init__(self) -> None:
        for url in self.urls:
            check_service(url)
        if self.protocol not in ("native", "v2"):
            raise ValueError(f"The protocol must be native or v2, not {self.protocol!r}.")
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            raise ValueError("The API key must be printable ASCII, without spaces and line ends.")
        if self.api_key and any(urlsplit(url).username is not None for url in self.urls):
            raise ValueError("The URL has a user name and an API key is given: both need the same header.")

    def classify(
        self,
        image: Image,
        model: str,
        *,
        version: str | None = None,
        top_k: int | None = None,
        explain: bool = False,
        png: bool = False,
        request_id: str | None = None,
    ) -> Call:
        """Return the call that classifies an image; reads its file if it is a path (OSError)."""
        data = content(image)
        options = {} if top_k is None else {"x-top-k": str(top_k)}
        options |= {"x-format": "png"} if png else {}
        path = _path(model, version, "explanations" if explain else "predictions")
        if self.protocol == "native" or png:
            return self._call("PUT", self.url + path, request_id, options, data, "application/octet-stream")
        path = path if explain else _v2_path(model, version) + "/infer"
        return self._call("POST", self.url + path, request_id, options, _v2(data), "application/json")

    def status(self, path: str) -> Call:
        """Return a GET of the status server."""
        return self._call("GET", (self.status_url or self.url).rstrip("/") + path, None, {})

    def models(self) -> Call:
        """Return the call that lists the served models."""
        return self.status("/models")

    def model(self, name: str, version: str | None = None) -> Call:
        """Return the call that describes one version of a model, by default the one that answers."""
        return self.status("/models/" + quote(name, safe="") + (f"/{quote(version, safe='')}" if version else ""))

    def _call(
        self,
        method: str,
        url: str,
        request_id: str | None,
        options: Mapping[str, str],
        body: bytes = b"",
        kind: str = "",
    ) -> Call:
        headers = {
            "accept": "application/json, image/png",
            "user-agent": f"visionserve/{visionserve.__version__}",
            "x-request-id": request_id or uuid.uuid4().hex,
            **options,
        }
        headers |= {"content-type": kind} if kind else {}
        headers |= {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return Call(method, url, headers, body)

    def answer(self, call: Call, reply: Reply) -> Answer:
        """Read a reply to ``classify``."""
        read = read_v2 if _is_json(call) else read_native  # a version may be named infer, so the path does not say
        return _read(call, reply, lambda content: read(content, call.request_id, timings(reply)))

    def read_models(self, call: Call, reply: Reply) -> list[Model]:
        """Read a reply to ``models``."""
        _check_listing(reply, call)
        return _read(call, reply, lambda content: [read_model(entry) for entry in content["models"]])

    def read_model(self, call: Call, reply: Reply) -> Model:
        """Read a reply to ``model``."""
        _check_listing(reply, call)
        return _read(call, reply, read_model)


def only_model(models: Sequence[Model]) -> str:
    """Return the name of the only served model, in any number of versions; ValueError if there is not exactly one."""
    served = {model.name for model in models}
    if len(served) == 1:
        return served.pop()
    names = ", ".join(sorted(served))
    raise ValueError(f"Several models are served: name one of {names}." if models else "No model is served yet.")


def content(image: Image) -> bytes:
    """Return an image's bytes; reads its file if it is a path.

    Raises:
        OSError: the file cannot be read, or is not a regular file: a pipe without a writer would block for ever.
        ResponseError: the file is empty.
    """
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if data := read_regular(image):
        return data
    raise ResponseError(HTTPStatus.BAD_REQUEST, "empty_body", "The file is empty.")


def png(call: Call, reply: Reply) -> bytes:
    """Read a reply that is a PNG."""
    _check(call, reply)
    if not reply.headers.get("content-type", "").startswith("image/png"):
        raise ServiceUnreachable(call.url, _OTHER_SERVER, "address")
    return reply.body


def timings(reply: Reply) -> dict[str, float]:
    """Return the seconds by stage in a Server-Timing header."""
    seconds = {}
    for entry in reply.headers.get("server-timing", "").split(","):
        name, _, duration = entry.strip().partition(";dur=")
        try:
            seconds[name] = float(duration) / 1000
        except ValueError:
            continue
    return seconds


def _path(model: str, version: str | None, verb: str) -> str:
    return "/".join(["", verb, quote(model, safe="")] + ([quote(version, safe="")] if version else []))


def _v2_path(model: str, version: str | None) -> str:
    return "/v2/models/" + quote(model, safe="") + (f"/versions/{quote(version, safe='')}" if version else "")


def _v2(image: bytes) -> bytes:
    data = [base64.b64encode(image).decode()]
    return json.dumps({"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": data}]}).encode()


def _is_json(call: Call) -> bool:
    return call.headers.get("content-type") == "application/json"


def _read(call: Call, reply: Reply, read: Callable[[Any], Result]) -> Result:
    _check(call, reply)
    try:
        return read(json.loads(reply.body))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ServiceUnreachable(call.url, _OTHER_SERVER, "address") from None


def _check_listing(reply: Reply, call: Call) -> None:
    """Raise ResponseError if TorchServe itself was asked for its models: it lists them on another port."""
    if reply.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) and _is_torchserves(_json(reply)):
        message = (
            f"{without_password(call.url)} is TorchServe's own port, which does not list models: use the gateway's "
            "address, or give the status server's as status_url (port 8083)."
        )
        raise ResponseError(reply.status, "not_found", message, call.request_id)


def is_worker_failure(reply: Reply) -> bool:
    """Return whether TorchServe itself reports that a worker died or could not answer: another one may."""
    return reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR and _is_torchserves(_json(reply))


def _check(call: Call, reply: Reply) -> None:
    """Raise ResponseError for anything but a 200: with the service's own message, else with the status."""
    if reply.status == HTTPStatus.OK:
        return
    content = _json(reply)
    error = content["error"] if isinstance(content.get("error"), dict) else content
    if isinstance(error.get("code"), str):
        code = error["code"]
        # Open Inference V2 has the message where this service's native form has an object.
        message = str(error.get("message") or error.get("error") or _phrase(reply.status))
        raise ResponseError(reply.status, code, message, str(content.get("request_id") or call.request_id))
    code = "unavailable" if is_worker_failure(reply) else _CODES.get(reply.status, "internal_error")
    if _is_torchserves(content):
        raise ResponseError(reply.status, code, str(content["message"]), call.request_id)
    if any(words in reply.body for words in _TLS_EXPECTED):
        raise ServiceUnreachable(call.url, "it uses TLS: try https:// instead of http://", "address")
    sender = f"the proxy {reply.proxy}" if reply.proxy else "a proxy or another server"
    message = f"{_phrase(reply.status)} The response is not visionserve's: it comes from {sender}."
    raise ResponseError(reply.status, code, message, call.request_id, from_service=False)


def _json(reply: Reply) -> dict[str, Any]:
    try:
        content = json.loads(reply.body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_torchserves(content: Mapping[str, Any]) -> bool:
    """Return whether an error body has TorchServe's own form: a number as its code, a Java class as its type."""
    return isinstance(content.get("code"), int) and isinstance(content.get("type"), str) and "message" in content


def _phrase(status: int) -> str:
    try:
        return f"The service answered {status} {HTTPStatus(status).phrase}."
    except ValueError:
        return f"The service answered with status {status}."
