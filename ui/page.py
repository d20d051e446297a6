"""The page: drop, paste or take images, see the service's answer about each (`make ui`)."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from ui import about, card, markup, predictions, result
from ui.kept_images import KeptImages, NotKept
from ui.predictions import Answered, Declined, ImageFile, Result
from ui.settings import Settings
from visionserve.client import Client, Model, ResponseError, Retries, ServiceUnreachable

HERE = Path(__file__).parent
TITLE = "What is in this image?"
MOST = 24  # images at once: as many as a person still looks at
TIMEOUT_S = 30
CHECK_AGAIN_S = 5
EXPIRE_EVERY_S = 3600
_log = logging.getLogger(__name__)
_RETRIES = Retries(count=2)
_SHIPPED = "flowers"  # the shipped model, for which the page has a sample
_SAMPLE_CREDIT = "Sample image: vultilion, CC BY 2.0"


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title=TITLE, page_icon=str(HERE / "icon.svg"), layout="wide")
    st.html(HERE / "style.css")
    settings = Settings.read(os.environ)
    if settings.kept is not None:
        _expire(settings.kept)
    client = _client(settings)
    head = st.container()  # above the choice of a model, which it depends on
    selected = _select(client)
    model = selected if isinstance(selected, Model) else None
    with head:
        _head(model)
    images_tab, model_tab, api_tab = st.tabs(["Images", "The model", "API"])
    with images_tab:
        images = _inputs(_sample(model, settings))
        if isinstance(selected, Model):
            _answers(client, settings, selected, images)
        else:
            _down(client, settings, selected)
    with model_tab:
        if model is None:
            st.caption("The model's card appears here as soon as the service answers.")
        else:
            about.show_model(model, card.read(model))
    with api_tab:
        about.show_api(settings, model.name if model else "flowers")
    st.html(f"<script>{(HERE / 'paste.js').read_text()}</script>", unsafe_allow_javascript=True)


def _select(client: Client) -> Model | ResponseError | ServiceUnreachable:
    """Return the model to use, with its card, or why there is none."""
    try:
        served = client.models()
        if not served:
            return ResponseError(404, "not_found", "The service runs, but serves no model yet.")
        chosen = _choose(served)
        return client.model(chosen.name, _version(chosen))
    except (ResponseError, ServiceUnreachable) as trouble:
        return trouble


@st.cache_resource(show_spinner=False)
def _client(settings: Settings) -> Client:
    return Client(settings.service_url, settings.api_key, TIMEOUT_S, _RETRIES, status_url=settings.status_url)


@st.cache_data(ttl=EXPIRE_EVERY_S, show_spinner=False)
def _expire(kept: KeptImages) -> None:
    """Delete the images that have been kept long enough, at most once an hour."""
    try:
        expired = kept.expire()
    except NotKept as error:
        _log.warning("%s", error)
    else:
        if expired:
            _log.warning(
                "images of %d days, older than %d days, were deleted from %s", expired, kept.days, kept.address
            )


def _choose(served: Sequence[Model]) -> Model:
    """Let the person choose if several models are served."""
    if len(served) == 1:
        return served[0]
    model: Model = st.selectbox("Model", served, format_func=_title, key="model")
    return model


def _version(model: Model) -> str | None:
    """Return the version to ask for: none of the one that answers by default, as every other client does."""
    return None if model.default else model.version


def _title(model: Model) -> str:
    return model.name if model.default else f"{model.name} {model.version}"


def _head(model: Model | None) -> None:
    line = "Drop one here: its label, how sure the model is, and where it looks."
    if model is not None and (labels := card.read(model).labels):
        name = f"{model.name.capitalize()} {model.version}"
        line = f"{name} knows {len(labels)} labels, says how sure it is, and shows where it looks."
    st.html(markup.masthead((HERE / "icon.svg").read_bytes(), TITLE, line))


def _sample(model: Model | None, settings: Settings) -> ImageFile | None:
    """Return an image that the model was made for: one of its own test images, the flower of the shipped model."""
    if model is None:
        return None
    if settings.samples is not None:
        own = settings.samples / f"{Path(model.name).name}.jpg"
        with contextlib.suppress(OSError):
            return ImageFile(f"Sample image: one of the test images of {model.name}", own.read_bytes())
    return ImageFile(_SAMPLE_CREDIT, (HERE / "sample.jpg").read_bytes()) if model.name == _SHIPPED else None


def _inputs(sample: ImageFile | None) -> list[ImageFile]:
    """Draw the inputs for images and return the images; without a sample, the switch for it is left out."""
    files = st.file_uploader(
        "Drop images here, paste them, or choose files",
        # Any file: the service judges it and gives a sentence, where a filter here would show a red mark.
        type=None,
        accept_multiple_files=True,
        key="files",
    )
    images = [ImageFile(file.name, file.getvalue()) for file in files]
    with st.container(horizontal=True, key="ways"):
        camera = st.toggle("Use the camera", key="camera")
        shown = sample is not None and st.toggle("Show a sample", key="sample", help=sample.name)
    if camera and (shot := st.camera_input("Take a photo", key="shot")):
        images.append(ImageFile("camera", shot.getvalue()))
    if sample is not None and shown:
        images.append(sample)
    return images


def _answers(client: Client, settings: Settings, model: Model, images: Sequence[ImageFile]) -> None:
    """Classify the images that are new, and draw every result in the order of the files."""
    if len(images) > MOST:
        st.info(f"These are the first {MOST} of {len(images)} images; `visionserve predict FOLDER` takes any number.")
    shown = images[:MOST]
    try:
        results = _results(client, model, shown)
    except ServiceUnreachable as error:
        _down(client, settings, error)
        return
    model_card = card.read(model)
    copies: Counter[str] = Counter()
    for image, answer in zip(shown, results, strict=True):
        copy = copies[image.digest]
        copies[image.digest] += 1
        if isinstance(answer, Answered):
            result.show(result.Result(copy, image, model, answer, model_card, settings))
        else:
            _declined(copy, image, answer)


def _results(client: Client, model: Model, shown: Sequence[ImageFile]) -> list[Result]:
    """Return a result for each image, from the session's memory if the same was classified before."""
    before: dict[str, Result] = st.session_state.get("results", {})
    keys = [f"{model.name} {model.version} {model.digest} {image.digest}" for image in shown]
    new = {key: image for key, image in zip(keys, shown, strict=True) if key not in before}
    if new:
        with st.spinner("Classifying …"):
            results = predictions.classify_all(client, model.name, list(new.values()), _version(model))
        before = before | dict(zip(new, results, strict=True))
    st.session_state["results"] = {key: before[key] for key in keys if _keeps(before[key])}
    return [before[key] for key in keys]


def _keeps(result: Result) -> bool:
    return isinstance(result, Answered) or result.final


def _declined(copy: int, image: ImageFile, reason: Declined) -> None:
    with st.container(border=True, key=f"declined-{image.digest[:16]}-{copy}"):
        st.html(markup.declined(image.name, reason.sentence))
        if not reason.final:
            st.button("Try again", icon=":material/refresh:", key=f"again-{image.digest[:16]}-{copy}")


def _down(client: Client, settings: Settings, trouble: ResponseError | ServiceUnreachable) -> None:
    """Show that the service cannot answer and what to do, and check again by itself."""
    st.session_state["waiting"] = False
    _wait(
        client,
        markup.down(settings.service_url, predictions.reason(trouble) if isinstance(trouble, ResponseError) else ""),
    )


@st.fragment(run_every=CHECK_AGAIN_S)
def _wait(client: Client, message: str) -> None:
    # Not in the run that has just met the error: a service that is ready but rejects the request would loop for ever.
    if st.session_state["waiting"] and client.ready():
        st.rerun()
    st.session_state["waiting"] = True
    with st.container(border=True, key="down"):
        st.html(message)
        if st.button("Try again", icon=":material/refresh:", key="retry"):
            st.rerun()


main()
