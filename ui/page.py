"""The page: drop, paste or take photographs, see what the service says about each (`make ui`)."""

import os
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from ui import about, card, html, predictions, result
from ui.predictions import Answered, Declined, FileResult, Photograph
from ui.settings import Settings
from visionserve.client import Client, Model, ResponseError, Retries, ServiceUnreachable

HERE = Path(__file__).parent
TITLE = "What is in this photograph?"
MOST = 24  # photographs at once: as many as somebody still looks at
TIMEOUT_S = 30
LOOK_AGAIN_S = 5
_RETRIES = Retries(count=2)
_SAMPLE_CREDIT = "Sample photograph: vultilion, CC BY 2.0"


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title=TITLE, page_icon=str(HERE / "icon.svg"), layout="wide")
    st.html(HERE / "style.css")
    settings = Settings.read(os.environ)
    client = _client(settings)
    found = _find(client)
    model = found if isinstance(found, Model) else None
    _head(model)
    photographs, told, api = st.tabs(["Photographs", "The model", "API"])
    with photographs:
        chosen = _inputs()
        if isinstance(found, Model):
            _answers(client, settings, found, chosen)
        else:
            _down(client, settings, found)
    with told:
        if model is None:
            st.caption("The model's card shows here as soon as the service answers.")
        else:
            about.show_model(model, card.read(model))
    with api:
        about.show_api(settings, model.name if model else "flowers")
    st.html(f"<script>{(HERE / 'paste.js').read_text()}</script>", unsafe_allow_javascript=True)


def _find(client: Client) -> Model | ResponseError | ServiceUnreachable:
    """Return the model to ask, with its card, or why there is none."""
    try:
        served = client.models()
        if not served:
            return ResponseError(404, "not_found", "The service runs, but serves no model yet.")
        return client.model(_choose(served).name)
    except (ResponseError, ServiceUnreachable) as trouble:
        return trouble


@st.cache_resource(show_spinner=False)
def _client(settings: Settings) -> Client:
    return Client(settings.service_url, settings.api_key, TIMEOUT_S, _RETRIES, status_url=settings.status_url)


def _choose(served: Sequence[Model]) -> Model:
    """Let the person choose where several models are served."""
    if len(served) == 1:
        return served[0]
    chosen: Model = st.selectbox("Model", served, format_func=lambda model: model.name, key="model")
    return chosen


def _head(model: Model | None) -> None:
    line = "Drop one here: what it is, how sure the model is, and where it looks."
    if model is not None and (labels := card.read(model).labels):
        name = f"{model.name.capitalize()} {model.version}"
        line = f"{name} knows {len(labels)} kinds, says how sure it is, and shows where it looks."
    st.html(html.masthead((HERE / "icon.svg").read_bytes(), TITLE, line))


def _inputs() -> list[Photograph]:
    """Draw the ways to give photographs and return what was given."""
    files = st.file_uploader(
        "Drop photographs here, paste them, or choose files",
        type="image",
        accept_multiple_files=True,
        key="files",
    )
    found = [Photograph(file.name, file.getvalue()) for file in files]
    with st.container(horizontal=True, key="ways"):
        camera = st.toggle("Use the camera", key="camera")
        sample = st.toggle("Show a sample", key="sample", help=_SAMPLE_CREDIT)
    if camera and (taken := st.camera_input("Take a photograph", key="taken")):
        found.append(Photograph("camera", taken.getvalue()))
    if sample:
        found.append(Photograph(_SAMPLE_CREDIT, (HERE / "sample.jpg").read_bytes()))
    return found


def _answers(client: Client, settings: Settings, model: Model, chosen: Sequence[Photograph]) -> None:
    """Ask about what was not asked before, and draw every result in the order of the files."""
    if len(chosen) > MOST:
        st.info(
            f"These are the first {MOST} of {len(chosen)} photographs; `visionserve predict FOLDER` takes any number."
        )
    shown = chosen[:MOST]
    try:
        outcomes = _outcomes(client, model, shown)
    except ServiceUnreachable as error:
        _down(client, settings, error)
        return
    known = card.read(model)
    for place, (photograph, outcome) in enumerate(zip(shown, outcomes, strict=True)):
        if isinstance(outcome, Answered):
            result.show(result.Result(place, photograph, outcome, known, settings.feedback))
        else:
            _declined(place, photograph, outcome)


def _outcomes(client: Client, model: Model, shown: Sequence[Photograph]) -> list[FileResult]:
    """Return an outcome for each photograph, out of memory where the same was asked before."""
    before: dict[str, FileResult] = st.session_state.get("outcomes", {})
    keys = [f"{model.name} {model.version} {model.digest} {photograph.digest}" for photograph in shown]
    new = {key: photograph for key, photograph in zip(keys, shown, strict=True) if key not in before}
    if new:
        with st.spinner("Asking the model …"):
            before = before | dict(zip(new, predictions.ask_all(client, model.name, list(new.values())), strict=True))
    st.session_state["outcomes"] = {key: before[key] for key in keys if _keeps(before[key])}
    return [before[key] for key in keys]


def _keeps(outcome: FileResult) -> bool:
    return isinstance(outcome, Answered) or outcome.final


def _declined(place: int, photograph: Photograph, outcome: Declined) -> None:
    with st.container(border=True, key=f"declined-{place}"):
        st.html(html.declined(photograph.name, outcome.sentence))
        if not outcome.final:
            st.button("Ask again", icon=":material/refresh:", key=f"again-{place}")


def _down(client: Client, settings: Settings, trouble: ResponseError | ServiceUnreachable) -> None:
    """Say that nothing can answer and what to do, and look again by itself."""
    st.session_state["waiting"] = False
    _wait(
        client,
        html.down(settings.service_url, predictions.reason(trouble) if isinstance(trouble, ResponseError) else ""),
    )


@st.fragment(run_every=LOOK_AGAIN_S)
def _wait(client: Client, told: str) -> None:
    # Not in the run that has just found the trouble: a service that is ready and refuses would make it run for ever.
    if st.session_state["waiting"] and client.ready():
        st.rerun()
    st.session_state["waiting"] = True
    with st.container(border=True, key="down"):
        st.html(told)
        if st.button("Try again", icon=":material/refresh:", key="retry"):
            st.rerun()


main()
