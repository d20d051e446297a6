"""`python -m training compare`: bundles and precisions side by side, as a table and a plot."""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from training import plotting
from training.data import manifest as manifests
from training.evaluation import compare, contenders, frontier
from training.evaluation.compare import Row
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard


def run(args: argparse.Namespace) -> int:
    """Measure accuracy, then speed; write and print the table."""
    manifest = _shared_manifest(args.bundles, args.root)
    manifest.verify()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        entrants = [
            entrant
            for place, bundle in enumerate(args.bundles)
            for entrant in contenders.contenders(bundle, tuple(args.precisions), _made(Path(folder, str(place))))
        ]
        entrants += contenders.resized(args.bundles[0], args.inputs, Path(folder))
        found = []
        for entrant in entrants:
            found.append(compare.correctness(entrant, manifest, args.threads))
            print(f"measured {entrant.name} in {entrant.precision}", flush=True)
        rates = compare.race(entrants, args.rounds, args.seconds, batch=args.batch, threads=args.threads)
        rows = [Row(*found) for found in zip(entrants, found, rates, strict=True)]
        _write(rows, args.output)
    return 0


def _write(rows: Sequence[Row], folder: Path) -> None:
    text = compare.table(rows)
    (folder / "compare.md").write_text(text, encoding="utf-8")
    (folder / "compare.json").write_text(json.dumps(compare.plain(rows), indent=1) + "\n", encoding="utf-8")
    if all(row.rates for row in rows):
        plotting.save(frontier.draw(rows), folder / "compare.png")
    print(text, end="")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _shared_manifest(bundles: Sequence[Path], root: Path) -> manifests.Manifest:
    """Return the manifest of all bundles; measured on each other's training photographs they could not be compared."""
    found = [manifests.load(b / manifests.FILE_NAME, root, ModelCard.load(b / CARD).labels) for b in bundles]
    for bundle, manifest in zip(bundles, found, strict=True):
        if manifest.digest != found[0].digest:
            raise BundleError(f"{bundle} has another manifest than {bundles[0]}: compare bundles of the same division")
    return found[0]
