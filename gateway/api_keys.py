"""API keys: read from a file of lines ``name:key``, refused when weak, written for nginx's map.

nginx looks a key up in a hash table that ignores case, then compares it to the bit; what leaks through timing is a
position in that table, not a prefix of a key. The name is what the access log shows, so it is no secret.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from gateway.options import OptionError

_MIN_LENGTH = 16
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What a Bearer token may hold, https://www.rfc-editor.org/rfc/rfc6750#section-2.1. Up to 256, as nginx's table has
# buckets of a fixed size.
_KEY = re.compile(r"[A-Za-z0-9._~+/-]{1,256}={0,2}")


def read(path: Path) -> dict[str, str]:
    """Return the keys by the names of their owners.

    Raises:
        OptionError: the file cannot be read, or a line is no name and key; names the line, never the key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise OptionError(f"The API keys in {path} cannot be read ({reason}).") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, key = _entry(line, f"Line {number} of {path}", found)
            found[name] = key
    return found


def _entry(line: str, where: str, found: Mapping[str, str]) -> tuple[str, str]:
    name, separator, key = (part.strip() for part in line.partition(":"))
    if not separator or not _NAME.fullmatch(name) or not _KEY.fullmatch(key):
        raise OptionError(
            f"{where} is no `name:key` of letters, digits and ._- (in a key also ~+/ and = at its end, at most 256)."
        )
    if len(key) < _MIN_LENGTH:
        raise OptionError(f"{where} has a key of under {_MIN_LENGTH} characters: make one with `openssl rand -hex 32`.")
    if name in found:
        raise OptionError(f"{where} names {name} a second time: give every key a name of its own.")
    if key.lower() in (known.lower() for known in found.values()):
        raise OptionError(f"{where} has the key of another line, capitals aside: give every client a key of its own.")
    return name, key


def render(keys: Mapping[str, str]) -> str:
    """Return nginx's map from the key that a client sent to the owner's name and the key as it must be spelled."""
    # The prefix keeps a key from being one of the map's own words or a regular expression.
    entries = [f'    "key {key}" "{name} {key}";' for name, key in keys.items()]
    return "\n".join(['map "key $presented_key" $key_record {', '    default "";', *entries, "}", ""])
