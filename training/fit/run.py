"""A run's folder: what it remembers, and whether another start may go on with it.

    <run>/recipe.yaml  manifest.csv  corrupt.csv  seen.txt  run.json  checkpoints/{best,last}.ckpt  weights.safetensors
    <run>/curves.csv  curves.png

A run goes on only with the images, root and options that it was begun with. What differs is named, with what to do.
"""

import csv
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any

from training import recipe as recipes
from training.data import corrupt_files
from training.data import manifest as manifests
from training.data import prepare as preparation
from training.data.corrupt_files import CorruptFile
from training.data.datasets import collect
from training.data.manifest import Manifest
from training.fit import distillation
from training.markdown import counted
from training.provenance import initial_weights
from training.recipe import Recipe
from visionserve.errors import BundleError
from visionserve.files import write_text

CURVES = "curves.csv"  # in a run and in its bundle
LAST, BEST = "last.ckpt", "best.ckpt"
# Entries that a resumed run may change: they do not change what it learns. Root and manifest are compared by content.
_FREE = (
    "tracking.",
    "machine.",
    "data.workers",
    "data.gpu_workers",
    "data.cache",
    "data.root",
    "data.manifest",
    "data.roots",
)
_APPLIED = ("epochs", "patience", "name", "version", "init_note", "data_note", "licence")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Where a run's files are."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.folder / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """The images that the run is trained and measured on."""
        return self.folder / "manifest.csv"

    @property
    def left_out(self) -> Path:
        """The files below the root that it does not use, and why."""
        return self.folder / corrupt_files.FILE_NAME

    @property
    def seen(self) -> Path:
        """The images that its initial weights or its teacher saw: SHA-256 and train or val, one a line, if any."""
        return self.folder / manifests.SEEN

    @property
    def probe(self) -> Path:
        """The linear probe, if the recipe has one."""
        return self.folder / "probe.safetensors"

    @property
    def facts(self) -> Path:
        """Root folder, labels and, when finished, the best validation accuracy."""
        return self.folder / "run.json"

    @property
    def checkpoints(self) -> Path:
        """Lightning's checkpoints."""
        return self.folder / "checkpoints"

    @property
    def curves(self) -> Path:
        """Loss and accuracy of every epoch so far."""
        return self.folder / CURVES

    @property
    def curves_plot(self) -> Path:
        """The same as a picture."""
        return self.folder / "curves.png"

    @property
    def weights(self) -> Path:
        """The averaged weights of the best epoch, written when the run ends."""
        return self.folder / "weights.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the run has ended by itself."""
        return self.weights.is_file()


def prepare(recipe: Recipe, run: Run, cache: Path | None = None, *, fresh: bool) -> Manifest:
    """Write the run's recipe, manifest and list of files left out, or read the manifest back and verify it.

    The manifest is written last: when it is there, so is the rest.

    Raises:
        BundleError: the images cannot be used, a bundle that the run learns from was trained on its validation or test
            images, or the run was begun with other images or options (the message says what to do).
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    if run.manifest.is_file() and not fresh:
        manifest = _resumed(recipe, run)
        for other in read_further(run).values():
            other.verify(f"bring it back. {_remedy()}")
        distillation.check_leak(recipe, manifests.joined([manifest, *read_further(run).values()]))
        recipes.save(recipe, run.recipe)
        return manifest
    memory = cache if cache is not None else run.folder.parent / "cache"
    manifest, left_out = preparation.make(recipe.data, memory)
    further = preparation.make_further(recipe.data, manifest, memory)
    seen = distillation.check_leak(recipe, manifests.joined([manifest, *(other for _, other, _ in further)]))
    # Of another run:
    others = [file for _, file in manifests.further_files(run.folder)]
    for old in (
        run.manifest,
        *others,
        run.checkpoints / LAST,
        run.checkpoints / BEST,
        run.curves,
        run.curves_plot,
        run.weights,
        run.seen,
        run.probe,
    ):
        old.unlink(missing_ok=True)
    recipes.save(recipe, run.recipe)
    corrupt_files.save(left_out, run.left_out)
    if seen:
        write_text(run.seen, "".join(f"{digest} {role}\n" for digest, role in sorted(seen.items())))
    facts: dict[str, Any] = {"root": str(manifest.root.resolve()), "labels": list(manifest.labels)}
    if further:
        facts["roots"] = {source.name: str(other.root.resolve()) for source, other, _ in further}
    save_facts(run, facts | {"initialised_from": initial_weights(recipe)})
    for source, other, other_left_out in further:
        other.save(manifests.further_file(run.folder, source.name))
        corrupt_files.save(other_left_out, run.folder / f"corrupt-{source.name}.csv")
    manifest.save(run.manifest)
    for line in preparation.summary(manifest, left_out):
        _log.info("%s", line)
    for source, other, other_left_out in further:
        for line in preparation.summary(other, other_left_out, labels=False):
            _log.info("%s: %s", source.name, line)
    return manifest


def read_manifest(run: Run) -> Manifest:
    """Read what a run was trained on."""
    facts = read_facts(run)
    return manifests.load(run.manifest, Path(facts["root"]), tuple(facts["labels"]))


def read_further(run: Run) -> dict[str, Manifest]:
    """Read the manifests of further sources, by name in the recipe's order."""
    facts = read_facts(run)
    return {
        name: manifests.load(manifests.further_file(run.folder, name), Path(root), tuple(facts["labels"]))
        for name, root in facts.get("roots", {}).items()
    }


def read_facts(run: Run) -> dict[str, Any]:
    """Return run.json."""
    try:
        facts: dict[str, Any] = json.loads(run.facts.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{run.folder} is not the folder of a run: {error}") from error
    return facts


def save_facts(run: Run, facts: dict[str, Any]) -> None:
    """Write run.json."""
    write_text(run.facts, json.dumps(facts, indent=1, ensure_ascii=False))


def unfinished(recipe: Recipe, run: Run) -> bool:
    """Whether the run has not ended and was begun with the same recipe and split."""
    if run.finished or not run.manifest.is_file() or recipes.load(run.recipe) != recipe:
        return False
    manifest = recipe.data.manifest
    return manifest is None or Path(manifest).read_bytes() == run.manifest.read_bytes()


def resume_point(run: Run, resume: str) -> Path | None:
    """Return the checkpoint to go on from; None begins with the first epoch."""
    if resume == "none":
        return None
    if resume == "auto":
        last = run.checkpoints / LAST
        return last if last.is_file() else None
    checkpoint = Path(resume)
    if not checkpoint.is_file():
        raise BundleError(f"checkpoint {checkpoint} does not exist")
    other = Run(checkpoint.resolve().parent.parent)
    if not other.manifest.is_file():
        _log.warning("%s is in no run's folder: whether it has seen this run's test images is not known", checkpoint)
    elif other.manifest.read_bytes() != run.manifest.read_bytes():
        raise BundleError(f"{checkpoint} is of a run on other images: --data.manifest {other.manifest} uses the same")
    return checkpoint


def _resumed(recipe: Recipe, run: Run) -> Manifest:
    """Return the manifest of a run that may go on with this recipe; log what is applied or not done."""
    differences = _differences(recipes.load(run.recipe), recipe)
    refused = {entry: values for entry, values in differences.items() if entry not in _APPLIED}
    if run.finished:
        refused |= {entry: differences[entry] for entry in ("name", "version") if entry in differences}
    if refused:
        done = "finished" if run.finished else "begun"
        raise BundleError(f"{run.folder} was {done} with {_listed(refused)}. {_remedy()}")
    manifest = _same_images(recipe, run)
    if differences:
        _log.warning("%s goes on with other entries: %s", run.folder, _listed(differences, " -> "))
    if run.finished and "epochs" not in differences and "patience" not in differences:
        _log.warning("%s is finished: nothing is trained. --resume none trains it again", run.folder)
    return manifest


def _same_images(recipe: Recipe, run: Run) -> Manifest:
    """Return the run's manifest, verified below the recipe's root; a BundleError if the folder holds other images."""
    facts, manifest = read_facts(run), read_manifest(run)
    path = recipe.data.manifest
    if path is not None and Path(path).read_bytes() != run.manifest.read_bytes():
        raise BundleError(f"{run.folder} was begun with another manifest than {path}. {_remedy()}")
    root = Path(recipe.data.root).resolve() if recipe.data.root is not None else manifest.root
    if root != manifest.root:
        if any(not (root / row.path).is_file() for row in manifest.rows):
            raise BundleError(
                f"{run.folder} was begun with the images of {manifest.root}, not with those of {root}. {_remedy()}"
            )
        manifest = with_changes(manifest, root=root)
    manifest.verify(f"bring it back. {_remedy()}")
    if path is None:
        _refuse_new_images(recipe, run, manifest)
    if facts["root"] != str(root):
        _log.warning("the images of %s are now read from %s: the same files", run.folder, root)
        save_facts(run, facts | {"root": str(root)})
    return manifest


def _refuse_new_images(recipe: Recipe, run: Run, manifest: Manifest) -> None:
    collection = collect(recipe.data.source, manifest.root, csv=recipe.data.csv)
    used_or_left_out = {row.path for row in manifest.rows} | {file.path for file in _left_out(run)}
    new = [image for image in collection.images if image.path not in used_or_left_out]
    if not new:
        return
    labels = sorted({image.label for image in new} - set(manifest.labels))
    also = f", and {counted(len(labels), 'new label')} ({_some(labels)})" if labels else ""
    raise BundleError(
        f"{run.folder} was {'trained' if run.finished else 'begun'} with {len(manifest.rows)} images of "
        f"{manifest.root}, which now has {len(new)} more ({_some([image.path for image in new])}){also}. "
        f"{_remedy()}, or go on without them: --data.manifest {run.manifest}"
    )


def _left_out(run: Run) -> tuple[CorruptFile, ...]:
    if not run.left_out.is_file():
        return ()
    with run.left_out.open(encoding="utf-8", newline="") as file:
        return tuple(CorruptFile(row["path"], row["reason"]) for row in csv.DictReader(file))


def _differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return entry -> old and new value, of the entries that make a difference."""
    before, after = (dict(recipes.flat(recipes.plain(recipe))) for recipe in (old, new))
    entries = [entry for entry in {**before, **after} if not entry.startswith(_FREE)]
    return {e: (before.get(e), after.get(e)) for e in entries if before.get(e) != after.get(e)}


def _listed(differences: dict[str, tuple[Any, Any]], separator: str = ", not ") -> str:
    return "; ".join(f"{entry} {old}{separator}{new}" for entry, (old, new) in differences.items())


def _remedy() -> str:
    return "Train again: --resume none, or in another folder: --run FOLDER"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
