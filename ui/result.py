"""One image's answer: the image with its heatmap, the bars, the time it took, and the person's feedback.

Each result reruns on its own: moving its slider sends no request.
"""

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from ui import feedback, markup, overlay
from ui.card import Card
from ui.interpretation import familiarity
from ui.kept_images import NotKept
from ui.predictions import Answered, ImageFile
from ui.settings import Settings
from visionserve.client import Answer, Model

_UNKNOWN = "something else, or I do not know"
_OPACITY = 60  # percent: the image still shows
# Height over width of an image from which on it is shown this many CSS pixels high: its slider stays on the screen.
_TALL, _TALL_PX = 1.4, 560


@dataclass(frozen=True)
class Result:
    """The parts of a result; ``copy`` is how many results of the same image precede it."""

    copy: int
    image: ImageFile
    model: Model
    answered: Answered
    card: Card
    settings: Settings

    @property
    def key(self) -> str:
        """A name for this result's widgets and for its feedback: the same image and model, wherever it stands."""
        model = self.answered.answer.model
        digest = self.model.digest[:12]
        return f"{self.image.digest[:16]}-{self.copy}-{model.name}-{model.version}-{digest}"


@st.fragment
def show(result: Result) -> None:
    """Draw a result."""
    answer = result.answered.answer
    kind = familiarity(answer.novelty, answer.best.probability, result.card.reference)
    with st.container(border=True, key=f"result-{result.key}"):
        left, right = st.columns([5, 6], gap="large")
        with left:
            _image(result, answer)
        with right:
            card = result.card
            st.html(markup.verdict(result.image.name, answer, kind, card))
            st.html(markup.bars(answer, kind))
            st.html(markup.time(result.answered.round_trip_s, answer.timings))
            _opinion(result, answer)


def _image(result: Result, answer: Answer) -> None:
    """Show the image with its heatmap, and the slider that fades the heatmap."""
    frame = st.container()
    try:
        image = _decoded(result.image.data)
    except (OSError, ValueError):
        frame.caption("This file was classified, but this page cannot show it.")
        return
    shown = image
    if answer.heatmap is not None:
        opacity = st.slider(
            "Heatmap",
            0,
            100,
            _OPACITY,
            5,
            format="%d %%",
            key=f"heat-{result.key}",
            help="The heatmap's opacity: at 0 % the image alone.",
        )
        square = overlay.view(image, result.card.crop)
        shown = overlay.blend(image, overlay.strength(answer.heatmap), square, opacity / 100)
        st.html(markup.heat_legend())
        if answer.part is not None:
            st.html(markup.part(answer.part, result.card.part_accuracy))
    else:
        frame.caption("This model has no heatmap: its network has no class maps.")
    description = result.image.name
    if answer.heatmap is not None:
        description += f", with the parts that support {answer.best.label} in bright colours"
    frame.image(shown, width=_width(shown), output_format="JPEG", alt=description)


def _width(image: overlay.Pixels) -> int | Literal["stretch"]:
    """Return the width at which an image (H, W, 3) is shown, in CSS pixels; ``stretch`` is that of its column."""
    height, width = image.shape[:2]
    return max(1, round(_TALL_PX * width / height)) if height > _TALL * width else "stretch"


def _opinion(result: Result, answer: Answer) -> None:
    """Ask whether the answer is right, once, and save the feedback."""
    given_labels = st.session_state.setdefault("feedback", {})
    with st.container(key=f"opinion-{result.key}"):
        if result.key in given_labels:
            st.html(markup.thanks(given_labels[result.key]))
            return
        st.html('<p class="vs-ask">Is it right?</p>')
        if trouble := st.session_state.pop(f"trouble-{result.key}", ""):
            st.error(trouble)
        if kept := result.settings.kept:
            st.checkbox("Keep this image with my answer", key=f"keep-{result.key}")
            st.html(markup.consent(kept.days))
        with st.container(horizontal=True, vertical_alignment="bottom"):
            key, right = f"right-{result.key}", answer.best.label
            st.button("Yes", icon=":material/thumb_up:", key=key, on_click=_record, args=(result, answer, right))
            label = st.selectbox(
                "No, it is really a",
                [_UNKNOWN, *sorted(set(result.card.labels) - {right})],
                index=None,
                placeholder="No, it is really a …",
                label_visibility="collapsed",
                key=f"label-{result.key}",
            )
            other, key = None if label == _UNKNOWN else label, f"wrong-{result.key}"
            st.button("Send", key=key, disabled=label is None, on_click=_record, args=(result, answer, other))


def _record(result: Result, answer: Answer, label: str | None) -> None:
    kept, settings = None, result.settings
    try:
        if settings.kept is not None and st.session_state.get(f"keep-{result.key}"):
            kept = settings.kept.keep(result.image)
        feedback.record(feedback.judge(answer, label, image=kept), settings.feedback)
    except NotKept as error:
        trouble = f"{error}. Try again, or untick the box: your answer is saved without the image then."
        st.session_state[f"trouble-{result.key}"] = f"Your image could not be kept: {trouble}"
    except OSError as error:
        why = f"{settings.feedback} cannot be written ({error.strerror})."
        st.session_state[f"trouble-{result.key}"] = f"Your feedback could not be saved: {why}"
    else:
        st.session_state["feedback"][result.key] = label or "something else"


@st.cache_data(max_entries=64, show_spinner=False)
def _decoded(data: bytes) -> overlay.Pixels:
    return overlay.decode(data)
