"""The page at /docs, as a person uses it: a real browser, at a gateway with keys and at the status port."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from launcher.self_test import dahlia
from tests.e2e.clients.browser import WAIT_MS, chromium
from tests.e2e.conftest import E2E, Service
from tests.e2e.gateway.gateways import NEEDS_NGINX, running

pytestmark = [*E2E, pytest.mark.browser]
KEY = "a-key-of-sixteen-letters-or-more"
DESCRIPTION = "Image classification with calibrated probabilities"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@dataclass
class Visit:
    """A page, where its requests went, and what its console has besides plain messages."""

    page: Page
    addresses: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    visit = Visit(page)
    page.on("request", lambda request: visit.addresses.add(urlsplit(request.url).netloc))
    page.on("console", lambda message: visit.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    yield visit
    page.close()


def execute(page: Page, operation: str) -> str:
    """Open an operation, send it as it is filled in, and return the status of its response."""
    block = page.locator(f"#operations-{operation}")
    block.get_by_role("button", name="Execute").click()
    status = block.locator(".live-responses-table .response .response-col_status")
    expect(status).to_be_visible(timeout=WAIT_MS)
    return status.inner_text().split()[0]


def fill_in(page: Page, operation: str, model: str) -> None:
    block = page.locator(f"#operations-{operation}")
    block.locator(".opblock-summary-control").click()
    block.locator("tr[data-param-name=model] input").fill(model)


@NEEDS_NGINX
def test_an_image_is_classified_on_the_page(service: Service, visit: Visit, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice:{KEY}\n")
    status, inference = (f"127.0.0.1:{service.ports[name]}" for name in ("status_port", "port"))
    page = visit.page
    with running(tmp_path, inference, status=status, api_keys_file=keys) as gateway:
        page.goto(gateway.url("docs"))
        page.get_by_text(DESCRIPTION).wait_for(timeout=WAIT_MS)
        fill_in(page, "inference-predict", "flowers")
        page.locator("#operations-inference-predict .body-param-content-type select").select_option("image/jpeg")
        page.locator("#operations-inference-predict input[type=file]").set_input_files(dahlia())
        assert visit.complaints == []
        # Reading needs no key; using the service does.
        assert execute(page, "inference-predict") == "401"
        visit.complaints.clear()
        page.locator(".auth-wrapper .authorize").click()
        page.locator(".modal-ux input").first.fill(KEY)
        page.locator(".modal-ux button.authorize").first.click()
        page.locator(".modal-ux button.btn-done").first.click()
        page.locator("#operations-inference-predict .btn-clear").click()
        assert execute(page, "inference-predict") == "200"
        expect(page.locator("#operations-inference-predict .live-responses-table")).to_contain_text("dahlia")
        assert (visit.addresses, visit.complaints) == ({f"127.0.0.1:{gateway.port}"}, [])
        slash = gateway.get("docs/")
        assert (slash.url, slash.status_code) == (gateway.url("docs"), 200)
        assert "script-src 'self'" in slash.headers["content-security-policy"]


def test_the_status_port_has_the_page_too(service: Service, visit: Visit) -> None:
    visit.page.goto(service.url("docs", "status_port"))
    visit.page.get_by_text(DESCRIPTION).wait_for(timeout=WAIT_MS)
    fill_in(visit.page, "models-describeModel", "flowers")
    assert execute(visit.page, "models-describeModel") == "200"
    assert (visit.addresses, visit.complaints) == ({f"127.0.0.1:{service.ports['status_port']}"}, [])
