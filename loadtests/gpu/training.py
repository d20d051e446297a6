"""Part: images/s of training: bare steps of the network, the recipe's loop with its augmentation, and a run."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from loadtests import machine
from loadtests.gpu.job import Job, Results, run_part
from loadtests.load.images import encode_jpeg, synthetic_image
from visionserve import network
from visionserve.engines import WEIGHTS
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

ROOT = Path(__file__).resolve().parents[2]
_BATCH, _QUICK_BATCH = 256, 8
_RECIPE = "training/recipes/folder.yaml"
_LABELS = ("daisy", "rose", "tulip", "violet")
_LINES = 3
_RUN_S, _POLL_S = 300, 0.2
_QUICK_EPOCHS, _MANY_EPOCHS = 3, 100_000
# What is left for the recipe's process to be stopped in.
_STOP_S = 15


def training(job: Job, results: Results) -> None:
    """Measure bare training steps, then the recipe on a folder of synthetic images."""
    _steps(job, results)
    if results.has_time(20 if job.quick else 60, "the recipe's training loop"):
        _recipe(job, results)


def _steps(job: Job, results: Results) -> None:
    """Forward, backward and update in bf16, channels last, with images that are there already."""
    card = ModelCard.load(Path(job.bundle, CARD))
    net = network.load(card.architecture, len(card.labels), Path(job.bundle, WEIGHTS)).train()
    net = net.to(job.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    batch = _QUICK_BATCH if job.quick else _BATCH
    images = torch.randn(batch, 3, card.input.size, card.input.size, device=job.device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(len(card.labels), (batch,), device=job.device)

    def step() -> None:
        with torch.autocast(job.device, torch.bfloat16):
            loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if job.device == "cuda":
            torch.cuda.synchronize()

    if job.device == "cpu":
        torch.set_num_threads(1 if job.quick else machine.usable_cores())
    step()
    seconds, start, count = 1.0 if job.quick else 8.0, time.perf_counter(), 0
    while count < 2 or time.perf_counter() - start < seconds:
        step()
        count += 1
    rate = count * batch / (time.perf_counter() - start)
    name = f"training steps, bf16, batches of {batch} at {card.input.size} pixels, no loading"
    results.add(name, f"{rate:,.0f} images/s", images_per_s=rate)


def _recipe(job: Job, results: Results) -> None:
    """Let `python -m training fit` measure loading, step and both together, then train for five minutes."""
    with tempfile.TemporaryDirectory(prefix="visionserve-training-") as name:
        folder = Path(name)
        per_label, batch = (10, 4) if job.quick else (160, 128)
        for number, label in enumerate(_LABELS):
            (folder / "images" / label).mkdir(parents=True)
            for i in range(per_label):
                body = encode_jpeg(synthetic_image(320, 240, seed=1000 * number + i))
                (folder / "images" / label / f"{i}.jpg").write_bytes(body)
        loaders = 0 if job.quick else min(8, machine.usable_cores())
        options = [
            *[sys.executable, "-m", "training", "fit", "--config", _RECIPE, "--data.root", str(folder / "images")],
            *[
                "--init",
                "none",
                "--batch_size",
                str(batch),
                "--data.workers",
                str(loaders),
                "--data.gpu_workers",
                str(loaders),
                *["--least_steps", "0"],  # the recipe would make more epochs of the stated ones
            ],
        ]
        _profile(job, results, [*options, "--run", str(folder / "profile")], folder / "profile", batch, loaders)
        if results.has_time(_STOP_S + (20 if job.quick else 60), "five minutes of training"):
            _run(job, results, [*options, "--run", str(folder / "run")], folder / "run", batch)


def _profile(job: Job, results: Results, options: list[str], run: Path, batch: int, loaders: int) -> None:
    command = [*options, "--profile", "--profile-steps", "1" if job.quick else "10"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(1, results.remaining_s - _STOP_S)
        )
    except subprocess.TimeoutExpired:
        results.leave_out("the recipe's training loop: it did not end in its time")
        return
    if done.returncode != 0:
        results.leave_out(f"the recipe's training loop: {_last_lines(done.stderr)}")
        return
    profile = json.loads((run / "profile.json").read_text(encoding="utf-8"))
    for stage in profile["stages"]:
        rates = {part: sorted(stage[part])[len(stage[part]) // 2] for part in ("cached", "step", "both")}
        results.add(
            f"the recipe, {profile['precision']}, batches of {batch} at {stage['size']} pixels, "
            f"{loaders} loading processes",
            f"{rates['both']:,.0f} images/s (loading alone {rates['cached']:,.0f}, steps {rates['step']:,.0f})",
            images_per_s=rates["both"],
        )


def _run(job: Job, results: Results, options: list[str], run: Path, batch: int) -> None:
    """Train until the time is over, then stop as Ctrl-C does; the steps between the first and the last epoch count."""
    epochs = _QUICK_EPOCHS if job.quick else _MANY_EPOCHS
    command = [*options, "--epochs", str(epochs), "--patience", str(epochs)]
    end = time.monotonic() + min(_RUN_S, results.remaining_s - _STOP_S)
    log = run.with_suffix(".log")
    with log.open("wb") as stream:
        child = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
        epochs_seen: list[tuple[float, int]] = []
        try:
            while child.poll() is None and time.monotonic() < end:
                time.sleep(_POLL_S)
                _note_epoch(run / "checkpoints" / "last.ckpt", epochs_seen)
        finally:
            _interrupt(child)
    _note_epoch(run / "checkpoints" / "last.ckpt", epochs_seen)
    if child.returncode not in (0, 128 + signal.SIGINT):
        results.leave_out(f"a training run: {_last_lines(log.read_text('utf-8', 'replace'))}")
    elif len(epochs_seen) < 2:
        results.leave_out("a training run: it did not end two epochs in its time")
    else:
        (start, first), (stop, last) = epochs_seen[0], epochs_seen[-1]
        rate = (last - first) * batch / (stop - start)
        value = f"{rate:,.0f} images/s over {stop - start:.0f} s, {last} steps"
        what = "a training run of the recipe, with validation and checkpoints"
        results.add(what, value, images_per_s=rate, steps=last)


def _note_epoch(checkpoint: Path, seen: list[tuple[float, int]]) -> None:
    """Append (when, steps) of a checkpoint, unless it is known."""
    if checkpoint.is_file() and (not seen or checkpoint.stat().st_mtime > seen[-1][0]):
        written = checkpoint.stat().st_mtime
        seen.append((written, int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])))


def _interrupt(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _last_lines(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-_LINES:])


if __name__ == "__main__":
    run_part({"training": training})
