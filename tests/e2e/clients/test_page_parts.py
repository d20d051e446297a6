"""The part under the heat on the page: the shipped network with a layer of parts, a real service, a real browser."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import FilePayload, expect

from launcher.self_test import dahlia
from tests.e2e.clients import browser as browsing
from tests.e2e.clients.browser import WAIT_MS, give
from tests.e2e.conftest import BUNDLE, E2E, Service, free_ports, start, stop
from training.export import package, parts
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard, Parts

pytestmark = [*E2E, pytest.mark.browser]
DAHLIA: FilePayload = {"name": "flower.jpg", "mimeType": "image/jpeg", "buffer": dahlia().read_bytes()}
NAMES = ("petals", "heart & stamens", "leaf")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("store")
    bundle = folder / "flowers"
    shutil.copytree(BUNDLE, bundle)
    card = replace(ModelCard.load(bundle / CARD), parts=Parts(NAMES, 0.612, 132))
    # Whatever the features are, the second part is the most probable one: by 1 nat before both others.
    parts.store(bundle, card, parts.Layer(np.zeros((3, 512), np.float32), np.array([0, 1, 0], np.float32)))
    card.save(bundle / CARD)
    package.build(bundle, folder / "flowers.mar", "cpu")
    running = start(folder, folder / "service.log")
    yield running
    assert stop(running) == 0


@pytest.mark.parametrize("width", [400, 1180])
def test_a_sentence_names_the_part_its_probability_and_how_often_such_a_name_is_right(
    service: Service, tmp_path: Path, width: int
) -> None:
    named = service.put(DAHLIA["buffer"], "explanations/flowers").json()["part"]
    assert named == {"name": NAMES[1], "probability": pytest.approx(np.e / (np.e + 2), abs=1e-3)}
    environment = {"UI_SERVICE_URL": service.url("").rstrip("/"), "UI_STATUS_URL": service.url("", "status_port")}
    with (
        browsing.chromium() as browser,
        browsing.page_server(free_ports(1)[0], tmp_path, environment) as site,
        browser.new_context(viewport={"width": width, "height": 1200}) as context,
    ):
        page = context.new_page()
        page.goto(site.url)
        page.locator(browsing.INPUT).wait_for(state="attached", timeout=WAIT_MS)
        give(page, DAHLIA)
        sentence = page.locator(".vs-part")
        expect(sentence).to_be_visible(timeout=WAIT_MS)
        expect(sentence).to_have_text(
            "The heatmap is strongest on: heart & stamens (57.6 %). Such a name is right for 61.2 % of the test images."
        )
        box = sentence.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
