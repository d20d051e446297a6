"""Take the README's picture of the page from a running service: a desktop, and a phone in the dark (`make picture`).

The page is started here and looked at in the Chromium that is installed; the photograph is scikit-learn's sample image
flower.jpg (by vultilion, CC BY 2.0).
"""

import argparse
import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Error, sync_playwright

from launcher.self_test import dahlia

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
DESKTOP: dict[str, Any] = {"viewport": {"width": 1120, "height": 910}, "color_scheme": "light"}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 910}, "color_scheme": "dark", "is_mobile": True}
SHARPNESS = 1.5  # pixels of the picture per pixel of the page
WAIT_S = 60
_ROUND, _GAP, _COLOURS = 18, 36, 255


def main() -> int:
    """Take both screenshots and put them side by side; return a process exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the service answers")
    parser.add_argument("--status-url", default="http://127.0.0.1:8083", help="where it tells what it serves")
    parser.add_argument("--output", type=Path, default=Path("docs/page.png"))
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no Chromium to look with: apt-get install chromium fonts-dejavu-core", file=sys.stderr)
        return 3
    try:
        with page_server(options.url, options.status_url) as page, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
            shots = [shot(browser, page, look) for look in (DESKTOP, PHONE)]
            browser.close()
    except Error as error:
        print(f"no screenshot ({error.message.splitlines()[0]}); is the service up? `make serve`", file=sys.stderr)
        return 3
    side_by_side(shots).save(options.output, optimize=True)
    print(options.output)
    return 0


@contextlib.contextmanager
def page_server(url: str, status_url: str) -> Iterator[str]:
    """Serve the page on a free port for as long as the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "ui/page.py", f"--server.port={port}"]
    process = subprocess.Popen(
        command, env={**os.environ, "UI_SERVICE_URL": url, "UI_STATUS_URL": status_url}, stdout=subprocess.DEVNULL
    )
    try:
        page = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{page}/_stcore/health"):  # noqa: S310  # http
                break
            time.sleep(0.2)
        yield page
    finally:
        process.terminate()
        process.wait()


def shot(browser: Browser, page_url: str, look: dict[str, Any]) -> Image.Image:
    """Return the page with the photograph's answer; playwright's Error when it does not come."""
    with contextlib.closing(browser.new_context(device_scale_factor=SHARPNESS, **look)) as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_S * 1000)
        page.goto(page_url)
        page.set_input_files('[data-testid="stFileUploaderDropzoneInput"]', dahlia())
        page.get_by_role("slider", name="Where it shows").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        page.wait_for_timeout(1500)  # images fade in
        return Image.open(io.BytesIO(page.screenshot()))


def side_by_side(shots: list[Image.Image]) -> Image.Image:
    """Return the shots beside each other with round corners on nothing, in few enough colours for a small file."""
    height = max(image.height for image in shots)
    width = sum(image.width for image in shots) + _GAP * (len(shots) - 1)
    canvas, nothing = Image.new("RGB", (width, height)), Image.new("L", (width, height), 255)
    left = 0
    for image in shots:
        canvas.paste(image.convert("RGB"), (left, 0))
        box = (left, 0, left + image.width - 1, image.height - 1)
        ImageDraw.Draw(nothing).rounded_rectangle(box, _ROUND, fill=0)
        left += image.width + _GAP
    palette = canvas.quantize(_COLOURS, Image.Quantize.MEDIANCUT, kmeans=3)
    few = canvas.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    few.paste(_COLOURS, mask=nothing)
    few.info["transparency"] = _COLOURS
    return few


if __name__ == "__main__":
    sys.exit(main())
