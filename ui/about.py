"""What the page tells of the model, and of the API behind it."""

import streamlit as st

from ui import html
from ui.card import Card
from ui.settings import Settings
from visionserve.client import Model


def show_model(model: Model, card: Card) -> None:
    """Draw the model's card: how good it is, how honest, what it knows, where it comes from."""
    if card.photographs:
        st.html(f'<p class="vs-lead">Measured on {card.photographs} photographs that the model never saw.</p>')
    st.html(html.figures(card))
    left, right = st.columns([5, 6], gap="large")
    with left:
        st.subheader("Does it know how sure it is?", anchor=False)
        if card.reliability:
            st.html(html.calibration(card.reliability))
        else:
            st.caption("The card has no calibration plot; the calibration error above sums it up.")
    with right:
        st.subheader("What it is", anchor=False)
        st.html(html.facts(_facts(model, card)))
    _labels(card)


@st.fragment
def _labels(card: Card) -> None:
    st.subheader(f"The {len(card.labels)} labels it knows", anchor=False)
    wanted = st.text_input("Search the labels", placeholder="rose", key="labels-search").strip().lower()
    found = [label for label in sorted(card.labels) if wanted in label.lower()]
    if found:
        st.html(html.labels(found))
    else:
        st.caption(f"It knows no label with “{wanted}” in it.")


def _facts(model: Model, card: Card) -> dict[str, str]:
    workers = f"{model.status}, {model.workers.ready} of {model.workers.total} workers"
    own = {"Name": f"{model.name} {model.version}", "State": workers}
    return own | dict(card.facts) | {"Digest": model.digest or "not stated"}


def show_api(settings: Settings, model: str) -> None:
    """Draw how a program asks what the page asks."""
    st.html(
        '<p class="vs-lead">All that this page says of a photograph comes from a call that any program can make.</p>'
    )
    key = " -H 'x-api-key: …'" if settings.api_key else ""
    st.code(
        f"curl -T photo.jpg{key} {settings.service_url}/predictions/{model}\n"
        f"curl -T photo.jpg{key} {settings.service_url}/explanations/{model}   # with a heatmap",
        language="bash",
        wrap_lines=True,
    )
    st.link_button("The API's description (OpenAPI)", settings.docs_url, icon=":material/description:")
