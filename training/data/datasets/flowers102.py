"""Oxford 102 Flowers (Nilsback & Zisserman 2008) in torchvision's layout: jpg/, imagelabels.mat, setid.mat.

Images that are not on disk are left out, so a part of the data set is a data set too.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from training.data.datasets import Collection, ImageFile, Split
from visionserve.errors import BundleError

# The one place of the 102 names, in the order of the class ids 1 to 102 of imagelabels.mat.
LABELS = tuple(Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines())
_OFFICIAL: dict[str, Split] = {"trnid": "train", "valid": "val", "tstid": "test"}


def collect(root: Path) -> Collection:
    """Index the images on disk with their labels and official splits."""
    ids = _read(root / "imagelabels.mat", "labels").tolist()
    strange = [class_id for class_id in ids if not 1 <= class_id <= len(LABELS)]
    if strange:
        raise BundleError(f"{root / 'imagelabels.mat'} has the class {strange[0]}; there are 1 to {len(LABELS)}")
    splits = {int(number): split for key, split in _OFFICIAL.items() for number in _read(root / "setid.mat", key)}
    present = {path.name for path in (root / "jpg").iterdir()}
    images = tuple(
        ImageFile(f"jpg/{name}", LABELS[class_id - 1], splits.get(number))
        for number, class_id in enumerate(ids, start=1)
        if (name := f"image_{number:05d}.jpg") in present
    )
    return Collection(root, LABELS, images)


def _read(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise BundleError(f"{path.parent} is not an Oxford 102 Flowers folder: {path.name} is missing")
    try:
        return np.asarray(loadmat(path)[key]).ravel()
    except (MatReadError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{path} is not the published file: it holds no {key}") from error
