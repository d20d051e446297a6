"""The set-up says in one sentence what is missing, on Pythons that cannot run the rest of the project."""

import functools
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "install.py"
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, whose environment would be made in an empty folder."""
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(sys, "argv", ["install.py", "serve"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Disk(2**40, 0, 2**40))
    return module


def complaint(install: ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    assert install.main() == 1
    assert not install.VENV.exists()
    return capsys.readouterr().err


def test_a_python_that_is_too_old_is_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert complaint(install, capsys).endswith("Python 3.11 to 3.14 is needed, this is 3.9.\n")


def test_a_fitting_python_on_the_path_replaces_one_that_is_too_old(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable if name == "python3.11" else None)
    monkeypatch.setattr(install.subprocess, "call", lambda *_command, **_options: 0)
    assert install.find_python() == sys.executable


def test_the_newest_of_several_pythons_is_taken(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    there = {"python3.12", "python3.13", "python3.15"}
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in there else None)
    monkeypatch.setattr(install.subprocess, "call", lambda *_command, **_options: 0)
    assert install.find_python() == "/bin/python3.13"


def test_a_full_disk_is_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Disk(100 << 30, 99 << 30, 1 << 30))
    assert "9 GiB of disk space are needed" in complaint(install, capsys)


def test_another_kind_of_machine_is_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install.platform, "machine", lambda: "riscv64")
    assert "this is Linux on riscv64: use the image (make image, make up)" in complaint(install, capsys)


@pytest.mark.parametrize(("system", "platform"), [("Darwin", "darwin"), ("Windows", "win32")])
def test_another_system_is_told_of_the_image_and_of_the_client(
    install: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    system: str,
    platform: str,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(install.platform, "system", lambda: system)
    said = complaint(install, capsys)
    assert f"this is {system} on x86_64: use the image (make image, make up); `pip install .` brings the client" in said


@pytest.mark.parametrize(
    ("machine", "libc", "words"),
    [
        ("aarch64", ("glibc", "2.31"), "need glibc 2.35 (Debian 12, Ubuntu 22.04), this system has glibc 2.31: use"),
        ("x86_64", ("glibc", "2.17"), "need glibc 2.28"),
        ("x86_64", ("", ""), "this system has another C library: use the image"),
    ],
)
def test_a_c_library_that_is_too_old_is_named(
    install: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    machine: str,
    libc: tuple[str, str],
    words: str,
) -> None:
    monkeypatch.setattr(install.platform, "machine", lambda: machine)
    monkeypatch.setattr(install.platform, "libc_ver", lambda: libc)
    assert words in complaint(install, capsys)


def test_arm64_is_a_platform_of_the_wheels(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(install.platform, "libc_ver", lambda: ("glibc", "2.36"))
    install.check_platform()


def test_an_environment_that_is_there_is_left_alone(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (install.VENV / "bin").mkdir(parents=True)
    (install.VENV / "bin" / "uv").touch()
    monkeypatch.setattr(install, "run", lambda *_arguments: pytest.fail("something was run"))
    install.make_environment()


def wheel(folder: Path, name: str, version: str) -> None:
    """Write a package of one empty module."""
    folder.mkdir(parents=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """An index whose builds of torch and torchvision have a local version, as PyTorch's have."""
    wheel(tmp_path / "index" / "torch", "torch", "2.14.1+cpu")
    wheel(tmp_path / "index" / "torchvision", "torchvision", "0.29.2+cpu")
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def checkout(install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A checkout whose locked set is torch and what it brings for a GPU, and a .venv with uv."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("uv is not in this environment: `make .venv/.dev` brings it")
    root = SCRIPT.parents[1]
    (tmp_path / "docker").symlink_to(root / "docker")
    (tmp_path / "requirements").mkdir()
    locked = [
        f"{name} \\\n    --hash=sha256:{'0' * 64}"
        for name in ("nvidia-cublas==13.1", "torch==2.14.1", "torchvision==0.29.2", "triton==3.8.0")
    ]
    (tmp_path / "requirements" / "serve.txt").write_text("\n".join(locked) + "\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", install.VENV], check=True)
    (install.VENV / "bin" / "uv").symlink_to(uv)
    monkeypatch.setattr(install, "ROOT", tmp_path)
    return install


def test_torch_comes_without_cuda_from_the_index_that_is_named(
    checkout: ModuleType, index: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_INDEX", index)
    checkout.install("serve")
    (site,) = checkout.VENV.glob("lib/python*/site-packages")
    installed = {path.name for path in site.glob("*.dist-info")}
    assert installed == {"torch-2.14.1+cpu.dist-info", "torchvision-0.29.2+cpu.dist-info"}
    monkeypatch.delenv("TORCH_INDEX")
    assert checkout.torch_index() == index, "another set would bring torch with CUDA"
    monkeypatch.setenv("TORCH_INDEX", "https://elsewhere.example/whl")
    assert checkout.torch_index() == index
    assert "remove .venv to take it from https://elsewhere.example/whl" in capsys.readouterr().out


def test_an_index_that_failed_is_not_kept(checkout: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_INDEX", "http://127.0.0.1:1/whl")
    with pytest.raises(checkout.Missing, match="uv could not install torch"):
        checkout.install("serve")
    monkeypatch.delenv("TORCH_INDEX")
    assert checkout.torch_index() == ""


def test_without_an_index_a_machine_without_a_gpu_is_told_of_it_once(
    checkout: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "nvidia" and path.is_file())
    assert checkout.torch_index() == ""
    (checkout.VENV / "torch-index").write_text("")
    assert checkout.torch_index() == ""
    assert capsys.readouterr().out.count("TORCH_INDEX=https://download.pytorch.org/whl/cpu") == 1
