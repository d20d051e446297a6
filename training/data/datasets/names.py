"""Names of folders and columns: which of them are splits, and what a label may be called."""

import re
import unicodedata
from typing import Literal

# Names that labelling tools export: a folder of such a name is a split, never a label.
_SPLITS: dict[str, Literal["train", "val", "test"]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_ENDING = re.compile(r"[ _-]?(set|data|images|imgs|split|[0-9]{4})$")  # trainset, train_images, val2017


def split_of(name: str) -> Literal["train", "val", "test"] | None:
    """Return the split that a folder of this name holds, None for another name."""
    word = name.strip().casefold()
    return _SPLITS.get(word) or _SPLITS.get(_ENDING.sub("", word))


def label_of(name: str) -> str:
    """Return a label as it is written everywhere: in one Unicode form, without spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def unprintable(label: str) -> bool:
    """Whether a label has a control character, such as a line break, or bytes that are not UTF-8."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in label)


def in_utf8(path: str) -> bool:
    """Whether a path can be written to a file; bytes of another encoding cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in path)
