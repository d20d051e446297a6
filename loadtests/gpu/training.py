"""Part: images/s of training, as bare steps of the network and as the recipe's loop with its augmentation."""

import json
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
    """Let `python -m training fit --profile` measure loading, step and both together."""
    with tempfile.TemporaryDirectory(prefix="visionserve-training-") as name:
        per_label, batch = (10, 4) if job.quick else (160, 128)
        for number, label in enumerate(_LABELS):
            Path(name, "images", label).mkdir(parents=True)
            for i in range(per_label):
                body = encode_jpeg(synthetic_image(320, 240, seed=1000 * number + i))
                Path(name, "images", label, f"{i}.jpg").write_bytes(body)
        loaders = 0 if job.quick else min(8, machine.usable_cores())
        command = [
            *[sys.executable, "-m", "training", "fit", "--config", _RECIPE, "--profile"],
            *["--profile-steps", "1" if job.quick else "10", "--run", f"{name}/run", "--data.root", f"{name}/images"],
            *["--init", "none", "--batch_size", str(batch), "--data.workers", str(loaders)],
        ]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=max(1, results.remaining_s - _STOP_S)
            )
        except subprocess.TimeoutExpired:
            results.leave_out("the recipe's training loop: it did not end in its time")
            return
        if done.returncode != 0:
            reason = " / ".join(done.stderr.strip().splitlines()[-_LINES:])
            results.leave_out(f"the recipe's training loop: {reason}")
            return
        profile = json.loads(Path(name, "run", "profile.json").read_text(encoding="utf-8"))
        for stage in profile["stages"]:
            rates = {part: sorted(stage[part])[len(stage[part]) // 2] for part in ("cached", "step", "both")}
            results.add(
                f"the recipe, {profile['precision']}, batches of {batch} at {stage['size']} pixels, "
                f"{loaders} loading processes",
                f"{rates['both']:,.0f} images/s (loading alone {rates['cached']:,.0f}, steps {rates['step']:,.0f})",
                images_per_s=rates["both"],
            )


if __name__ == "__main__":
    run_part({"training": training})
