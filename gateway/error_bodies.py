"""Bodies of the gateway's own errors: the library's error for each status, as JSON with the request's id.

nginx knows statuses only. The message of each is defined here once and rendered into the configuration, in which
``$answer_id`` is the request's id.
"""

import json

from gateway.routes import DOCS, INFERENCE, STATUS
from visionserve.errors import (
    DeadlineExceeded,
    HttpsRequired,
    ImageTooLarge,
    InternalError,
    InvalidParameter,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PreconditionFailed,
    ServiceError,
    Unauthorized,
    Unavailable,
    UnsupportedImage,
)

# Seconds. The queue of a full service empties in well under one; a worker is back in about two.
RETRY_AFTER = {Overloaded.status: 1, Unavailable.status: 2, DeadlineExceeded.status: 2}
_ID = "$answer_id"


def errors(max_body_mib: int) -> dict[int, ServiceError]:
    """Return the error of each status that the gateway itself answers with."""
    kinds: tuple[ServiceError, ...] = (
        InvalidRequest("The request could not be read: its request line, headers or form are malformed or too long."),
        Unauthorized("An API key is needed: send it as Authorization: Bearer KEY, or as x-api-key: KEY."),
        HttpsRequired("Only health checks are answered over plain HTTP: use https."),
        NotFound("Unknown path, model or version: GET /models lists what is served."),
        MethodNotAllowed("Method not allowed: the Allow header lists the methods of this path."),
        PreconditionFailed("Answers have no versions: send the request without If-Match and If-Unmodified-Since."),
        ImageTooLarge(f"The body is over {max_body_mib} MiB: send a smaller file."),
        UnsupportedImage("Unsupported file type."),
        InvalidParameter("An option of this request has an invalid value."),
        Overloaded("Too many concurrent requests: retry after the seconds in Retry-After."),
        InternalError("The service failed on this request; see its log."),
        Unavailable("No worker is available: retry after the seconds in Retry-After."),
        DeadlineExceeded("The service did not answer in time: retry after the seconds in Retry-After."),
    )
    return {error.status: error for error in kinds}


# Of the paths that take an image, for whoever opens one of them in a browser.
USAGE = MethodNotAllowed("Send an image with POST or PUT, for instance: curl -T photo.jpg URL")


def native(error: ServiceError) -> str:
    """Return an error's body in the native form."""
    return _text({"error": error.body(), "request_id": _ID})


def open_inference(error: ServiceError) -> str:
    """Return an error's body in the form of Open Inference V2: "error" is the message alone."""
    return _text({"error": error.message, "code": error.code, "request_id": _ID})


def index() -> str:
    """Return the body of ``/``: the list of routes."""
    lines = [f"{'|'.join(route.methods)} {route.shown}" for route in (*INFERENCE, *STATUS, *DOCS)]
    return _text({"service": "visionserve", "routes": lines})


def _text(content: object) -> str:
    text = json.dumps(content, separators=(",", ":"))
    # It is put between single quotes, where these characters are special to nginx.
    if set(text.replace(_ID, "")) & set("'\\$"):
        raise ValueError(f"nginx cannot quote this text: {text}")
    return text
