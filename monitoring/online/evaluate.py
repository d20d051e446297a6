"""`python -m monitoring evaluate`: post labelled images to the running service, compare its accuracy with the card's.

The same command continues a run that was interrupted.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from monitoring import feedback as feedbacks
from monitoring.online import labelled_images, metrics, prediction_log, report
from monitoring.online.client import Poster, post_all
from monitoring.online.labelled_images import Labelled, Unusable
from monitoring.online.offline import Offline
from monitoring.online.prediction_log import Entry, Start
from monitoring.online.report import Results
from visionserve.client import Client, ServiceUnreachable
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

NO_SERVICE, INTERRUPTED = 3, 130
_CONTINUE = "The answers so far are in {}; the same command continues the run."


def run(args: argparse.Namespace) -> int:
    """Post, log and report; return the exit status."""
    try:
        return _evaluate(args)
    except ServiceUnreachable as error:
        print(f"{error} {_CONTINUE.format(args.log)}", file=sys.stderr)
        return NO_SERVICE
    except KeyboardInterrupt:
        print(f"Interrupted. {_CONTINUE.format(args.log)}", file=sys.stderr)
        return INTERRUPTED
    except Unusable as error:
        print(f"{args.program}: {error}", file=sys.stderr)
        return 1


def _evaluate(args: argparse.Namespace) -> int:
    card = ModelCard.load(args.bundle / CARD) if args.bundle is not None else None
    offline = Offline(args.bundle) if args.bundle is not None else None
    images = labelled_images.rename(
        labelled_images.collect(args.images, args.root, args.split, args.limit), dict(args.rename)
    )
    log = prediction_log.read(args.log)
    run = log.unfinished(args.url, labelled_images.digest(images)) or prediction_log.now()
    with Client(args.url, api_key=args.api_key) as client:
        labels, measure = card.labels if card else None, offline.properties if offline else None
        poster = Poster(client, run, args.model, labels, measure)
        complete = _post(poster, images, log.of(run), args)
    if not complete:
        raise KeyboardInterrupt
    results = _results(run, images, args, card, offline)
    report.write(results, args.report)
    if args.textfile is not None:
        report.write_textfile(results, args.textfile)
    _print(results, args)
    return 0


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
) -> Results:
    log = prediction_log.read(args.log)
    entries = log.of(run)
    summary = metrics.summarise(entries)
    files = {image.digest: image.file for image in images}
    feedback = None
    if args.feedback is not None:
        labels = {entry.request_id: entry.label for entry in log.images if entry.request_id is not None}
        feedback = feedbacks.summarise(feedbacks.read(args.feedback), labels)
    return Results(
        run,
        args.url,
        entries,
        summary,
        {image.digest: image.name for image in images},
        against=metrics.against_offline(summary, vars(card)) if card is not None else None,
        agreement=offline.compare(entries, files) if offline is not None and args.compare else None,
        feedback=feedback,
    )


def _print(results: Results, args: argparse.Namespace) -> None:
    print(report.verdict(results).replace("**", ""))
    for entry in results.entries:
        if not entry.ok:
            print(f"  {results.names[entry.image]}: {entry.code}", file=sys.stderr)
    print(f"{args.report / 'report.md'}")
