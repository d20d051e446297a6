"""Smaller networks: pruned, written, loaded again by their widths alone, and compared with what they came from."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.unit.training import synthetic_images as data
from training import golden
from training.__main__ import main
from training.data import manifest as manifests
from training.data.datasets import Split, collect
from training.evaluation import compare_report
from training.evaluation.compare import Candidate, Measured
from training.export import gates
from training.export.onnx import export
from training.export.quantize import quantize
from training.networks import load_network, multiplications, synthetic_images
from visionserve import network
from visionserve.errors import BundleError
from visionserve.model_card import Input, ModelCard

INPUT = Input(data.SIDE, 0.9, network.MEAN, network.STD)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.image_folder(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="module")
def bundle(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights, as a bundle without reference statistics."""
    folder = tmp_path_factory.mktemp("bundles") / "wide"
    folder.mkdir()
    manifest = manifests.build(collect("imagefolder", photographs), "stratified", 1)
    manifest.save(folder / "manifest.csv")
    torch.manual_seed(0)
    save_file(network.build("resnet18", 3).state_dict(), folder / "weights.safetensors")
    ModelCard("colours", "1", "resnet18", manifest.labels, INPUT).save(folder / "card.json")
    _complete(folder)
    return folder


@pytest.fixture(scope="module")
def pruned(bundle: Path, photographs: Path) -> Path:
    folder = bundle.parent / "narrow"
    options = ["--bundle", str(bundle), "--data.root", str(photographs), "--output", str(folder)]
    assert main(["prune", *options, "--ratio", "0.3", "--multiple", "8"]) == 0
    _complete(folder)
    return folder


def _complete(bundle: Path) -> None:
    """Add the int8 network and the golden answers."""
    export(load_network(bundle), INPUT, bundle / "fp32.onnx")
    quantize(bundle / "fp32.onnx", [synthetic_images(data.SIDE)], bundle / "model.int8.onnx")
    golden.write(bundle)


def _widths(bundle: Path) -> list[int]:
    return [module.out_channels for module in load_network(bundle).modules() if isinstance(module, nn.Conv2d)]


def test_a_pruned_network_has_fewer_channels_in_multiples_and_less_work(bundle: Path, pruned: Path) -> None:
    before, after = _widths(bundle), _widths(pruned)
    assert all(narrow <= wide and narrow % 8 == 0 for wide, narrow in zip(before, after, strict=True))
    assert 0.6 * sum(before) < sum(after) < 0.8 * sum(before)
    work = [multiplications(load_network(folder), data.SIDE) for folder in (bundle, pruned)]
    assert 0.3 * work[0] < work[1] < 0.7 * work[0]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_pruned_network_passes_the_gates_of_packaging(pruned: Path, precision: gates.Precision) -> None:
    file = {"fp32": "fp32.onnx", "int8": "model.int8.onnx"}[precision]
    assert all(finding.passed for finding in gates.check(pruned, pruned / file, precision))


def test_pruning_takes_the_channels_that_do_not_matter() -> None:
    torch.manual_seed(0)
    wide = network.build("resnet18", 3).eval()
    useless = torch.arange(0, 64, 2)
    with torch.no_grad():
        for name in ("layer1.0.bn1", "layer1.1.bn1"):
            wide.get_parameter(f"{name}.weight")[useless] = 0
            wide.get_parameter(f"{name}.bias")[useless] = -1  # behind the ReLU nothing is left
        wide.get_parameter("layer1.0.bn1.bias")[1] = 7
    from training.export.prune import prune

    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    narrow = prune(wide, "resnet18", [(images, labels)], ratio=0.1, multiple=1)
    kept = narrow.get_parameter("layer1.0.bn1.weight")
    assert len(kept) < 64
    assert (kept == 0).sum() < 32
    assert 7 in narrow.get_parameter("layer1.0.bn1.bias")


@pytest.mark.parametrize("ratio", ["0", "1", "-0.5"])
def test_an_impossible_share_is_refused(
    bundle: Path, photographs: Path, tmp_path: Path, ratio: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bundle", str(bundle), "--data.root", str(photographs), "--output", str(tmp_path / "new")]
    assert main(["prune", *options, "--ratio", ratio]) == 1
    assert "share of channels" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_network_that_cannot_be_narrowed_layer_by_layer_is_refused() -> None:
    torch.manual_seed(0)
    from training.export.prune import prune

    batches = [(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))]
    with pytest.raises(BundleError, match="cannot be pruned"):
        prune(network.build("shufflenet_v2_x0_5", 3).eval(), "shufflenet_v2_x0_5", batches, ratio=0.3, multiple=1)


def test_a_layer_of_one_group_per_channel_stays_one_when_it_is_narrowed() -> None:
    wide = network.build("mobilenet_v2", 3)
    weights = wide.state_dict()
    weights["features.1.conv.0.0.weight"] = torch.zeros(24, 1, 3, 3)
    network.adopt_widths(wide, weights)
    layer = wide.get_submodule("features.1.conv.0.0")
    assert isinstance(layer, nn.Conv2d)
    assert (layer.groups, layer.in_channels, layer.out_channels) == (24, 24, 24)


def test_weights_of_other_labels_are_still_refused(bundle: Path, tmp_path: Path) -> None:
    card = ModelCard.load(bundle / "card.json")
    replace(card, labels=(*card.labels, "yellow")).save(tmp_path / "card.json")
    (tmp_path / "weights.safetensors").write_bytes((bundle / "weights.safetensors").read_bytes())
    with pytest.raises(BundleError, match="does not fit resnet18 with 4 labels"):
        load_network(tmp_path)


def test_multiplications_are_those_that_one_counts_by_hand() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    assert multiplications(layers, 10) == 5 * 5 * 8 * 3 * 3 * 3 + 8 * 5


def test_the_comparison_has_a_row_for_every_network_and_precision(
    bundle: Path, pruned: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.root", str(photographs), "--output", str(tmp_path), "--rounds", "2", "--seconds", "0.01"]
    assert (
        main(["compare", str(bundle), str(pruned), *options, "--precisions", "int8", "fp16", "--inputs", "24/0.8"]) == 0
    )
    lines = (tmp_path / "compare.md").read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:7]] == [
        [f"| {name}", precision] for name in ("wide", "narrow") for precision in ("int8", "fp16")
    ] + [["| wide at 24 px", "fp32"]]
    assert lines[0] in capsys.readouterr().out
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["176", "176/2", "0/0.9", "a/b"])
def test_an_impossible_input_is_a_usage_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path), "--data.root", "x", "--output", "y", "--inputs", text])
    assert ended.value.code == 2


def version(bundle: Path, photographs: Path, folder: Path, splits: Callable[[int], Split], name: str) -> Path:
    """Copy a bundle as a version with another manifest: the split of each image as a function of its index."""
    result = folder / name
    shutil.copytree(bundle, result)
    card = ModelCard.load(bundle / "card.json")
    replace(card, version=name).save(result / "card.json")
    manifest = manifests.load(bundle / "manifest.csv", photographs, card.labels)
    rows = tuple(replace(row, split=splits(index)) for index, row in enumerate(manifest.rows))
    replace(manifest, rows=rows).save(result / "manifest.csv")
    return result


def test_versions_with_different_manifests_are_compared_on_images_that_neither_was_trained_on(
    bundle: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = version(bundle, photographs, tmp_path, lambda i: "test" if i % 3 == 0 else "train", "1.0")
    new = version(bundle, photographs, tmp_path, lambda i: "test" if i % 2 == 0 else "train", "1.1")
    rows = manifests.load(old / "manifest.csv", photographs, ModelCard.load(old / "card.json").labels).rows
    held_out = sum(index % 6 == 0 for index in range(len(rows)))
    options = ["--data.root", str(photographs), "--output", str(tmp_path / "out"), "--rounds", "0"]
    assert main(["compare", str(old), str(new), *options]) == 0
    printed = capsys.readouterr().out
    assert (
        f"compared on the {held_out} test images that none of them was trained or validated on, by content" in printed
    )
    assert "test images were in the training or validation images of one of them: left out" in printed
    assert "**1.1 instead of 1.0:** Undecided" in printed
    figures = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["test"]["photographs"] for row in figures] == [held_out, held_out]
    assert main(["compare", str(old), str(new), *options, "--precisions", "int8", "fp32"]) == 0
    assert capsys.readouterr().out.count(" instead of ") == 1  # like is compared with like where both are there
    export(load_network(new), INPUT, new / "model.fp32.onnx")
    replace(ModelCard.load(new / "card.json"), model="model.fp32.onnx").save(new / "card.json")
    assert main(["compare", str(old), str(new), *options]) == 0
    assert "**1.1 in fp32 instead of 1.0 in int8:** Undecided" in capsys.readouterr().out


def test_versions_without_a_common_held_out_image_are_not_compared(
    bundle: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = version(bundle, photographs, tmp_path, lambda i: "test" if i % 2 else "train", "1.0")
    new = version(bundle, photographs, tmp_path, lambda i: "train" if i % 2 else "test", "1.1")
    options = ["--data.root", str(photographs), "--output", str(tmp_path / "out")]
    assert main(["compare", str(old), str(new), *options]) == 1
    assert "no test image in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "lost", "won", "begins"),
    [
        (2000, 10, 60, "Release: it is more accurate"),
        (2000, 60, 10, "Do not release"),
        (5000, 5, 5, "Release is safe"),
        (200, 4, 4, "Undecided"),
    ],
)
def test_the_verdict_follows_from_the_interval_of_the_paired_difference(
    count: int, lost: int, won: int, begins: str
) -> None:
    old, new = np.ones(count, bool), np.ones(count, bool)
    new[:lost] = False
    old[lost : lost + won] = False
    assert compare_report.verdict(old, new).startswith(begins)


def test_a_paired_difference_counts_only_the_photographs_that_changed() -> None:
    before = np.array([True] * 90 + [False] * 10)
    after = before.copy()
    after[:4], after[90:91] = False, True
    lost, won, low, high = compare_report.paired(before, after)
    assert (lost, won) == (4, 1)
    # Wider than the normal interval of paired shares, -0.03 -+ 0.043, which is too narrow for five changes.
    assert [low, high] == pytest.approx([-0.09, 0.019], abs=0.002)
    assert compare_report.paired(before, before)[:2] == (0, 0)


def test_the_table_gives_medians_and_ratios_round_by_round(bundle: Path) -> None:
    card = ModelCard.load(bundle / "card.json")
    first, second = (
        Candidate(name, "int8", card, bundle / "model.int8.onnx", 2_000_000_000) for name in ("first", "second")
    )
    half, most = (np.arange(100) < share for share in (50, 60))
    rows = [
        Measured(first, {"val": half, "test": half}, (100.0, 50.0, 80.0)),
        Measured(second, {"val": most, "test": most}, (200.0, 150.0, 160.0)),
    ]
    line = compare_report.comparison_table(rows)[-1]
    assert "60.00 % (50.2-69.1)" in line
    assert "+10.00 (+5.52 to +17.44; -0 +10)" in line
    assert "160 (150-200) | 2.00 (2.00-3.00) |" in line
    legend = compare_report.draw(rows).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["first", "second", "int8"]


def test_a_table_without_a_race_says_so(bundle: Path) -> None:
    card = ModelCard.load(bundle / "card.json")
    row = Measured(
        Candidate("one", "int8", card, bundle / "model.int8.onnx", 1), {"val": np.ones(3), "test": np.ones(3)}
    )
    assert compare_report.comparison_table([row])[-1].endswith("| not measured | not measured |")
