"""The gateway's own answers: which status gets which error of the library, as JSON with the request's id.

nginx knows statuses only. The sentence for each is chosen here once and rendered into the configuration, in which
``$answer_id`` is the request's id.
"""

import json

from gateway.routes import INFERENCE, STATUS
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
    ServiceError,
    Unauthorized,
    Unavailable,
    UnsupportedImage,
)

# Seconds. The queue of a full service empties in well under one; a worker is back in about two.
RETRY_AFTER = {Overloaded.status: 1, Unavailable.status: 2, DeadlineExceeded.status: 2}
_ID = "$answer_id"


def errors(max_body_mib: int) -> dict[int, ServiceError]:
    """Return the error of each status that the gateway answers by itself."""
    known: tuple[ServiceError, ...] = (
        InvalidRequest("The request could not be read: its line, headers or form are malformed or too long."),
        Unauthorized("An API key is needed: send it as Authorization: Bearer KEY, or as x-api-key: KEY."),
        HttpsRequired("Only health checks are answered in the clear: use https."),
        NotFound("There is no such path, model or version: GET /models lists what is served."),
        MethodNotAllowed("This path does not take this method: the Allow header lists those it takes."),
        ImageTooLarge(f"The body is over {max_body_mib} MiB: send a smaller file."),
        UnsupportedImage("The model does not take this kind of file."),
        InvalidParameter("The model does not take an option of this request."),
        Overloaded("Too many requests at once: send it again after Retry-After seconds."),
        InternalError("The service failed on this request; its log says why."),
        Unavailable("No worker can take the request now: send it again after Retry-After seconds."),
        DeadlineExceeded("There was no answer in time: send it again after Retry-After seconds."),
    )
    return {error.status: error for error in known}


def native(error: ServiceError) -> str:
    """Return an error's body in our own form."""
    return _text({"error": error.body(), "request_id": _ID})


def open_inference(error: ServiceError) -> str:
    """Return an error's body as clients of Open Inference V2 read it: "error" is the sentence alone."""
    return _text({"error": error.message, "code": error.code, "request_id": _ID})


def index() -> str:
    """Return the body of ``/``: what is here."""
    listed = [f"{'|'.join(route.methods)} {route.shown}" for route in (*INFERENCE, *STATUS)]
    return _text({"service": "visionserve", "routes": listed})


def _text(content: object) -> str:
    text = json.dumps(content, separators=(",", ":"))
    # It goes between single quotes, where nginx would take these for its own.
    if set(text.replace(_ID, "")) & set("'\\$"):
        raise ValueError(f"nginx cannot carry this text between quotes: {text}")
    return text
