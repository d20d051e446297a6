"""Runs that are killed and go on: the same bytes as if nothing had happened, wherever it was."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.unit.training import synthetic_images
from tests.unit.training.learning_curves import curves
from tests.unit.training.markers import LIGHTNING
from training import recipe as recipes
from training.fit.checkpoints import AtomicCheckpointIO
from training.fit.module import Classification
from training.fit.run import Run
from training.fit.trainer import fit
from training.recipe import Optimizer, Recipe

pytestmark = LIGHTNING

FILES = (
    *("recipe.yaml", "run.json", "manifest.csv", ".pixels", ".index.npy"),
    *("best.ckpt", "last.ckpt", "weights.safetensors"),
)


@pytest.fixture(scope="module", autouse=True)
def _found_by_others() -> Iterator[None]:
    """The process that is forked looks for modules where PYTHONPATH says, not where pytest does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A network with dropout, whose random numbers must not depend on where it was stopped; an early end."""
    images = synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours", 8)
    return synthetic_images.recipe(
        images,
        architecture="mobilenet_v2",
        optimizer=Optimizer(learning_rate=0.01, head_epochs=1, average_decay=0.9),
        stages=(recipes.Stage(1.0, 24),),
        epochs=9,
        patience=1,
    )


@pytest.fixture(scope="module")
def undisturbed(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("runs") / "undisturbed")
    assert apart(fit, recipe, run) == 0
    return run


def apart(function: Callable[..., object], *arguments: object) -> int | None:
    """Call a function in a process of its own and return its exit code.

    The process is a fork of one that has only imported what is needed: a fork of this one would inherit the locks of
    threads that it does not have.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.fit.trainer"])
    process = context.Process(target=_on_one_thread, args=(function, *arguments))
    process.start()
    process.join()
    return process.exitcode


def _on_one_thread(function: Callable[..., object], *arguments: object) -> None:
    torch.set_num_threads(1)
    function(*arguments)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_around_every_file_and_within_epochs_comes_to_the_same_end(
    recipe: Recipe, undisturbed: Run, tmp_path: Path
) -> None:
    run, record = Run(tmp_path / "run"), tmp_path / "killed.txt"
    record.touch()
    for _ in range(40):
        status = apart(_until_killed, recipe, run, record)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    killed = record.read_text().split()
    assert {"step:1", "step:4"} <= set(killed)
    for when, file in itertools.product(("before:", "after:"), FILES):
        assert any(moment.startswith(when) and moment.endswith(file) for moment in killed), when + file
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert run.facts.read_bytes() == undisturbed.facts.read_bytes()
    _same_curves(run, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_ends_at_a_signal_with_a_sentence_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    recipe = synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "colours"), epochs=12)
    undisturbed, run = Run(tmp_path / "undisturbed"), Run(tmp_path / "run")
    assert apart(fit, recipe, undisturbed) == 0
    recipes.save(recipe, tmp_path / "recipe.yaml")
    status, said = _stop(signal.SIGTERM, run, tmp_path / "recipe.yaml")
    assert status == 128 + signal.SIGTERM
    assert said.splitlines()[-1].startswith("python -m training fit: stopped; the same command goes on after")
    assert _stop(signal.SIGKILL, run, tmp_path / "recipe.yaml")[0] == -signal.SIGKILL
    assert not run.weights.exists()
    assert apart(_go_on, recipe, run) == 0
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()
    _same_curves(run, undisturbed)


def test_the_same_seed_gives_the_same_curves_whoever_augments(recipe: Recipe, undisturbed: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    recipes.save(recipes.revise(recipe, {"data.workers": 2}), tmp_path / "recipe.yaml")
    subprocess.run(_command(run, tmp_path / "recipe.yaml"), env=_one_thread(), capture_output=True, check=True)
    assert run.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert curves(run.folder) == curves(undisturbed.folder)


def test_beginning_anew_leaves_nothing_of_the_run_before(recipe: Recipe, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    for old in (run.checkpoints / "last.ckpt", run.checkpoints / "best.ckpt", run.weights, run.manifest):
        old.write_text("of another run")
    (tmp_path / "k").touch()
    assert apart(_until_killed, recipe, run, tmp_path / "k", "none") == -signal.SIGKILL
    assert not [path for path in run.folder.rglob("*") if path.is_file() and "another" in path.read_text()]


def test_a_checkpoint_is_written_beside_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", _half_a_file)
        with pytest.raises(OSError, match="full"):
            AtomicCheckpointIO().save_checkpoint({"epoch": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"epoch": 1}


def _same_curves(run: Run, undisturbed: Run) -> None:
    logged, expected = curves(run.folder), curves(undisturbed.folder)
    assert logged["val/loss"] == expected["val/loss"]
    # Lightning logs an epoch's training loss just after its checkpoint: an end between the two loses the point.
    assert logged["train/loss"].items() <= expected["train/loss"].items()


def _half_a_file(_: object, path: Path) -> None:
    path.write_bytes(b"PK")
    raise OSError("the volume is full")


def _go_on(recipe: Recipe, run: Run) -> None:
    fit(recipe, run, resume="auto")


def _until_killed(recipe: Recipe, run: Run, record: Path, resume: str = "auto") -> None:
    """Fit, but be killed once before and once after each kind of file takes its place, and at two steps."""
    replace, step = Path.replace, Classification.on_train_batch_end

    def die_once(moment: str) -> None:
        if moment not in record.read_text().split():
            with record.open("a") as file:
                file.write(moment + "\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def replacing(unfinished: Path, target: Path) -> Path:
        die_once(f"before:{target.name}")
        done = replace(unfinished, target)
        die_once(f"after:{target.name}")
        return done

    def stepping(module: Classification, *rest: object) -> None:
        step(module, *rest)
        if module.global_step in (1, 4):
            die_once(f"step:{module.global_step}")

    Path.replace = replacing  # type: ignore[method-assign,assignment]
    Classification.on_train_batch_end = stepping  # type: ignore[method-assign,assignment]
    fit(recipe, run, resume=resume)


def _stop(signum: int, run: Run, recipe: Path) -> tuple[int, str]:
    """Start the command, send a signal when it has written another checkpoint; return its status and stderr."""
    last = run.checkpoints / "last.ckpt"
    before = last.stat().st_mtime_ns if last.exists() else 0
    with subprocess.Popen(
        _command(run, recipe), env=_one_thread(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as one:
        for _ in _moments(120):
            if one.poll() is not None or (last.exists() and last.stat().st_mtime_ns != before):
                break
        one.send_signal(signum)
        said = one.communicate()[1]
    return one.returncode, said


def _command(run: Run, recipe: Path) -> list[str]:
    return [sys.executable, "-m", "training", "fit", "-c", str(recipe), "--run", str(run.folder)]


def _one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _moments(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.005)
