"""`python -m monitoring evaluate`: post labelled images to the running service, compare its accuracy with the card's.

The same command continues a run that was interrupted.
"""

import argparse
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

from monitoring import feedback as feedbacks
from monitoring.online import comparison, labelled_images, metrics, prediction_log, report
from monitoring.online.client import Poster, TimedTransport, post_all
from monitoring.online.labelled_images import Labelled, Unusable
from monitoring.online.offline import Offline
from monitoring.online.prediction_log import Entry, Start
from monitoring.online.report import Results
from training.data import manifest as manifests
from visionserve.client import Client, ServiceUnreachable
from visionserve.client.transports import HttpxTransport
from visionserve.files import is_inside
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

NO_SERVICE, INTERRUPTED = 3, 130
_UNKNOWN_LABELS = 5  # that are named
_CONTINUE = "The answers so far are in {}; the same command continues the run."
_ELSEWHERE = 'A service at another address is named with --url (make: ARGS="--url http://HOST:PORT").'


def run(args: argparse.Namespace) -> int:
    """Post, log and report; return the exit status."""
    try:
        return _evaluate(args)
    except ServiceUnreachable as error:
        log = prediction_log.read(args.log)
        begun = bool(log.starts and log.of(log.starts[-1].run))
        print(f"{error} {_CONTINUE.format(args.log) if begun else _ELSEWHERE}", file=sys.stderr)
        return NO_SERVICE
    except KeyboardInterrupt:
        print(f"Interrupted. {_CONTINUE.format(args.log)}", file=sys.stderr)
        return INTERRUPTED
    except Unusable as error:
        print(f"{args.program}: {error}", file=sys.stderr)
        return 1


def _evaluate(args: argparse.Namespace) -> int:
    if args.compare and args.bundle is None:
        raise Unusable("--compare classifies the images with the model's bundle: name it with --bundle")
    if args.images.is_dir() and is_inside(args.report, args.images):
        raise Unusable(
            f"--report {args.report} is inside {args.images}, whose images are posted: choose another folder"
        )
    card = ModelCard.load(args.bundle / CARD) if args.bundle is not None else None
    offline = Offline(args.bundle) if args.bundle is not None else None
    images = labelled_images.rename(
        labelled_images.collect(args.images, args.root, args.split, args.limit, card.labels if card else None),
        dict(args.rename),
    )
    if card is not None:
        _say_unknown_labels(images, card)
    log = prediction_log.read(args.log)
    run = log.unfinished(args.url, labelled_images.digest(images)) or prediction_log.now()
    transport = TimedTransport(HttpxTransport(args.concurrency, [args.url]))
    with Client(args.url, api_key=args.api_key, transport=transport) as client:
        labels, measure = card.labels if card else None, offline.properties if offline else None
        poster = Poster(client, transport, run, args.model, labels, measure)
        complete = _post(poster, images, log.of(run), args)
    if not complete:
        raise KeyboardInterrupt
    all_results = _results(run, images, args, card, offline)
    # A folder of its own for each run: an earlier report stays.
    folder = args.report / run.replace(":", "-")
    for results in all_results:
        below = folder if len(all_results) == 1 else folder / f"{results.model}-{results.version}"
        report.write(results, below)
        print(report.verdict(results).replace("**", ""))
        print(below / "report.md")
    for entry in all_results[0].entries:
        if not entry.ok:
            print(f"  {all_results[0].names[entry.image]}: {entry.code}", file=sys.stderr)
    if args.textfile is not None:
        report.write_textfile(all_results, args.textfile)
    return 0


def _say_unknown_labels(images: Sequence[Labelled], card: ModelCard) -> None:
    """Name the labels that the model does not have, before their images are posted."""
    known = set(card.labels)
    unknown = Counter(image.label for image in images if not known & {image.label, *image.accept})
    if unknown:
        listed = ", ".join(f"{label} ({count})" for label, count in unknown.most_common(_UNKNOWN_LABELS))
        more = f" and {len(unknown) - _UNKNOWN_LABELS} others" if len(unknown) > _UNKNOWN_LABELS else ""
        print(
            f"{card.name} {card.version} has no label {listed}{more}: {unknown.total()} of {len(images)} images do not "
            "count in its accuracy. --rename OTHER=LABEL gives a label its name in the model.",
            file=sys.stderr,
        )


def _post(poster: Poster, images: Sequence[Labelled], before: Sequence[Entry], args: argparse.Namespace) -> bool:
    """Post what the run has not posted yet; return whether it is complete."""
    done = {entry.image for entry in before}
    remaining = [image for image in images if image.digest not in done]
    stop = threading.Event()
    with prediction_log.Writer(args.log) as writer, _Interrupts(stop):
        if not before:
            writer.start(Start(poster.run, prediction_log.now(), args.url, labelled_images.digest(images)))
        else:
            print(f"continuing {poster.run}: {len(done)} of {len(images)} images are done", file=sys.stderr)
        posted = 0
        for entry in post_all(poster, remaining, args.concurrency, stop.is_set):
            writer.image(entry)
            posted += 1
        if posted == len(remaining):
            writer.end(poster.run)
    return posted == len(remaining)


class _Interrupts:
    """Sets an event on the first Ctrl-C or SIGTERM; the second one ends the program as usual."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._received) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        self._stop.set()
        signal.signal(number, self._before[signal.Signals(number)])


def _results(
    run: str, images: Sequence[Labelled], args: argparse.Namespace, card: ModelCard | None, offline: Offline | None
) -> list[Results]:
    """Return the results of each model version that answered; one without a model when none did."""
    log = prediction_log.read(args.log)
    entries = log.of(run)
    unanswered = [entry for entry in entries if not entry.ok]
    files = {image.digest: image.file for image in images}
    names = {image.digest: image.name for image in images}
    groups = {image.digest: image.group for image in images}
    feedback = None
    if args.feedback is not None:
        labels = {entry.request_id: entry.label for entry in log.images if entry.request_id is not None}
        feedback = feedbacks.summarise(feedbacks.read(args.feedback), labels)
    all_results = []
    for (model, version), answered in (metrics.by_version(entries) or {("", ""): []}).items():
        summary = metrics.summarise([*answered, *unanswered], groups)
        results = Results(run, args.url, model, version, [*answered, *unanswered], summary, names, feedback=feedback)
        if card is not None and offline is not None:
            results = replace(results, card=(card.name, card.version))
            if results.card == (model, version):
                agreement = offline.compare(answered, files) if _on_the_cards_images(args) or args.compare else None
                against = comparison.against_card(summary, card.metrics, agreement, args.alpha)
                results = replace(
                    results,
                    agreement=agreement,
                    against=against,
                    elsewhere=card.metrics.get("external", {}),
                    seen=manifests.seen_among(args.bundle, files.values()),
                )
        all_results.append(results)
    return all_results


def _on_the_cards_images(args: argparse.Namespace) -> bool:
    """Return whether the images are those that the card's accuracy comes from: a test of two samples would not hold."""
    manifest = args.bundle / "manifest.csv"
    return bool(manifest.is_file() and args.images.samefile(manifest))
