"""The tabs about the model and about the API."""

import streamlit as st

from ui import markup
from ui.card import Card
from ui.settings import Settings
from visionserve.client import Model


def show_model(model: Model, card: Card) -> None:
    """Draw the model's card: accuracy, calibration, labels, origin."""
    if card.images:
        st.html(f'<p class="vs-lead">Measured on {card.images} images that the model was not trained on.</p>')
    st.html(markup.figures(card))
    left, right = st.columns([5, 6], gap="large")
    with left:
        st.subheader("Calibration", anchor=False)
        if card.reliability:
            st.html(markup.calibration(card.reliability))
        else:
            st.caption("The card has no calibration plot; the calibration error above summarises it.")
    with right:
        st.subheader("Model", anchor=False)
        st.html(markup.facts(_facts(model, card)))
    _labels(card)


@st.fragment
def _labels(card: Card) -> None:
    st.subheader(f"{len(card.labels)} labels", anchor=False)
    query = (
        st.text_input("Search the labels", placeholder=card.labels[0] if card.labels else "", key="labels-search")
        .strip()
        .lower()
    )
    matches = [label for label in sorted(card.labels) if query in label.lower()]
    if matches:
        st.html(markup.labels(matches))
    else:
        st.caption(f"No label contains “{query}”.")


def _facts(model: Model, card: Card) -> dict[str, str]:
    workers = f"{model.status}, {model.workers.ready} of {model.workers.total} workers"
    state = {"Name": f"{model.name} {model.version}", "State": workers}
    return state | dict(card.facts) | {"Digest": model.digest or "not stated"}


def show_api(settings: Settings, model: str) -> None:
    """Draw how a program calls the service as the page does."""
    st.html('<p class="vs-lead">Everything on this page comes from a call that any program can make.</p>')
    key = " -H 'x-api-key: …'" if settings.api_key else ""
    st.code(
        f"curl -T photo.jpg{key} {settings.service_url}/predictions/{model}\n"
        f"curl -T photo.jpg{key} {settings.service_url}/explanations/{model}   # with a heatmap",
        language="bash",
        wrap_lines=True,
    )
    st.link_button("Try the API (OpenAPI)", settings.docs_url, icon=":material/description:")
