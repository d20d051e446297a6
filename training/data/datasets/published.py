"""Where the data sets are published, and with which checksums. Nothing is downloaded that is already there."""

import logging
from pathlib import Path

from training.data.datasets.download import Archive, obtain, unreachable
from visionserve.errors import BundleError

DOWNLOAD_TO = Path(".cache")
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
FLOWERS = (
    Archive(f"{_OXFORD}/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
    Archive(f"{_OXFORD}/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
    Archive(f"{_OXFORD}/setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
)
BIRDS = (
    Archive("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78"),
)
PETS = "shaunthesheep/microsoft-catsvsdogs-dataset/versions/1"  # Microsoft's file of Kaggle's Dogs vs Cats


def download(source: str) -> Path:
    """Return the folder of a published data set, downloaded first if it is not there.

    Raises:
        BundleError: it cannot be downloaded, or ``source`` is a folder of one's own.
    """
    if source == "flowers102":
        return obtain("Oxford 102 Flowers (350 MB)", FLOWERS, DOWNLOAD_TO / "flowers-102")
    if source == "cub200":
        return obtain("CUB-200-2011 (1.2 GB)", BIRDS, DOWNLOAD_TO / "cub-200-2011") / "CUB_200_2011"
    if source == "cats-and-dogs":
        return _from_kaggle("Cats and dogs (800 MB)", PETS)
    raise BundleError("an image folder needs its place: --data.root FOLDER")


def _from_kaggle(what: str, handle: str) -> Path:
    """Return a folder of Kaggle's, by its own client: that checks, shows progress, goes on after a cut and unpacks.

    A fixed version, so that the client has nothing to ask once the files are in its cache (``~/.cache/kagglehub``).
    """
    import kagglehub  # here: 2 s
    import requests
    from kagglehub.exceptions import BackendError, DataCorruptionError

    logging.getLogger("kagglehub").setLevel(logging.WARNING)
    try:
        return Path(kagglehub.dataset_download(handle))
    except (OSError, BackendError, DataCorruptionError) as error:  # requests' errors are OSErrors
        owner_and_name = "/".join(handle.split("/")[:2])
        reason = "no connection" if isinstance(error, requests.ConnectionError) else str(error).splitlines()[0]
        raise BundleError(unreachable(what, reason, f"https://www.kaggle.com/datasets/{owner_and_name}")) from error
