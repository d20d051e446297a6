"""Counts of a run over a folder: answers, errors and, where the images have labels, right answers."""

from collections import Counter
from collections.abc import Collection
from pathlib import PurePosixPath

from visionserve.cli.output import STANDARD_OUTPUT
from visionserve.cli.resumable_table import Record
from visionserve.client.http_messages import BUSY


class Tally:
    """Counts of answers, errors and, if images have labels, of right answers, of the images of a folder.

    Args:
        images: their names in the table; the table may have rows of images that are gone.
    """

    def __init__(self, images: Collection[str], has_labels: bool) -> None:
        self._images = images
        self._has_labels = has_labels
        self._errors: Counter[str] = Counter()
        self.before = self._gone = 0
        self.earlier_models = set[str]()
        self._labelled = self._right = 0
        self.busy_in_a_row = 0

    def add_earlier(self, row: Record) -> None:
        """Count a row of an earlier run."""
        if row.get("model"):
            self.earlier_models.add(str(row["model"]))
        if row["path"] in self._images:
            self.before += 1
            self._judge(row)
        else:
            self._gone += 1

    def add(self, row: Record) -> None:
        """Count a row of this run."""
        error = str(row["error"] or "")
        self._errors[error] += 1
        self.busy_in_a_row = self.busy_in_a_row + 1 if error in BUSY else 0
        self._judge(row)

    @property
    def only_busy(self) -> bool:
        """Whether this run tried something and the service was too busy for all of it."""
        return bool(self._errors) and set(self._errors) <= set(BUSY)

    def _judge(self, row: Record) -> None:
        label = PurePosixPath(str(row["path"])).parent.name
        if self._has_labels and label and row.get("label"):
            self._labelled += 1
            self._right += _same_label(label, str(row["label"]))

    def summary(self, output: str | None) -> str:
        """Return the counts as a sentence or two."""
        errors = {code: count for code, count in self._errors.most_common() if code}
        parts = [f"{self._errors['']:,} answered"]
        if errors:
            listed = ", ".join(f"{count:,} {code}" for code, count in errors.items())
            parts.append(f"{sum(errors.values()):,} without an answer ({listed})")
        if self.before:
            parts.append(f"{self.before:,} had a row already")
        if self._gone:
            parts.append(f"rows of images that are no longer in the folder: {self._gone:,}")
        text = "; ".join(parts) + (f"; rows in {output}" if output not in (None, STANDARD_OUTPUT) else "")
        if busy := sum(errors.get(code, 0) for code in BUSY):
            text += f". The same command tries the {busy:,} again for which the service was too busy"
        return text + self._accuracy()

    def _accuracy(self) -> str:
        if not self._has_labels:
            return ""
        if not self._labelled:
            return ". No accuracy: no answered image is in a folder below the one that was named"
        share = self._right / self._labelled
        return f". Accuracy {share:.1%}: {self._right:,} of {self._labelled:,} answers equal the folder's name"


def _same_label(folder: str, label: str) -> bool:
    """Compare a folder's name with a label; folders often have _ for a space, and other capitals."""
    return folder.replace("_", " ").casefold() == label.replace("_", " ").casefold()
