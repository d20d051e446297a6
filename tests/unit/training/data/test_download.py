"""Downloads from a server that cuts, lies or is not there: whole and checked, or one sentence."""

import hashlib
import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from training.__main__ import main
from training.data.datasets import collect, published
from training.data.datasets.download import DONE, PIECE, Archive, fetch, obtain, unpack
from visionserve.errors import BundleError

CONTENT = bytes(range(256)) * 8000  # two pieces


class Library(BaseHTTPRequestHandler):
    """Answers with one file, from the byte that is asked for on; ``cut`` bytes are all that it sends at once."""

    protocol_version = "HTTP/1.1"
    content: ClassVar[bytes] = CONTENT
    cut: ClassVar[int | None] = None
    ranges: ClassVar[bool] = True
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range", ""))
        first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if self.ranges else 0
        rest = self.content[first:]
        if "gone" in self.path:
            self.send_error(404)
        elif first and not rest:
            self.send_error(416)
        else:
            self.send_response(206 if self.ranges else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: self.cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Library, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Library) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def archive(kind: str, entries: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w") as packed:
            for name, content in entries.items():
                packed.writestr(name, content)
        return made.getvalue()
    with tarfile.open(fileobj=made, mode="w:gz") as tape:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tape.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def test_a_file_that_is_here_and_whole_is_not_asked_for_again(library: str, tmp_path: Path) -> None:
    wanted = Archive(f"{library}/birds.tgz?download=1", md5(CONTENT))
    for _ in range(2):
        assert fetch(wanted, tmp_path) == tmp_path / "birds.tgz"
        assert (tmp_path / "birds.tgz").read_bytes() == CONTENT
    assert Library.asked == ["bytes=0-"]


def test_a_cut_connection_goes_on_where_it_was(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Library, "cut", 1_500_000)
    assert fetch(Archive(f"{library}/birds.tgz", md5(CONTENT)), tmp_path).read_bytes() == CONTENT
    assert Library.asked[0] == "bytes=0-"
    assert 1_500_000 - PIECE <= int(Library.asked[1].strip("bytes=-")) <= 1_500_000


def test_a_later_call_goes_on_where_an_earlier_one_was_killed(library: str, tmp_path: Path) -> None:
    (tmp_path / "birds.tgz.part").write_bytes(CONTENT[:700])
    assert fetch(Archive(f"{library}/birds.tgz", md5(CONTENT)), tmp_path).read_bytes() == CONTENT
    assert Library.asked == ["bytes=700-"]
    assert not (tmp_path / "birds.tgz.part").exists()


def test_a_file_that_arrived_whole_before_it_was_checked_is_only_checked(library: str, tmp_path: Path) -> None:
    (tmp_path / "birds.tgz.part").write_bytes(CONTENT)
    assert fetch(Archive(f"{library}/birds.tgz", md5(CONTENT)), tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "ranges", False)
    (tmp_path / "birds.tgz.part").write_bytes(CONTENT[:700])
    assert fetch(Archive(f"{library}/birds.tgz", md5(CONTENT)), tmp_path).read_bytes() == CONTENT


def test_a_file_with_another_checksum_is_thrown_away(library: str, tmp_path: Path) -> None:
    wanted = Archive(f"{library}/birds.tgz", md5(b"another"))
    with pytest.raises(BundleError, match=r"Birds cannot be downloaded \(what arrived is not the published file"):
        obtain("Birds", [wanted], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [("gone/birds.tgz", "the server answers 404"), ("birds.tgz", "the connection is cut again and again")],
)
def test_an_address_that_does_not_answer_is_one_sentence_with_the_remedy(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    monkeypatch.setattr(Library, "cut", 0)
    with pytest.raises(BundleError) as caught:
        obtain("Birds", [Archive(f"{library}/{address}", md5(CONTENT))], tmp_path)
    assert str(caught.value) == (
        f"Birds cannot be downloaded ({reason}); fetch {library}/{address} elsewhere and give its folder as --data.root"
    )


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_an_archive_is_unpacked_once_and_then_not_needed(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    content = archive(kind, {"jpg/one.jpg": b"1", "jpg/two.jpg": b"2"})
    monkeypatch.setattr(Library, "content", content)
    wanted = [Archive(f"{library}/flowers.{kind}", md5(content))]
    for _ in range(2):
        obtain("Flowers", wanted, tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        "jpg/one.jpg",
        "jpg/two.jpg",
        DONE,
    }
    assert len(Library.asked) == 1


@pytest.mark.parametrize("kind", ["tgz", "zip"])
@pytest.mark.parametrize("name", ["../outside.jpg", "/outside.jpg"])
def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    packed = folder / f"flowers.{kind}"
    packed.write_bytes(archive(kind, {name: b"x"}))
    if kind == "tgz" and name.startswith(".."):
        with pytest.raises(tarfile.OutsideDestinationError):
            unpack(packed, folder)
    else:
        unpack(packed, folder)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert all(path.is_relative_to(folder) for path in files)
    assert not Path("/outside.jpg").exists()


@pytest.mark.parametrize("source", ["flowers102", "cub200"])
def test_without_a_network_the_command_names_the_address_and_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/published.tgz"
        monkeypatch.setattr(published, "DOWNLOAD_TO", tmp_path)
        monkeypatch.setattr(published, "FLOWERS", [Archive(nobody, md5(b""))])
        monkeypatch.setattr(published, "BIRDS", [Archive(nobody, md5(b""))])
        assert main(["data", "manifest", "--data.source", source]) == 1
    said = capsys.readouterr().err
    assert f"cannot be downloaded (no connection); fetch {nobody} elsewhere" in said
    assert "--data.root" in said
    first, sentence = said.splitlines()  # what takes long, and one sentence
    assert first == "reading every image once ..."
    assert sentence.startswith("python -m training data manifest: ")


def test_the_pets_without_a_network_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")  # of Kaggle's client: http://localhost:7777
    with pytest.raises(
        BundleError, match=r"no connection\); fetch https://www.kaggle.com/datasets/shaunthesheep/micro"
    ):
        collect("cats-and-dogs", None)
