"""The page at /docs, on which the API is tried out: Swagger UI with docs/openapi.yaml, from this machine's files only.

GET /docs               the page: index.html of this folder
GET /docs/start.js      starts Swagger UI, with requests going to where the page came from
GET /docs/swagger-ui*   Swagger UI itself, as the package swagger-ui-py brings it
"""

import functools
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path

PATH = "/docs"
_PACKAGE = "swagger_ui"
_SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
# Swagger UI's icons are data: URLs, and it sets styles of elements.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True)
class File:
    """A file of the page: its bytes as they are and compressed, its type, and the headers of its response."""

    body: bytes
    gzipped: bytes
    type: str
    headers: Mapping[str, str]


@functools.cache
def files() -> Mapping[str, File]:
    """Return the page's files by their paths; none where the package is not installed."""
    package = _swagger_ui()
    if package is None:
        return {}
    own = Path(__file__).parent
    return {
        PATH: _file(own / "index.html", "no-cache"),
        f"{PATH}/start.js": _file(own / "start.js", "no-cache"),
        **{f"{PATH}/{name}": _file(package / name, "max-age=3600") for name in _SWAGGER_UI},
    }


def _swagger_ui() -> Path | None:
    """Return the package's folder of files, without importing it."""
    package = util.find_spec(_PACKAGE)
    return Path(package.origin).with_name("static") if package is not None and package.origin else None


def _file(path: Path, caching: str) -> File:
    body = path.read_bytes()
    return File(body, gzip.compress(body, mtime=0), _TYPES[path.suffix], {**_HEADERS, "Cache-Control": caching})
