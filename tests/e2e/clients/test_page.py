"""The page, as a person uses it: a real browser, a real page, a real service."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from launcher.self_test import dahlia
from tests.e2e.clients import browser as browsing
from tests.e2e.clients.browser import WAIT_MS, Site, give
from tests.e2e.conftest import BUNDLE, E2E, Service, encode, free_ports
from ui.interpretation import UNUSUAL

pytestmark = [*E2E, pytest.mark.browser]
Open = Callable[..., Page]
DAHLIA: FilePayload = {"name": "flower.jpg", "mimeType": "image/jpeg", "buffer": dahlia().read_bytes()}
BROKEN: FilePayload = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": DAHLIA["buffer"][:4000]}
TEXT: FilePayload = {"name": "text.jpg", "mimeType": "image/jpeg", "buffer": b"hello"}
METRICS = json.loads((BUNDLE / "card.json").read_text(encoding="utf-8"))["metrics"]
TITLE = "What is in this image?"
# Text, its colour, and the first colour behind it that is not see-through: WCAG's contrast of the two.
CONTRASTS = (Path(__file__).parent / "contrast.js").read_text()
OVERFLOWING = """() => [...document.querySelectorAll('*')].filter(e => e.checkVisibility()
  && e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('pre, [role=tablist]')).map(e => e.outerHTML)"""
NAMELESS = """() => [...document.querySelectorAll('input, select, textarea, button, a, [role=slider], [role=combobox]')]
  .filter(e => e.checkVisibility() && !(e.labels?.length || e.getAttribute('aria-label') || e.title
    || e.getAttribute('aria-labelledby') || e.textContent.trim())).map(e => e.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    environment = {"UI_SERVICE_URL": service.url("").rstrip("/"), "UI_STATUS_URL": service.url("", "status_port")}
    with browsing.page_server(free_ports(1)[0], tmp_path_factory.mktemp("page"), environment) as served:
        yield served


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Open]:
    """Open the page, by default on a desktop; Playwright's options make it a phone, or dark."""
    opened = []

    def open_page(url: str = site.url, **options: Any) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1180, "height": 1400}} | options))
        opened.append(context)
        page = context.new_page()
        page.goto(url)
        page.get_by_role("heading", name=TITLE).wait_for(timeout=WAIT_MS)
        return page

    yield open_page
    for context in opened:
        context.close()


@pytest.fixture(scope="module")
def noise() -> FilePayload:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    return {"name": "noise.png", "mimeType": "image/png", "buffer": encode(Image.fromarray(pixels), "PNG")}


def shown(page: Page) -> np.ndarray:
    """Return the pixels of the first result's image; one that is being replaced is asked for again."""
    for _ in range(100):
        source = page.locator('[class*="st-key-result-"] img').first.evaluate(
            """async (image) => { try {
               await image.decode();
               const answer = await fetch(image.src);
               const bytes = new Uint8Array(await answer.arrayBuffer());
               return answer.ok ? btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')) : null
               } catch { return null } }"""
        )
        if source is not None:
            return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB")).astype(int)
        page.wait_for_timeout(100)
    raise AssertionError("the image does not load")


def feedback(site: Site) -> list[dict[str, Any]]:
    return [json.loads(line) for line in site.feedback.read_text().splitlines()] if site.feedback.exists() else []


def first_result(page: Page) -> Locator:
    return page.locator('[class*="st-key-result-"]').first


def test_the_bars_are_the_services_own_labels_and_probabilities(visit: Open, service: Service) -> None:
    page = visit()
    give(page, DAHLIA)
    answer = service.put(DAHLIA["buffer"]).json()
    rows = page.locator(".vs-bars li")
    bars = rows.evaluate_all("rows => rows.map(r => [r.dataset.label, Number(r.dataset.probability)])")
    assert [tuple(row) for row in bars] == [(p["label"], p["probability"]) for p in answer["predictions"]]
    assert rows.locator(".vs-value").first.inner_text() == f"{answer['predictions'][0]['probability'] * 100:.1f} %"
    widths = rows.locator(".vs-track").evaluate_all("bars => bars.map(b => b.getBoundingClientRect())")
    assert len({(box["left"], box["width"]) for box in widths}) == 1, "the bars are not aligned"
    expect(page.locator(".vs-note")).to_have_count(int(answer["novelty"] >= UNUSUAL))


def test_the_slider_fades_the_heatmap_by_keyboard(visit: Open) -> None:
    page = visit()
    give(page, DAHLIA)
    before = shown(page)
    slider = page.get_by_role("slider", name="Heatmap")
    slider.focus()
    page.keyboard.press("Home")
    expect(slider).to_have_value("0")
    image = np.asarray(Image.open(io.BytesIO(DAHLIA["buffer"]))).astype(int)
    for _ in range(100):
        plain = shown(page)
        if np.abs(plain - before).mean() > 5:
            break
        page.wait_for_timeout(100)
    assert np.abs(plain - image).mean() < 3, "without a heatmap the image is as it was"
    assert np.abs(before - image).mean() > 10


def test_a_bad_file_says_why_and_leaves_the_others_alone(visit: Open) -> None:
    page = visit()
    give(page, BROKEN, DAHLIA, TEXT)
    sentences = page.get_by_role("alert").filter(visible=True).all_inner_texts()
    assert "does not decode" in sentences[0]
    assert "image" in sentences[1].lower()
    expect(page.locator(".vs-bars")).to_have_count(1)
    expect(first_result(page).get_by_role("heading")).to_contain_text("pink-yellow dahlia")


def test_a_file_too_large_to_be_uploaded_says_so_without_a_pointer_over_it(visit: Open) -> None:
    page = visit(viewport={"width": 400, "height": 860}, is_mobile=True, has_touch=True)
    page.locator(browsing.INPUT).wait_for(state="attached", timeout=WAIT_MS)
    page.set_input_files(browsing.INPUT, {**DAHLIA, "buffer": DAHLIA["buffer"] + bytes(11 << 20)})
    sentence = page.get_by_text("File must be 10.0MB or smaller")
    sentence.wait_for(timeout=WAIT_MS)
    box = sentence.bounding_box()
    assert box is not None and box["width"] > 100 and box["height"] > 10  # as a person sees it, not 1 x 1 pixel


def test_a_tall_image_leaves_its_slider_on_the_screen(visit: Open) -> None:
    page = visit(viewport={"width": 1180, "height": 900})
    tall = encode(Image.new("RGB", (200, 900), (200, 40, 90)), "PNG")
    give(page, {"name": "tall.png", "mimeType": "image/png", "buffer": tall})
    page.get_by_role("slider", name="Heatmap").wait_for(timeout=WAIT_MS)
    height, shape = (
        first_result(page)
        .locator("img")
        .evaluate(
            "async (e) => { await e.decode(); const box = e.getBoundingClientRect(); "
            "return [box.height, (box.width / box.height) / (e.naturalWidth / e.naturalHeight)] }"
        )
    )
    assert height == pytest.approx(560, abs=12)
    assert shape == pytest.approx(1, abs=0.02)  # not squeezed


def test_what_is_no_flower_is_said_not_to_look_like_one(visit: Open, noise: FilePayload) -> None:
    page = visit()
    give(page, noise)
    expect(page.get_by_role("note")).to_contain_text("does not look like any of the 102 flowers")


def test_a_pasted_image_is_classified(visit: Open) -> None:
    page = visit()
    page.locator(browsing.INPUT).wait_for(state="attached", timeout=WAIT_MS)
    page.evaluate(
        """(coded) => { const bytes = Uint8Array.from(atob(coded), (c) => c.charCodeAt(0));
           const clipboard = new DataTransfer();
           clipboard.items.add(new File([bytes], 'image.png', { type: 'image/jpeg' }));
           document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: clipboard, bubbles: true })); }""",
        base64.b64encode(DAHLIA["buffer"]).decode(),
    )
    expect(first_result(page).get_by_role("heading")).to_contain_text("pink-yellow dahlia", timeout=WAIT_MS)


def test_the_sample_needs_no_file_and_names_its_maker(visit: Open) -> None:
    page = visit()
    page.get_by_text("Show a sample").click()
    expect(first_result(page)).to_contain_text("vultilion, CC BY 2.0", timeout=WAIT_MS)
    expect(first_result(page).get_by_role("heading")).to_contain_text("pink-yellow dahlia")


def test_a_thumb_and_a_better_label_are_saved_without_the_image(visit: Open, site: Site) -> None:
    before = len(feedback(site))
    page = visit()
    give(page, DAHLIA)
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_text("Saved as pink-yellow dahlia")).to_be_visible(timeout=WAIT_MS)
    page = visit()
    give(page, DAHLIA)
    page.get_by_role("combobox", name="it is really a").fill("water li")
    page.get_by_role("option", name="water lily").click()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Saved as water lily")).to_be_visible(timeout=WAIT_MS)
    right, wrong = feedback(site)[before:]
    assert (right["verdict"], right["label"]) == ("right", "pink-yellow dahlia")
    assert (wrong["verdict"], wrong["label"], wrong["predicted"]) == ("wrong", "water lily", "pink-yellow dahlia")
    assert wrong["request_id"]
    assert site.feedback.stat().st_size < 1000


def test_the_time_is_divided_into_the_services_stages(visit: Open) -> None:
    page = visit()
    give(page, DAHLIA)
    rows = page.locator(".vs-time li")
    expect(rows).to_have_count(4, timeout=WAIT_MS)  # it comes a moment after the bars
    named = rows.evaluate_all("rows => rows.map(r => r.dataset.stage)")
    assert named == ["network and queue", "decode", "model", "heatmap and the rest"]


def test_the_models_card_shows_accuracy_calibration_and_labels_to_search(visit: Open) -> None:
    page = visit()
    page.get_by_role("tab", name="The model").click()
    low, high = (f"{100 * share:.1f}" for share in METRICS["top1_interval"])
    expect(page.get_by_text(f"95 % interval {low} to {high} %")).to_be_visible()
    expect(page.get_by_role("img", name="Calibration")).to_be_visible()
    expect(page.locator(".vs-labels li")).to_have_count(102)
    page.get_by_label("Search the labels").fill("lily")
    page.keyboard.press("Enter")
    expect(page.locator(".vs-labels li").first).to_have_text("blackberry lily", timeout=WAIT_MS)
    assert all("lily" in text for text in page.locator(".vs-labels li").all_inner_texts())


def test_a_page_without_its_service_says_so_and_goes_on_by_itself(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    port, inference, status = free_ports(3)
    nowhere = {"UI_SERVICE_URL": f"http://127.0.0.1:{inference}", "UI_STATUS_URL": f"http://127.0.0.1:{status}"}
    with browsing.page_server(port, tmp_path, nowhere) as site, browser.new_context() as context:
        page = context.new_page()
        page.goto(site.url)
        page.get_by_text("The service is not available yet").wait_for(timeout=WAIT_MS)
        expect(page.get_by_text("make serve")).to_be_visible()
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        page.set_input_files(browsing.INPUT, DAHLIA)
        with browsing.relay(inference, service.ports["port"]), browsing.relay(status, service.ports["status_port"]):
            expect(first_result(page).get_by_role("heading")).to_contain_text("pink-yellow dahlia", timeout=WAIT_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit: Open, noise: FilePayload, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    give(page, DAHLIA, noise, BROKEN)
    faint = page.evaluate(CONTRASTS)
    page.get_by_role("tab", name="The model").click()
    assert faint + page.evaluate(CONTRASTS) == []
    ground = page.locator(".stApp").evaluate("e => getComputedStyle(e).backgroundColor")
    assert (sum(int(part) for part in ground.strip("rgb()").split(",")) < 384) == (scheme == "dark")


def test_a_phone_shows_everything_without_scrolling_sideways(visit: Open, noise: FilePayload) -> None:
    page = visit(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    give(page, DAHLIA, noise, BROKEN)
    for tab in ("Images", "The model", "API"):
        page.get_by_role("tab", name=tab).click()
        wide = page.evaluate(OVERFLOWING)
        assert wide == []


def test_every_image_and_every_control_has_a_name(visit: Open) -> None:
    page = visit()
    give(page, DAHLIA)
    assert page.locator("img:not([alt])").count() == 0
    assert "pink-yellow dahlia" in (first_result(page).locator("img").get_attribute("alt") or "")
    assert page.evaluate(NAMELESS) == []
    assert page.title() == TITLE
    assert page.locator("html").get_attribute("lang")


def test_the_keyboard_reaches_every_control_in_reading_order(visit: Open) -> None:
    page = visit()
    give(page, DAHLIA)
    # The last control to be drawn: before it the page is not at rest, and what is drawn again loses the focus.
    page.get_by_label("No, it is really a").wait_for(timeout=WAIT_MS)
    page.locator("[data-test-script-state=notRunning]").wait_for(timeout=WAIT_MS)
    page.get_by_role("tab", name="Images").focus()
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => { const e = document.activeElement; return e.getAttribute('aria-label') "
                "|| e.labels?.[0]?.textContent || e.textContent || e.tagName }"
            )
        )
    text = "\n".join(reached)
    positions = [text.index(name) for name in ("Use the camera", "Show a sample", "Heatmap", "Yes", "it is really a")]
    assert positions == sorted(positions)


def test_nothing_is_fetched_from_elsewhere_and_nothing_of_streamlit_is_shown(browser: Browser, site: Site) -> None:
    asked = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(site.url)
        page.locator(browsing.INPUT).wait_for(state="attached", timeout=WAIT_MS)
        give(page, DAHLIA)
        assert [url for url in asked if not url.startswith((site.url, "data:", "blob:"))] == []
        for clutter in ("stMainMenu", "stAppDeployButton", "stDecoration"):
            expect(page.get_by_test_id(clutter)).not_to_be_visible()


def test_the_page_works_under_a_path_of_a_gateway(browser: Browser, service: Service, tmp_path: Path) -> None:
    environment = {"UI_SERVICE_URL": service.url("").rstrip("/"), "UI_STATUS_URL": service.url("", "status_port")}
    option = "--server.baseUrlPath=ui"
    with (
        browsing.page_server(free_ports(1)[0], tmp_path, environment, option, path="/ui") as site,
        browser.new_context() as context,
    ):
        page = context.new_page()
        page.goto(site.url + "/")
        give(page, DAHLIA)
        expect(first_result(page).get_by_role("heading")).to_contain_text("pink-yellow dahlia")
