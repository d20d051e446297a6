import socket
from typing import Any

import pytest

from tests.unit.client.fake_service import MODEL, Scripted, serving
from visionserve.cli.__main__ import main

LOADING: dict[str, Any] = {
    "name": "pets",
    "version": None,
    "digest": None,
    "status": "loading",
    "workers": {"ready": 0, "total": 2},
}


def test_models_are_listed_with_version_workers_and_digest(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Scripted(content={"models": [MODEL]}), Scripted(content={})) as service:
        assert main(["models", service.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["MODEL", "VERSION", "STATUS", "WORKERS", "DIGEST"]
    assert lines[1].split() == ["flowers", "1.0", "ready", "2/2", "abababababab"]
    assert lines[2] == f"{service.url} is ready."


def test_a_model_that_is_not_ready_is_exit_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Scripted(content={"models": [MODEL, LOADING]}), Scripted(503, {})) as service:
        assert main(["models", service.url]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["pets", "-", "loading", "0/2", "-"]
    assert lines[3].endswith("is not ready.")


def test_of_several_versions_the_one_that_answers_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    models = [MODEL | {"default": True}, MODEL | {"version": "1.1", "default": False}]
    with serving(Scripted(content={"models": models}), Scripted(content={})) as service:
        assert main(["models", service.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["MODEL", "VERSION", "ANSWERS"]
    assert lines[1].split()[:4] == ["flowers", "1.0", "by", "default"]
    assert lines[2].split()[:3] == ["flowers", "1.1", "/flowers/1.1"]


def test_torchserves_own_port_is_told_apart_from_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    own = Scripted(
        404, {"code": 404, "type": "ResourceNotFoundException", "message": "Requested resource is not found."}
    )
    with serving(own) as service:
        assert main(["models", service.url]) == 3
    assert "ask the gateway or the status server" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    assert main(["models", url]) == 3
    assert "Connection refused" in capsys.readouterr().err


def test_something_else_on_the_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Scripted(content=b"<html>")) as service:
        assert main(["models", service.url]) == 3
    assert "is not visionserve's" in capsys.readouterr().err
