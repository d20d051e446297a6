"""Numbers -> HTML that style.css dresses. Everything that comes from elsewhere is escaped here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from ui import colours
from ui.card import Bin, Card
from ui.interpretation import Familiarity, percent, sureness, warning
from visionserve.client import Answer

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the calibration plot


def masthead(icon: bytes, title: str, line: str) -> str:
    """Return the page's head; ``icon`` is an SVG file."""
    picture = f'<img src="data:image/svg+xml;base64,{base64.b64encode(icon).decode()}" alt="">'
    return f'<header class="vs-head">{picture}<div><h1>{escape(title)}</h1><p>{escape(line)}</p></div></header>'


def verdict(name: str, answer: Answer, kind: Familiarity, labels: int) -> str:
    """Return the best label, how sure the model is, and a warning where the photograph is not like those it knows."""
    best = answer.best
    caution = warning(kind, answer.novelty, answer.model.name, labels)
    note = f'<p class="vs-note vs-{kind}" role="note">{escape(caution)}</p>' if caution else ""
    return (
        f'<div class="vs-verdict"><p class="vs-file">{escape(name)}</p>{note}'
        f"<h2>{escape(best.label)}</h2>"
        f'<p class="vs-sure"><b>{percent(best.probability)}</b> {escape(sureness(kind, best.probability))}</p></div>'
    )


def bars(answer: Answer, kind: Familiarity) -> str:
    """Return the predictions as horizontal bars, the most probable on top; pale where they mean little."""
    rows = "".join(
        f'<li data-label="{escape(found.label)}" data-probability="{found.probability}">'
        f'<span class="vs-label">{escape(found.label)}</span>'
        f'<span class="vs-track"><span style="width:{max(found.probability * 100, 0.4):.2f}%"></span></span>'
        f'<span class="vs-value">{percent(found.probability)}</span></li>'
        for found in answer.predictions
    )
    return f'<ol class="vs-bars vs-{kind}" aria-label="The most probable labels">{rows}</ol>'


def declined(name: str, sentence: str) -> str:
    """Return why a file has no answer."""
    return (
        f'<div class="vs-verdict"><p class="vs-file">{escape(name)}</p>'
        f'<p class="vs-note vs-declined" role="alert">{escape(sentence)}</p></div>'
    )


def thanks(label: str) -> str:
    """Return the thanks for what somebody said of an answer."""
    return f'<p class="vs-thanks" role="status">Thank you. Kept as <b>{escape(label)}</b>.</p>'


def down(url: str, said: str) -> str:
    """Return the sentences for a service that does not answer, or that only ``said`` something else."""
    nothing = f"Nothing answers at <code>{escape(url)}</code>."
    start = f"{nothing} Start it with <code>make serve</code>, or wait if it is starting."
    return (
        f'<div class="vs-down" role="status"><h2>The service is not there yet</h2><p>{escape(said) or start} '
        "This page looks again every few seconds, and keeps your photographs.</p></div>"
    )


def heat_legend() -> str:
    """Return the heatmap's scale in words and colours."""
    return (
        '<p class="vs-scale"><span>speaks little for it</span>'
        f'<i style="background:{colours.gradient()}"></i><span>much</span></p>'
    )


def stages(round_trip_s: float, timings: Mapping[str, float]) -> list[tuple[str, float]]:
    """Divide a round trip into named seconds; only the whole of it where the service did not say more.

    ``total`` is the service's time for the whole batch; what decoding and the model leave of it went to drawing the
    heatmap and to the batch's other images.
    """
    if "total" not in timings:
        return [("round trip", round_trip_s)]
    decode, model, total = (timings.get(name, 0.0) for name in ("decode", "inference", "total"))
    found = [("way and queue", round_trip_s - total)]
    found += [("decode", decode), ("model", model), ("heatmap and the rest", total - decode - model)]
    return [(name, max(seconds, 0.0)) for name, seconds in found]


def time(round_trip_s: float, timings: Mapping[str, float]) -> str:
    """Return where the time went, as a divided strip with its legend."""
    found = stages(round_trip_s, timings)
    parts = "".join(f'<span class="vs-t{n}" style="flex-grow:{s * 1000:.3f}"></span>' for n, (_, s) in enumerate(found))
    words = "".join(
        f'<li class="vs-t{n}" data-stage="{escape(name)}">{escape(name)} <b>{s * 1000:.1f}</b></li>'
        for n, (name, s) in enumerate(found)
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
    if card.top5 is not None:
        shown.append((percent(card.top5), "right among five", ""))
    if card.calibration_error is not None:
        shown.append((percent(card.calibration_error), "calibration error", "stated against actual sureness"))
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
        "<figcaption>Across: how sure it was. Up: how often it was right, with the 95 % interval. "
        "Large dot: many photographs.</figcaption>"
        "</figure>"
    )


def _dot(entry: Bin, most: int) -> str:
    told = f"{entry.count} photographs: {percent(entry.confidence)} sure, {percent(entry.accuracy)} right"
    size = 0.4 + 0.9 * (entry.count / most) ** 0.5  # the area tells the count
    low, high = entry.interval
    place = f"left:{entry.confidence:.2%};bottom:{entry.accuracy:.2%};--vs-size:{size:.2f}rem"
    return (
        f'<s style="left:{entry.confidence:.2%};bottom:{low:.2%};height:{high - low:.2%}"></s>'
        f'<i style="{place}" title="{told}"></i>'
    )


def labels(names: Sequence[str]) -> str:
    """Return labels as a list of chips."""
    return '<ul class="vs-labels">' + "".join(f"<li>{escape(name)}</li>" for name in names) + "</ul>"


def facts(entries: Mapping[str, str]) -> str:
    """Return named facts, a line each."""
    lines = "".join(f"<div><dt>{escape(title)}</dt><dd>{escape(text)}</dd></div>" for title, text in entries.items())
    return f'<dl class="vs-facts">{lines}</dl>'
