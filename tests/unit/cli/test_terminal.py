"""What the commands print on terminals of other encodings and sizes, and the addresses they use."""

import os
import pty
import struct
import subprocess
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.unit.cli.conftest import COMMAND, Program, environment, serving
from tests.unit.client import fake_service
from tests.unit.client.fake_service import ANSWER, MODEL, Scripted
from visionserve.cli.__main__ import main

ODD = {**ANSWER, "predictions": [{"label": "Männertreu 花", "index": 1, "probability": 0.9}]}


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8", "cp1252"])
def test_every_encoding_gets_the_answer(folder: Path, encoding: str, tmp_path: Path) -> None:
    image = folder / os.fsdecode(b"caf\xe9 \x1b[31m.jpg")
    image.write_bytes(b"image")
    png = Scripted(content=b"png", headers={"content-type": "image/png"})
    with serving(Scripted(content=ODD), Scripted(content=ODD), png) as service:
        for command in (["predict", image], ["explain", image, "--out", tmp_path / "o.png"]):
            done = subprocess.run(
                [*COMMAND, *map(str, command), "--url", service.url],
                capture_output=True, check=False, env=environment(PYTHONIOENCODING=encoding),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            text = done.stdout.decode(encoding)
            assert "90.00%" in text
            assert ("█" in text) == (encoding == "utf-8")
            assert "\x1b" not in text


def test_a_posix_locale_gets_the_answer(folder: Path, program: Program) -> None:
    with serving(Scripted(content=ODD)) as service:
        posix = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = program("predict", folder / "row-0" / "0.jpg", "--url", service.url, env=posix)
    assert (done.returncode, done.stdout.count("#")) == (0, 27), done.stderr


def on_a_terminal(command: list[str], columns: int, **more: str) -> str:
    """Run a command on a terminal of so many columns; return all it writes there."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    run = subprocess.Popen(command, stdout=follower, stderr=follower, env=environment(**more))
    os.close(follower)
    written = b""
    while True:
        try:
            data = os.read(leader, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        written += data
    os.close(leader)
    assert run.wait() == 0, written
    return written.decode()


@pytest.mark.parametrize("columns", [30, 40, 80])
def test_the_table_fits_the_terminal(folder: Path, columns: int) -> None:
    with serving() as service:
        command = [*COMMAND, "predict", str(folder / "row-0" / "0.jpg"), "--url", service.url]
        lines = on_a_terminal(command, columns, TERM="xterm").splitlines()
    assert max(len(line) for line in lines[1:]) <= columns
    assert "75.00%" in lines[1]


def test_a_dumb_terminal_gets_no_progress_bar(folder: Path, tmp_path: Path) -> None:
    with serving() as service:
        command = [*COMMAND, "predict", str(folder), "--url", service.url, "--output"]
        plain = on_a_terminal([*command, str(tmp_path / "1.csv")], 40, TERM="dumb", NO_COLOR="1")
        moving = on_a_terminal([*command, str(tmp_path / "2.csv")], 40, TERM="xterm", NO_COLOR="1")
    assert plain.count("\r") == plain.count("\r\n")
    assert "6/6" in moving
    assert "\x1b[3" not in moving, "a colour"


def test_the_models_port_beside_torchserves_is_found(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from visionserve.cli import options

    monkeypatch.delenv("VISIONSERVE_STATUS_URL", raising=False)
    assert options.status_url("http://host:8080") == "http://host:8083"
    assert options.status_url("http://host:8000/base") == "http://host:8000/base"
    with serving(served=["birds"]) as status, fake_service.serving() as service:
        monkeypatch.setenv("VISIONSERVE_STATUS_URL", status.url)
        image = str(folder / "row-0" / "0.jpg")
        assert main(["predict", image, "--url", service.url]) == 0
        monkeypatch.setenv("VISIONSERVE_STATUS_URL", "http://127.0.0.1:1")
        assert main(["predict", image, "--url", service.url, "--status-url", status.url]) == 0
    assert [request.path for request in service.asked] == ["/predictions/birds"] * 2


def test_models_are_listed_from_the_status_url_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_service.serving(Scripted(content={"models": [MODEL]})) as status:
        monkeypatch.setenv("VISIONSERVE_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("VISIONSERVE_STATUS_URL", status.url)
        assert main(["models"]) == 0
    assert f"{status.url} is ready." in capsys.readouterr().out


TORCHSERVES = {"code": 404, "type": "ResourceNotFoundException", "message": "Requested resource is not found."}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (Scripted(404, TORCHSERVES), "Or name the model with --name."),
        (
            Scripted(content={"models": [MODEL, {**MODEL, "name": "birds"}]}),
            "name one of birds, flowers. The option is --name.",
        ),
        (Scripted(401, {"error": {"code": "unauthorized", "message": "No key."}}), "VISIONSERVE_API_KEY"),
    ],
    ids=["torchserve", "several", "key"],
)
def test_a_model_that_must_be_named_is_one_sentence(
    folder: Path, models: Scripted, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_service.serving(models) as service:
        assert main(["predict", str(folder / "row-0" / "0.jpg"), "--url", service.url]) == 2
    assert message in capsys.readouterr().err


def test_the_name_of_a_served_model_given_as_a_bundle_points_to_the_option(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(folder / "row-0" / "0.jpg"), "--model", "mine"]) == 2
    assert "is given with --name" in capsys.readouterr().err


def test_a_certificate_and_a_proxy_are_a_sentence_with_what_to_do(
    folder: Path, tmp_path: Path, program: Program
) -> None:
    from tests.unit.client.certificates import self_signed, server_context

    image, certificate = folder / "row-0" / "0.jpg", self_signed(tmp_path)
    with serving(tls=server_context(certificate)) as service:
        done = program("predict", image, "--url", service.url)
        assert (done.returncode, "--cacert" in done.stderr) == (3, True), done.stderr
        for option in (["--cacert", certificate], ["--insecure"]):
            assert program("predict", image, "--url", service.url, *option).returncode == 0
    with fake_service.serving(Scripted(403, b"<html>No.</html>")) as proxy:
        done = program("predict", image, "--url", "http://service.invalid", env={"HTTP_PROXY": proxy.url})
    assert (done.returncode, "API key" in done.stderr) == (3, False)
    assert f"comes from the proxy {proxy.url}" in done.stderr
    assert "NO_PROXY" in done.stderr
