"""API keys: ``name:key`` lines of a file, or of a variable, validated, and written as nginx's map.

nginx looks a key up in a case-insensitive hash table, then compares it exactly; timing leaks a position in that table,
not a prefix of a key. The access log shows the name, which is not secret.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.options import OptionError

_MIN_LENGTH, _MAX_LENGTH = 16, 258
_SEPARATOR = re.compile(r"[,\n]")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What a Bearer token may hold, https://www.rfc-editor.org/rfc/rfc6750#section-2.1. Its length is bounded because
# nginx's table has buckets of a fixed size.
_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def read(path: Path) -> dict[str, str]:
    """Return the keys by their owners' names.

    Raises:
        OptionError: the file cannot be read, or a line is invalid; the message names the line, never the key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise OptionError(f"The API keys in {path} cannot be read ({reason}).") from error
    # No name and no key holds a #, so a comment may follow them.
    return _entries((f"Line {number} of {path}", _COMMENT.sub("", line)) for number, line in enumerate(lines, start=1))


def parse(text: str) -> dict[str, str]:
    """Return the keys of ``name:key,name:key``; lines may separate them too. OptionError as above."""
    return _entries(
        (f"Entry {number} of GATEWAY_API_KEYS", part) for number, part in enumerate(_SEPARATOR.split(text), 1)
    )


def _entries(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for where, text in texts:
        if text.strip():
            name, key = _entry(text.strip(), where, keys)
            keys[name] = key
    return keys


def _entry(line: str, where: str, keys: Mapping[str, str]) -> tuple[str, str]:
    name, separator, key = (part.strip() for part in line.partition(":"))
    if not separator or not _NAME.fullmatch(name) or not _KEY.fullmatch(key):
        raise OptionError(f"{where} is not `name:key` of letters, digits and ._- (in a key also ~+/ and = at its end).")
    if len(key) < _MIN_LENGTH:
        raise OptionError(
            f"{where} has a key of under {_MIN_LENGTH} characters: create one with `openssl rand -hex 32`."
        )
    if len(key) > _MAX_LENGTH:
        raise OptionError(
            f"{where} has a key of over {_MAX_LENGTH} characters: create one with `openssl rand -hex 32`."
        )
    if name in keys:
        raise OptionError(f"{where} repeats the name {name}: give every key its own name.")
    if key.lower() in (other.lower() for other in keys.values()):
        raise OptionError(f"{where} repeats the key of another line (case is ignored): give every client its own key.")
    return name, key


def render(keys: Mapping[str, str]) -> str:
    """Return nginx's map from the key that a client sent to its owner's name and the exact key."""
    # The prefix keeps a key from being a keyword of the map or a regular expression.
    entries = [f'    "key {key}" "{name} {key}";' for name, key in keys.items()]
    return "\n".join(['map "key $presented_key" $key_record {', '    default "";', *entries, "}", ""])
