"""What the image's build runs must run with the model that it is built for."""

import re

import precompile

from tests.repository import ROOT
from visionserve.model_card import ModelCard


def test_the_builds_trial_runs_on_the_shipped_model() -> None:
    bundle = ROOT / "model_store" / "flowers"
    labels = len(ModelCard.load(bundle / "card.json").labels)
    assert precompile.classify(bundle).endswith(f"returns {labels} logits")


def test_the_build_gives_it_what_it_reads() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = re.search(r"^COPY (\S+) (\S+) bundle/$", dockerfile, re.MULTILINE)
    assert copied is not None
    assert copied.groups() == ("model_store/flowers/card.json", "model_store/flowers/model.int8.onnx")
    assert "PYTHONPATH=. python docker/precompile.py bundle" in dockerfile
