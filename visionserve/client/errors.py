"""Why a call has no answer: ResponseError is an error response, ServiceUnreachable no response that could be read."""

from typing import Literal

from visionserve.client.urls import without_password

# Why a service is unreachable, for whoever suggests what to do.
Cause = Literal["connection", "timeout", "certificate", "proxy", "address"]


class ResponseError(Exception):
    """The service responded with an error: the image is corrupt, the API key is wrong, the service is busy.

    ``from_service`` is False when the response is not in the service's form: a proxy or another server sent it.
    """

    def __init__(
        self, status: int, code: str, message: str, request_id: str = "", *, from_service: bool = True
    ) -> None:
        super().__init__(status, code, message, request_id)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.from_service = from_service

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ServiceUnreachable(Exception):
    """No response came in time, or what responds is not a visionserve service."""

    def __init__(self, url: str, reason: str, cause: Cause = "connection") -> None:
        url = without_password(url)
        super().__init__(url, reason, cause)
        self.url = url
        self.reason = reason
        self.cause: Cause = cause

    def __str__(self) -> str:
        return f"No visionserve service answers at {self.url}: {self.reason}."
