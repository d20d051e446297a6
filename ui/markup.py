"""Numbers -> HTML, styled by style.css. All text from outside is escaped here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from ui import overlay
from ui.card import Bin, Card
from ui.interpretation import Familiarity, heading, percent, sureness, warning
from visionserve.client import Answer, Part

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the calibration plot


def masthead(icon: bytes, title: str, line: str) -> str:
    """Return the page's head; ``icon`` is an SVG file."""
    image = f'<img src="data:image/svg+xml;base64,{base64.b64encode(icon).decode()}" alt="">'
    return f'<header class="vs-head">{image}<div><h1>{escape(title)}</h1><p>{escape(line)}</p></div></header>'


def verdict(name: str, answer: Answer, kind: Familiarity, card: Card) -> str:
    """Return the best label, how sure the model is, and a warning if the image is unlike those the model knows."""
    best = answer.best
    caution = warning(kind, answer.novelty, answer.model.name, len(card.labels), card.reference)
    note = f'<p class="vs-note vs-{kind}" role="note">{escape(caution)}</p>' if caution else ""
    return (
        f'<div class="vs-verdict vs-{kind}"><p class="vs-file">{escape(name)}</p>{note}'
        f"<h2>{escape(heading(kind, best.label))}</h2>"
        f'<p class="vs-sure"><b>{percent(best.probability)}</b> '
        f"{escape(sureness(kind, best.label, best.probability, card.images))}</p></div>"
    )


def bars(answer: Answer, kind: Familiarity) -> str:
    """Return the predictions as horizontal bars, the most probable on top; pale where they mean little."""
    rows = "".join(
        f'<li data-label="{escape(entry.label)}" data-probability="{entry.probability}">'
        f'<span class="vs-label">{escape(entry.label)}</span>'
        f'<span class="vs-track"><span style="width:{max(entry.probability * 100, 0.4):.2f}%"></span></span>'
        f'<span class="vs-value">{percent(entry.probability)}</span></li>'
        for entry in answer.predictions
    )
    return f'<ol class="vs-bars vs-{kind}" aria-label="The most probable labels">{rows}</ol>'


def declined(name: str, sentence: str) -> str:
    """Return the reason why a file has no answer."""
    return (
        f'<div class="vs-verdict"><p class="vs-file">{escape(name)}</p>'
        f'<p class="vs-note vs-declined" role="alert">{escape(sentence)}</p></div>'
    )


def thanks(label: str) -> str:
    """Return the thanks for feedback."""
    return f'<p class="vs-thanks" role="status">Thank you. Saved as <b>{escape(label)}</b>.</p>'


def consent(days: int) -> str:
    """Return what it means to let an image be kept."""
    return (
        '<p class="vs-consent">If you tick this, the file is stored exactly as you gave it, with what a camera writes '
        "into it (such as place and time), so that people can check it and improve the model. It is deleted after at "
        f"most {days} days unless it was taken as a training image. Unticked, only your answer is saved, never the "
        "image.</p>"
    )


def down(url: str, message: str) -> str:
    """Return the sentences for a service that does not answer, or that cannot; ``message`` is why, if it said so."""
    nothing = f"Nothing answers at <code>{escape(url)}</code>."
    start = f"{nothing} Start it with <code>make serve</code>, or wait if it is starting."
    return (
        f'<div class="vs-down" role="status"><h2>The service is not available yet</h2><p>{escape(message) or start} '
        "This page checks again every few seconds, and keeps your images.</p></div>"
    )


def heat_legend() -> str:
    """Return the heatmap's scale in words and colours."""
    return (
        '<p class="vs-scale"><span>supports it little</span>'
        f'<i style="background:{overlay.gradient()}"></i><span>much</span></p>'
    )


def part(named: Part, accuracy: float | None) -> str:
    """Return where the heatmap is strongest, and how often such a name is right (0-1; None: not known)."""
    how_far = "" if accuracy is None else f" Such a name is right for {percent(accuracy)} of the test images."
    return (
        f'<p class="vs-part">The heatmap is strongest on: <b>{escape(named.name)}</b> '
        f"({percent(named.probability)}).{how_far}</p>"
    )


def stages(round_trip_s: float, timings: Mapping[str, float]) -> list[tuple[str, float]]:
    """Divide a round trip into named seconds; only the total if the service did not report its stages.

    ``total`` is the service's time for the whole batch; what decoding and the model leave of it is the drawing of the
    heatmap and the batch's other images.
    """
    if "total" not in timings:
        return [("round trip", round_trip_s)]
    decode, model, total = (timings.get(name, 0.0) for name in ("decode", "inference", "total"))
    parts = [("network and queue", round_trip_s - total)]
    parts += [("decode", decode), ("model", model), ("heatmap and the rest", total - decode - model)]
    return [(name, max(seconds, 0.0)) for name, seconds in parts]


def time(round_trip_s: float, timings: Mapping[str, float]) -> str:
    """Return the time by stage, as a divided strip with its legend."""
    named = stages(round_trip_s, timings)
    parts = "".join(f'<span class="vs-t{n}" style="flex-grow:{s * 1000:.3f}"></span>' for n, (_, s) in enumerate(named))
    words = "".join(
        f'<li class="vs-t{n}" data-stage="{escape(name)}">{escape(name)} <b>{s * 1000:.1f}</b></li>'
        for n, (name, s) in enumerate(named)
    )
    return (
        f'<div class="vs-time"><p>Answered in <b>{round_trip_s * 1000:.0f} ms</b></p>'
        f'<div class="vs-strip" aria-hidden="true">{parts}</div>'
        f'<ul aria-label="Milliseconds by stage">{words}</ul></div>'
    )


def figures(card: Card) -> str:
    """Return the model's headline figures."""
    shown = []
    if card.top1 is not None:
        low_high = card.top1_interval
        interval = f"95 % interval {low_high[0] * 100:.1f} to {low_high[1] * 100:.1f} %" if low_high else ""
        shown.append((percent(card.top1), "right at the first guess", interval))
    if card.top5 is not None and len(card.labels) > 5:  # otherwise it always is
        shown.append((percent(card.top5), "right among five", ""))
    if card.calibration_error is not None:
        shown.append((percent(card.calibration_error), "calibration error", "stated against actual accuracy"))
    cells = "".join(
        f"<div><dd>{escape(value)}</dd><dt>{escape(title)}<small>{escape(note)}</small></dt></div>"
        for value, title, note in shown
    )
    return f'<dl class="vs-figures">{cells}</dl>'


def calibration(bins: Sequence[Bin]) -> str:
    """Return the reliability diagram: how often the model was right against how sure it was, a dot for each bin."""
    most = max((entry.count for entry in bins), default=1)
    dots = "".join(_dot(entry, most) for entry in bins if entry.count)
    ticks = "".join(
        f'<span class="vs-x" style="left:{t:.0%}">{t:.0%}</span>'
        f'<span class="vs-y" style="bottom:{t:.0%}">{t:.0%}</span>'
        for t in _TICKS
    )
    return (
        '<figure class="vs-plot"><div role="img" aria-label="Calibration: how often the model was right, by how '
        f'sure it was. On the diagonal the two agree.">{dots}{ticks}</div>'
        "<figcaption>Horizontal: how sure it was. Vertical: how often it was right, with the 95 % interval. "
        "Large dot: many images.</figcaption>"
        "</figure>"
    )


def _dot(entry: Bin, most: int) -> str:
    tooltip = f"{entry.count} images: {percent(entry.confidence)} sure, {percent(entry.accuracy)} right"
    size = 0.4 + 0.9 * (entry.count / most) ** 0.5  # the area is proportional to the count
    low, high = entry.interval
    position = f"left:{entry.confidence:.2%};bottom:{entry.accuracy:.2%};--vs-size:{size:.2f}rem"
    return (
        f'<s style="left:{entry.confidence:.2%};bottom:{low:.2%};height:{high - low:.2%}"></s>'
        f'<i style="{position}" title="{tooltip}"></i>'
    )


def labels(names: Sequence[str]) -> str:
    """Return labels as a list of chips."""
    return '<ul class="vs-labels">' + "".join(f"<li>{escape(name)}</li>" for name in names) + "</ul>"


def facts(entries: Mapping[str, str]) -> str:
    """Return named facts, a line each."""
    lines = "".join(f"<div><dt>{escape(title)}</dt><dd>{escape(text)}</dd></div>" for title, text in entries.items())
    return f'<dl class="vs-facts">{lines}</dl>'
