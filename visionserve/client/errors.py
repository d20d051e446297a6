"""Why a call has no answer: ResponseError is an error response, ServiceUnreachable no response that could be read."""


class ResponseError(Exception):
    """The service responded with an error: the image is corrupt, the API key is wrong, the service is busy."""

    def __init__(self, status: int, code: str, message: str, request_id: str = "") -> None:
        super().__init__(status, code, message, request_id)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ServiceUnreachable(Exception):
    """No response came in time, or what responds is not a visionserve service."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"No visionserve service answers at {self.url}: {self.reason}."
