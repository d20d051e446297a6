"""`python -m monitoring.online`: posts labelled photographs to the running service and says whether it is still right.

Exit status: 0 done, 1 unusable input or a full disk, 3 no service, 130 interrupted. The same command goes on where it
was stopped.
"""

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from monitoring import feedback as feedbacks
from monitoring import textfile
from monitoring.online import labelled_images, metrics, prediction_log, report
from monitoring.online.client import Poster, post_all
from monitoring.online.labelled_images import Labelled, Unusable
from monitoring.online.offline import Offline
from monitoring.online.prediction_log import Photograph, Start
from monitoring.online.report import Findings
from visionserve.client import Client, ServiceUnreachable
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

NO_SERVICE, INTERRUPTED = 3, 130
_GOES_ON = "What was answered is in {}; the same command goes on."


def main(arguments: list[str]) -> int:
    """Post, log and report; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except ServiceUnreachable as error:
        print(f"{error} {_GOES_ON.format(options.log)}", file=sys.stderr)
        return NO_SERVICE
    except KeyboardInterrupt:
        print(f"Interrupted; {_GOES_ON.format(options.log)}", file=sys.stderr)
        return INTERRUPTED
    except (Unusable, BundleError, OSError) as error:
        print(f"python -m monitoring.online: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    card = ModelCard.load(options.bundle / CARD) if options.bundle is not None else None
    offline = Offline(options.bundle) if options.bundle is not None else None
    photographs = labelled_images.rename(
        labelled_images.collect(options.images, options.root, options.split, options.limit), dict(options.rename)
    )
    log = prediction_log.read(options.log)
    run = log.unfinished(options.url, labelled_images.digest(photographs)) or prediction_log.now()
    with Client(options.url, api_key=options.api_key) as client:
        labels, measure = card.labels if card else None, offline.properties if offline else None
        poster = Poster(client, run, options.model, labels, measure)
        complete = _post(poster, photographs, log.of(run), options)
    if not complete:
        raise KeyboardInterrupt
    findings = _findings(run, photographs, options, card, offline)
    report.write(findings, options.report)
    if options.textfile is not None:
        textfile.write(options.textfile, report.metrics(findings))
    _say(findings, photographs, options)
    return 0


def _post(poster: Poster, photographs: list[Labelled], before: list[Photograph], options: argparse.Namespace) -> bool:
    """Post what the run has not posted yet; return whether it is complete."""
    known = {entry.photograph for entry in before}
    remaining = [entry for entry in photographs if entry.digest not in known]
    stop = threading.Event()
    with prediction_log.Writer(options.log) as writer, _Interrupts(stop):
        if not before:
            writer.start(Start(poster.run, prediction_log.now(), options.url, labelled_images.digest(photographs)))
        else:
            print(f"going on with {poster.run}: {len(known)} of {len(photographs)} are done", file=sys.stderr)
        posted = 0
        for entry in post_all(poster, remaining, options.concurrency, stop.is_set):
            writer.photograph(entry)
            posted += 1
        if posted == len(remaining):
            writer.end(poster.run)
    return posted == len(remaining)


class _Interrupts:
    """Sets an event on the first Ctrl-C or SIGTERM; the second one ends the program as usual."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        self._stop.set()
        signal.signal(number, self._before[signal.Signals(number)])


def _findings(
    run: str,
    photographs: list[Labelled],
    options: argparse.Namespace,
    card: ModelCard | None,
    offline: Offline | None,
) -> Findings:
    log = prediction_log.read(options.log)
    entries = log.of(run)
    summary = metrics.summarise(entries)
    files = {entry.digest: entry.file for entry in photographs}
    said = None
    if options.feedback is not None:
        truths = {entry.request_id: entry.label for entry in log.photographs if entry.request_id is not None}
        said = feedbacks.summarise(feedbacks.read(options.feedback), truths)
    return Findings(
        run,
        options.url,
        entries,
        summary,
        {entry.digest: entry.name for entry in photographs},
        against=metrics.against_offline(summary, vars(card)) if card is not None else None,
        agreement=offline.compare(entries, files) if offline is not None and options.compare else None,
        feedback=said,
    )


def _say(findings: Findings, photographs: list[Labelled], options: argparse.Namespace) -> None:
    print(report.verdict(findings).replace("**", ""))
    names = {entry.digest: entry.name for entry in photographs}
    for entry in findings.entries:
        if not entry.ok:
            print(f"  {names[entry.photograph]}: {entry.code}", file=sys.stderr)
    print(f"{options.report / 'report.md'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.online", description="Post labelled photographs: is the running service still right?"
    )
    parser.add_argument(
        "--images", type=Path, required=True, help="folder of class folders, or a CSV file with the columns path,label"
    )
    parser.add_argument("--root", type=Path, help="where the CSV file's paths begin (default: its own folder)")
    parser.add_argument("--split", default="test", help="split to post, of a CSV file with splits (default: test)")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8080", help="where the service answers (default: %(default)s)"
    )
    parser.add_argument("--model", default="flowers", help="name of the model (default: %(default)s)")
    parser.add_argument("--api-key", help="key of the gateway, where it asks for one")
    parser.add_argument("--log", type=Path, default=Path("runs/live/log.jsonl"), help="default: %(default)s")
    parser.add_argument("--report", type=Path, default=Path("runs/live/report"), help="folder (default: %(default)s)")
    parser.add_argument("--textfile", type=Path, help="write a Prometheus text file here, for the textfile collector")
    parser.add_argument("--feedback", type=Path, help="what people said on the page, JSON Lines")
    parser.add_argument(
        "--bundle", type=Path, help="the model's bundle: adds its card's accuracy and the images' properties for drift"
    )
    parser.add_argument("--compare", action="store_true", help="with --bundle: classify here too, compare each answer")
    parser.add_argument("--limit", type=_positive, help="post at most so many, spread evenly over the names")
    parser.add_argument("--concurrency", type=_positive, default=4, help="photographs at once (default: %(default)s)")
    parser.add_argument(
        "--rename", type=_pair, action="append", default=[], metavar="OURS=MODEL", help="a label as the model calls it"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _pair(text: str) -> tuple[str, str]:
    ours, mark, theirs = text.partition("=")
    if not (ours and mark and theirs):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OURS=MODEL")
    return ours, theirs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
