import json
import re
import time

import pytest
import requests

from handlers import image_handler, metrics_buffer
from tests.e2e.conftest import BUNDLE, E2E, Service

pytestmark = E2E

HANDED_ON_S = 2 * metrics_buffer.PERIOD_S
Samples = dict[tuple[str, frozenset[str]], float]
SAMPLE = re.compile(r"(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)")
LABEL = re.compile(r'(\w+="[^"]*")')


def scrape(service: Service) -> Samples:
    """All samples by name and labels, without the label that names the host."""
    text = requests.get(service.url("metrics", "metrics_port"), timeout=30).text
    found = [match for match in map(SAMPLE.fullmatch, text.splitlines()) if match]
    return {(match["name"], _labels(match["labels"])): float(match["value"]) for match in found}


def _labels(text: str) -> frozenset[str]:
    return frozenset(label for label in LABEL.findall(text) if not label.lower().startswith("hostname"))


def growth(service: Service, body: bytes) -> Samples:
    """What one request adds to the metrics."""
    time.sleep(HANDED_ON_S)
    before = scrape(service)
    service.put(body)
    time.sleep(HANDED_ON_S)
    after = scrape(service)
    return {key: after[key] - before.get(key, 0.0) for key in after if after[key] != before.get(key, 0.0)}


def test_a_prediction_counts_once_in_every_metric(service: Service, photograph: bytes) -> None:
    answer = service.put(photograph).json()
    added = growth(service, photograph)
    model = 'model="flowers"'
    label = answer["predictions"][0]["label"]
    assert added["visionserve_requests_total", frozenset({model, 'status="200"', 'code="ok"'})] == 1
    assert added["visionserve_predictions_total", frozenset({model, f'label="{label}"'})] == 1
    for name in ("decode_seconds", "inference_seconds", "total_seconds", "batch_size", "novelty"):
        assert added[f"visionserve_{name}_count", frozenset({model})] == 1
    assert added["visionserve_batch_size_sum", frozenset({model})] == 1
    assert added.get(("visionserve_novelty_sum", frozenset({model})), 0) == pytest.approx(answer["novelty"], abs=1e-5)
    assert 0 < added["visionserve_total_seconds_sum", frozenset({model})] < 10


def test_every_label_has_a_counter_before_it_is_answered(service: Service) -> None:
    labels = json.loads((BUNDLE / "card.json").read_text(encoding="utf-8"))["labels"]
    assert sum(name == "visionserve_predictions_total" for name, _ in scrape(service)) == len(labels)


def test_a_histogram_has_every_bucket_in_rising_order(service: Service, photograph: bytes) -> None:
    service.put(photograph)
    time.sleep(HANDED_ON_S)
    found = scrape(service)
    for name, bounds in image_handler._BOUNDS.items():
        rows = [(labels, value) for (sample, labels), value in found.items() if sample == f"{name}_bucket"]
        by_bound = {next(label for label in labels if label.startswith("le=")): value for labels, value in rows}
        counts = [by_bound[f'le="{bound}"'] for bound in (*bounds, "+Inf")]
        assert counts == sorted(counts)
        assert counts[-1] == found[f"{name}_count", frozenset({'model="flowers"'})] > 0


def test_an_error_counts_under_its_status_and_code(service: Service) -> None:
    added = growth(service, b"no image")
    key = "visionserve_requests_total", frozenset({'model="flowers"', 'status="415"', 'code="unsupported_image"'})
    assert added[key] == 1
    assert not [name for name, _ in added if name.startswith("visionserve_predictions")]


def test_the_model_that_is_served_is_named_with_version_and_digest(service: Service, photograph: bytes) -> None:
    version = service.put(photograph).json()["model"]["version"]
    labels = next(labels for name, labels in scrape(service) if name == "visionserve_model_info")
    assert {'model="flowers"', f'version="{version}"'} < labels
    assert any(re.fullmatch('digest="[0-9a-f]{64}"', label) for label in labels)


def test_time_spent_in_the_queue_is_counted(service: Service) -> None:
    assert any(name == "ts_queue_latency_microseconds" for name, _ in scrape(service))
