"""The error tree: what can go wrong with an image on its way, and the HTTP status of each.

    request -> body -> image bytes -> pixels -> engine -> answer
       |        |          |            |          |
       |        |          |            |          InternalError
       |        |          |            ImageTooLarge, CorruptImage
       |        |          UnsupportedImage
       |        EmptyBody, InvalidRequest, UnsupportedEncoding
       InvalidParameter, Overloaded, Unavailable, DeadlineExceeded

The gateway in front answers Unauthorized, HttpsRequired, NotFound, MethodNotAllowed and PreconditionFailed by itself.

Every ServiceError carries its status and machine code; its message is for the client: what was wrong and what to do,
no internals. BundleError is for the operator: it stops a start and is never the response to a request.
"""

from typing import ClassVar


class ServiceError(Exception):
    """A response other than a prediction. Abstract: raise one of the classes below."""

    status: ClassVar[int]
    code: ClassVar[str]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def body(self) -> dict[str, str]:
        """Return the value of ``"error"`` in the response."""
        return {"code": self.code, "message": self.message}


class EmptyBody(ServiceError):
    """Nothing was sent."""

    status = 400
    code = "empty_body"


class CorruptImage(ServiceError):
    """The bytes start like an image but do not decode: truncated or broken."""

    status = 400
    code = "corrupt_image"


class InvalidRequest(ServiceError):
    """The body is JSON or a form of an unknown shape."""

    status = 400
    code = "invalid_request"


class Unauthorized(ServiceError):
    """The API key is missing or unknown."""

    status = 401
    code = "unauthorized"


class HttpsRequired(ServiceError):
    """Sent over plain HTTP where an HTTPS port exists."""

    status = 403
    code = "https_required"


class NotFound(ServiceError):
    """The path, model or version does not exist."""

    status = 404
    code = "not_found"


class MethodNotAllowed(ServiceError):
    """The path exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class PreconditionFailed(ServiceError):
    """A header makes the request depend on a version of the answer, and answers have none."""

    status = 412
    code = "precondition_failed"


class ImageTooLarge(ServiceError):
    """More bytes or more pixels than the limits allow."""

    status = 413
    code = "image_too_large"


class UnsupportedImage(ServiceError):
    """Not an image, or an image format that is not accepted."""

    status = 415
    code = "unsupported_image"


class UnsupportedEncoding(ServiceError):
    """The body is compressed in a way that is not accepted."""

    status = 415
    code = "unsupported_encoding"


class InvalidParameter(ServiceError):
    """An option has an invalid value."""

    status = 422
    code = "invalid_parameter"


class Overloaded(ServiceError):
    """Too many requests are waiting; retry later."""

    status = 429
    code = "overloaded"


class InternalError(ServiceError):
    """The service failed; the reason is in the log, not in the response."""

    status = 500
    code = "internal_error"


class Unavailable(ServiceError):
    """No worker can take the request now; retry later."""

    status = 503
    code = "unavailable"


class DeadlineExceeded(ServiceError):
    """The deadline of the request has passed."""

    status = 504
    code = "deadline_exceeded"


class BundleError(Exception):
    """A card, bundle or archive that cannot be used, and why."""
