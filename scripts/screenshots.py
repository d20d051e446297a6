"""Regenerate the documents' images from a running service (`make screenshots`).

    docs/answer.png   a figure: the image, its most probable labels, its heatmap
    docs/page.png     the web UI in the installed Chromium: on a desktop, and on a phone in dark mode

The image is scikit-learn's sample flower.jpg (by vultilion, CC BY 2.0).
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

from visionserve import missing_package

with missing_package.explained("python -m scripts.screenshots", "dev"):
    import matplotlib as mpl
    import numpy as np
    import requests
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image, ImageDraw
    from playwright.sync_api import Browser, Error, sync_playwright

    from launcher.self_test import dahlia

INK, BAR, PALE = "#22303c", "#d9480f", "#f4b183"
TIMEOUT_S = 10
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
DESKTOP: dict[str, Any] = {"viewport": {"width": 1120, "height": 910}, "color_scheme": "light"}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 910}, "color_scheme": "dark", "is_mobile": True}
PIXEL_RATIO = 1.5  # pixels of the screenshot per CSS pixel
PAGE_TIMEOUT_S = 60
_CORNER_RADIUS, _GAP, _COLOURS = 18, 36, 255


def main() -> int:
    """Write both images; return a process exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="inference address of the running service")
    parser.add_argument("--status-url", default="http://127.0.0.1:8083", help="its status server")
    parser.add_argument("--model", default="flowers")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder for answer.png and page.png")
    args = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        print("Chromium is not installed: apt-get install chromium fonts-dejavu-core", file=sys.stderr)
        return 3
    try:
        answer_figure(args.url, args.model).savefig(args.output / "answer.png", dpi=110)
        web_ui(args.url, args.status_url, chromium).save(args.output / "page.png", optimize=True)
    except (requests.RequestException, Error) as error:
        reason = str(error).splitlines()[0]
        print(f"no response from {args.url} ({reason}); start the server with `make serve`", file=sys.stderr)
        return 3
    print(f"{args.output / 'answer.png'} and {args.output / 'page.png'} are written")
    return 0


# ---- docs/answer.png


def answer_figure(url: str, model: str) -> Figure:
    """Query the service and return the figure; requests.RequestException when it fails."""
    image_bytes = dahlia().read_bytes()
    answer = post(f"{url}/predictions/{model}", image_bytes, {"x-top-k": "5"}).json()
    overlay = post(f"{url}/explanations/{model}", image_bytes, {"x-format": "png"}).content
    return draw(pixels(image_bytes), answer, pixels(overlay))


def pixels(image_bytes: bytes) -> np.ndarray:
    """Return an encoded image as (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(image_bytes)))


def post(url: str, image_bytes: bytes, headers: dict[str, str]) -> requests.Response:
    """Post an image; raise requests.HTTPError on any status but success."""
    response = requests.post(url, data=image_bytes, headers=headers, timeout=TIMEOUT_S)
    response.raise_for_status()
    return response


def draw(image: np.ndarray, answer: dict[str, Any], overlay: np.ndarray) -> Figure:
    """Return the figure: the image (H, W, 3), the bars of its predictions, the overlay (S, S, 3)."""
    mpl.rcParams |= {"font.family": "DejaVu Sans", "text.color": INK}
    figure = Figure(figsize=(11, 3.1), facecolor="white", layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1.7, 1])
    for axes, shown, title in ((left, image, "image"), (right, overlay, "heatmap")):
        axes.imshow(shown)
        axes.set_axis_off()
        axes.set_title(title, fontsize=11)
    bars(middle, answer)
    return figure


def bars(axes: Axes, answer: dict[str, Any]) -> None:
    """Draw the predictions as horizontal bars, the most probable on top."""
    predictions = answer["predictions"][::-1]
    values = [entry["probability"] for entry in predictions]
    colours = [PALE] * (len(predictions) - 1) + [BAR]
    container = axes.barh([entry["label"] for entry in predictions], values, color=colours, height=0.7)
    axes.bar_label(container, [f"{value:.1%}" for value in values], padding=4, fontsize=10, color=INK)
    axes.set_xlim(0, 1.18)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=11, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_title(f"calibrated probability   (novelty {answer['novelty']:.2f})", fontsize=11)


# ---- docs/page.png


def web_ui(url: str, status_url: str, chromium: str) -> Image.Image:
    """Return the web UI's screenshots side by side; playwright's Error when a prediction does not appear."""
    with page_server(url, status_url) as page_url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        screenshots = [screenshot(browser, page_url, device) for device in (DESKTOP, PHONE)]
        browser.close()
    return side_by_side(screenshots)


@contextlib.contextmanager
def page_server(url: str, status_url: str) -> Iterator[str]:
    """Serve the web UI on a free port for as long as the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "ui/page.py", f"--server.port={port}"]
    process = subprocess.Popen(
        command, env={**os.environ, "UI_SERVICE_URL": url, "UI_STATUS_URL": status_url}, stdout=subprocess.DEVNULL
    )
    try:
        page_url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PAGE_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{page_url}/_stcore/health"):  # noqa: S310  # http
                break
            time.sleep(0.2)
        yield page_url
    finally:
        process.terminate()
        process.wait()


def screenshot(browser: Browser, page_url: str, device: dict[str, Any]) -> Image.Image:
    """Return the page with the image's prediction; playwright's Error when it does not appear."""
    with contextlib.closing(browser.new_context(device_scale_factor=PIXEL_RATIO, **device)) as context:
        page = context.new_page()
        page.set_default_timeout(PAGE_TIMEOUT_S * 1000)
        page.goto(page_url)
        page.set_input_files('[data-testid="stFileUploaderDropzoneInput"]', dahlia())
        page.get_by_role("slider", name="Heatmap").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        page.wait_for_timeout(1500)  # images fade in
        return Image.open(io.BytesIO(page.screenshot()))


def side_by_side(screenshots: list[Image.Image]) -> Image.Image:
    """Return the screenshots beside each other, round corners on transparency, few enough colours for a small file."""
    height = max(image.height for image in screenshots)
    width = sum(image.width for image in screenshots) + _GAP * (len(screenshots) - 1)
    canvas, transparent = Image.new("RGB", (width, height)), Image.new("L", (width, height), 255)
    left = 0
    for image in screenshots:
        canvas.paste(image.convert("RGB"), (left, 0))
        box = (left, 0, left + image.width - 1, image.height - 1)
        ImageDraw.Draw(transparent).rounded_rectangle(box, _CORNER_RADIUS, fill=0)
        left += image.width + _GAP
    palette = canvas.quantize(_COLOURS, Image.Quantize.MEDIANCUT, kmeans=3)
    quantized = canvas.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    quantized.paste(_COLOURS, mask=transparent)
    quantized.info["transparency"] = _COLOURS
    return quantized


if __name__ == "__main__":
    sys.exit(main())
