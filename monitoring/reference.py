"""`python -m monitoring.reference`: write what a model's traffic should look like, as Prometheus rules.

The bundle's manifest says how often each label occurs among the photographs, its metrics.json how novel the test
photographs are: constants, which the drift rules compare live traffic with. Written once per model version; a test
writes the committed file again and compares.
"""

import argparse
import csv
import json
import re
import sys
from collections import Counter
from pathlib import Path

from visionserve import model_card as cards
from visionserve.errors import BundleError
from visionserve.model_card import ModelCard

OUTPUT = Path("monitoring/rules/reference.yml")
# The handler replaces these characters in the labels of its metrics; a contract test holds the two together.
UNSAFE_IN_METRICS = re.compile(r"[^\w .'()/+-]")
_HEADER = """\
# What the traffic of {name} {version} should look like: written by
# `python -m monitoring.reference --bundle model_store/{name}`, never by hand.
groups:
  - name: visionserve-reference-{name}
    interval: 1m
    rules:
"""


def main(arguments: list[str] | None = None) -> int:
    """Write the rules of a bundle and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.reference", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--bundle", type=Path, default=Path("model_store/flowers"), help="the folder of the model")
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    options = parser.parse_args(arguments)
    try:
        options.out.write_text(rules(options.bundle), encoding="utf-8")
    except BundleError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{options.out} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    return 0


def rules(bundle: Path) -> str:
    """Return the rule file of a bundle; BundleError when it lacks its card, its manifest or its metrics."""
    card = ModelCard.load(bundle / cards.FILE_NAME)
    model = _safe(card.name)
    lines = [
        _rule("visionserve:reference:info", 1, model=model, version=_safe(card.version)),
        _rule("visionserve:reference_novelty:mean", _novelty_mean(bundle), model=model),
    ]
    for label, share in label_shares(bundle).items():
        lines.append(_rule("visionserve:reference_label:share", share, model=model, label=label))
    return _HEADER.format(name=card.name, version=card.version) + "".join(lines)


def label_shares(bundle: Path) -> dict[str, float]:
    """Return each label's share of all photographs of the manifest, as the metrics spell the labels.

    All splits together: each label was divided in the same proportions, and more photographs make a steadier share.
    """
    path = bundle / "manifest.csv"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            counts = Counter(_safe(row["label"]) for row in csv.DictReader(stream))
    except (OSError, KeyError, ValueError) as error:
        raise BundleError(f"{path} gives no label of each photograph ({error!r}): train or fetch the bundle") from error
    if not counts:
        raise BundleError(f"{path} lists no photographs: train or fetch the bundle")
    return {label: round(count / counts.total(), 6) for label, count in sorted(counts.items())}


def _novelty_mean(bundle: Path) -> float:
    path = bundle / "metrics.json"
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["novelty_mean"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} gives no novelty_mean ({error!r}): run `make evaluate` on the bundle") from error


def _safe(text: str) -> str:
    return UNSAFE_IN_METRICS.sub("_", text)


def _rule(name: str, value: float, **labels: str) -> str:
    # JSON's strings are YAML's too; a label such as "no" or "colt's foot" needs its quotes.
    pairs = ", ".join(f"{key}: {json.dumps(text, ensure_ascii=False)}" for key, text in labels.items())
    return f"      - record: {name}\n        expr: vector({value:.6g})\n        labels: {{{pairs}}}\n"


if __name__ == "__main__":
    sys.exit(main())
