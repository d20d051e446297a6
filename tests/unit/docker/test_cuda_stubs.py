"""The stub library defines symbols and never returns a result."""

import ctypes
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cuda_stubs
import pytest
from cuda_stubs import Symbol

pytestmark = pytest.mark.skipif(shutil.which("ld") is None, reason="needs as, ld and nm: apt-get install binutils")
FUNCTION = Symbol("a_function", "", "T", 0)
VERSIONED = Symbol("of_a_version", "libother.so.9", "T", 0)
DATA = Symbol("some_data", "", "D", 16)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    target = tmp_path / "libstubs.so"
    cuda_stubs.assemble([FUNCTION, VERSIONED, DATA], target)
    return target


def test_it_offers_the_names_with_their_versions_and_sizes(library: Path) -> None:
    defined = {symbol.name: symbol for symbol in cuda_stubs.symbols(library, "--defined-only")}
    assert defined["a_function"].code
    assert defined["of_a_version"].version == "libother.so.9"
    assert defined["some_data"].size == 16


def test_its_data_is_zero(library: Path) -> None:
    loaded = ctypes.CDLL(str(library))
    assert bytes((ctypes.c_char * 16).in_dll(loaded, "some_data")) == bytes(16)


def test_calling_it_ends_the_process_and_says_what_was_called(library: Path) -> None:
    program = f"import ctypes; ctypes.CDLL({str(library)!r}).a_function()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGILL
    assert "a_function was called, which needs a GPU" in done.stderr


def test_it_is_linked_to_nothing(library: Path) -> None:
    assert cuda_stubs.needed(library) == []


def test_a_torch_of_another_make_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "__init__.py"
    module.write_text("from torch._C import *\n", encoding="utf-8")
    with pytest.raises(ValueError, match="to this torch"):
        cuda_stubs.switch_off(module)


def test_a_torch_without_cuda_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda_stubs.main([str(tmp_path)]) == 0
    assert "nothing to replace" in capsys.readouterr().out
