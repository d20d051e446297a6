import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from monitoring import reference
from monitoring.__main__ import main

BUNDLE = Path(__file__).parents[3] / "model_store" / "flowers"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of four images."""
    shutil.copy(BUNDLE / "card.json", tmp_path)
    rows = ["path,label,split,sha256", "a.jpg,colt's foot,train,0", "b.jpg,colt's foot,val,0", "c.jpg,no,test,0"]
    (tmp_path / "manifest.csv").write_text("\n".join([*rows, 'd.jpg,"a, b",train,0']) + "\n")
    (tmp_path / "metrics.json").write_text(json.dumps({"novelty_mean": 0.4}))
    return tmp_path


def test_shares_are_those_of_all_photographs_in_the_spelling_of_the_metrics(bundle: Path) -> None:
    assert reference.label_shares(bundle) == {"a_ b": 0.25, "colt's foot": 0.5, "no": 0.25}


def test_the_shipped_shares_cover_every_label_and_add_up_to_one() -> None:
    shares = reference.label_shares(BUNDLE)
    assert len(shares) == 102
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)


def test_the_rules_are_yaml_whatever_the_labels_are_called(bundle: Path) -> None:
    (group,) = yaml.safe_load(reference.rules(bundle))["groups"]
    info, novelty, *labels = group["rules"]
    assert info == {
        "record": "visionserve:reference:info",
        "expr": "vector(1)",
        "labels": {"model": "flowers", "version": json.loads((BUNDLE / "card.json").read_text())["version"]},
    }
    assert novelty["expr"] == "vector(0.4)"
    assert {rule["labels"]["label"]: rule["expr"] for rule in labels} == {
        "a_ b": "vector(0.25)",
        "colt's foot": "vector(0.5)",
        "no": "vector(0.25)",
    }


@pytest.mark.parametrize("missing", ["card.json", "manifest.csv", "metrics.json"])
def test_a_missing_file_is_named_and_the_old_rules_stay(
    bundle: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = bundle / "reference.yml"
    out.write_text("groups: []")
    (bundle / missing).unlink()
    assert main(["reference", "--bundle", str(bundle), "--out", str(out)]) == 1
    assert missing in capsys.readouterr().err
    assert out.read_text() == "groups: []"


def test_a_manifest_without_images_is_an_error(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "manifest.csv").write_text("path,label,split,sha256\n")
    assert main(["reference", "--bundle", str(bundle), "--out", str(bundle / "reference.yml")]) == 1
    assert "lists no images" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_an_error_of_one_sentence(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reference", "--bundle", str(bundle), "--out", str(bundle / "missing" / "reference.yml")]) == 1
    assert capsys.readouterr().err.endswith("reference.yml: No such file or directory\n")


def test_chance_alone_stays_far_below_the_alert_of_a_shifted_mix() -> None:
    """The alert asks for twenty images per label and a stability index above 0.25, as drift.yml computes it."""
    shares = np.array(list(reference.label_shares(BUNDLE).values()))
    shares /= shares.sum()
    labels = len(shares)
    images = 20 * labels
    counts = np.random.default_rng(0).multinomial(images, shares, size=2000)
    observed = (counts + labels * shares) / (images + labels)
    index = ((observed - shares) * np.log(observed / shares)).sum(axis=1)
    assert 0.03 < index.mean() < 0.06
    assert index.max() < 0.1
