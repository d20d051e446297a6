"""URLs of services and proxies as people type them: which can be one, and how they may be shown."""

import re
from urllib.parse import SplitResult, urlsplit

DEFAULT_URL = "http://127.0.0.1:8000"
_VERBS = re.compile(r"/(predictions|explanations)\b")


def split(url: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """Split a URL; None if it is none of these schemes with a host, or has a port or characters that no URL has."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if valid and url.isprintable() and " " not in url else None


def check_service(url: str) -> None:
    """Raise ValueError if no service can be at a URL: it must be a server's, or that of a path below which one is."""
    parts = split(url, ("http", "https"))
    if parts is None or parts.query or parts.fragment:
        raise ValueError(f"{without_password(url)!r} is not the URL of a service: it must look like {DEFAULT_URL}.")
    if verb := _VERBS.search(parts.path):
        service = without_password(url[: url.index(verb[0])])
        raise ValueError(
            f"{without_password(url)!r} is the URL of a model: give the service's, {service}, and the name."
        )


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    return re.sub(r"//[^/?#]*@", "//", url)
