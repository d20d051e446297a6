"""What a call can end with instead of an answer: the service refused, or no service answered."""


class ResponseError(Exception):
    """The service answered, but not with what was asked for: the image is bad, a key is wrong, the service is busy."""

    def __init__(self, status: int, code: str, message: str, request_id: str = "") -> None:
        super().__init__(status, code, message, request_id)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ServiceUnreachable(Exception):
    """No answer came within the time, or what answers is no such service."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"No visionserve service answers at {self.url}: {self.reason}."
