"""Folders and buckets by their address: a path, an address of Arrow (s3, gs, hdfs, abfs), or one of fsspec."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import ArrowInvalid, ArrowNotImplementedError, fs

from visionserve.cli import image_files
from visionserve.cli.exit_codes import Stop
from visionserve.files import atomic_write, is_image, read_regular


@dataclass(frozen=True)
class Storage:
    """A folder at an address; workers on other machines open the same address."""

    system: Any  # pyarrow.fs.FileSystem
    root: str

    @classmethod
    def open(cls, address: str) -> "Storage":
        """Open an address; Stop if nothing here can."""
        if not address:
            raise Stop("An address is empty.")
        if "://" not in address:
            return cls(fs.LocalFileSystem(), str(Path(address).absolute()))
        try:
            return cls(*fs.FileSystem.from_uri(address))
        except (ArrowInvalid, ArrowNotImplementedError):
            return cls(*_of_fsspec(address))  # Arrow does not know its scheme
        except OSError as error:
            raise Stop(f"{address} cannot be opened: {error}.") from error

    @property
    def is_local(self) -> bool:
        """Whether its files are this machine's."""
        return isinstance(self.system, fs.LocalFileSystem)

    def images(self, report: Callable[[str], None]) -> Iterator[str]:
        """Yield the name of every image file below the folder; hidden files and folders are left out.

        Bytes of a name that are not UTF-8 are surrogates, as os.fsdecode makes them.
        """
        if self.is_local:
            root = Path(self.root)
            yield from (path.relative_to(root).as_posix() for path in image_files.walk(root, report))
            return
        for name in self.files():
            if is_image(name) and not any(part.startswith(".") for part in name.split("/")):
                yield name

    def files(self) -> list[str]:
        """Return the names of all files below the folder; none where it does not exist."""
        selector = fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        start = len(self.root.rstrip("/")) + 1 if self.root.rstrip("/") else 0
        return [info.path[start:] for info in self.system.get_file_info(selector) if info.is_file]

    def read(self, name: str) -> bytes:
        """Return a file's bytes; OSError if it cannot be read."""
        if self.is_local:
            return read_regular(self._path(name))
        with self.system.open_input_stream(self._path(name)) as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, complete or not at all: a bucket shows an object when all of it has arrived."""
        if self.is_local:
            with atomic_write(Path(self._path(name))) as unfinished:
                unfinished.write_bytes(content)
            return
        with self.system.open_output_stream(self._path(name)) as stream:
            stream.write(content)

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"


def _of_fsspec(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise Stop(f"{address} needs a package that is not installed, or is not an address: {error}.") from error
    return fs.PyFileSystem(fs.FSSpecHandler(system)), str(root)
