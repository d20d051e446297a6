"""What SECURITY.md promises is what the files say."""

import re
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway.options import OPTIONS
from gateway.routes import INFERENCE, STATUS
from launcher.settings import LAUNCHER_OPTIONS, read_properties
from tests.repository import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
PROPERTIES = read_properties(ROOT / "config.properties")


def test_every_port_that_is_listened_on_is_in_the_table() -> None:
    gateway = {option.name: option.default for option in OPTIONS}
    addresses = [PROPERTIES[f"{name}_address"] for name in ("inference", "management", "metrics")]
    listening = {
        *(address.rsplit(":", 1)[-1] for address in addresses),
        *(PROPERTIES[f"grpc_{name}_port"] for name in ("inference", "management")),
        *(
            LAUNCHER_OPTIONS["status_port"],
            LAUNCHER_OPTIONS["access_port"],
            gateway["port"],
            gateway["tls_port"],
            "8501",
        ),
    }
    rows = re.findall(r"(?m)^\| ([0-9][^|]*)\|", TEXT)
    assert set(re.findall(r"[0-9]{4}", " ".join(rows))) == listening


def test_what_is_said_to_be_set_is_set() -> None:
    assert "`allowed_urls=(?!)`" in TEXT and PROPERTIES["allowed_urls"] == "(?!)"
    assert "`enable_model_api=false`" in TEXT and PROPERTIES["enable_model_api"] == "false"
    assert PROPERTIES["management_address"].startswith("http://127.0.0.1:")


def test_the_gateway_has_no_path_to_what_is_said_to_be_closed() -> None:
    patterns = [re.compile(route.pattern) for route in (*INFERENCE, *STATUS)]
    for path in ("/metrics", "/drain", "/ping", "/workflows", "/models/flowers/1.0/set-default", "/api-description"):
        assert not any(pattern.fullmatch(path) for pattern in patterns), path


def test_the_versions_inside_the_jar_are_those_that_are_named() -> None:
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        pytest.skip("TorchServe is not installed: make .venv/.dev")
    with zipfile.ZipFile(Path(spec.origin).parent / "frontend" / "model-server.jar") as jar:
        netty = jar.read("META-INF/io.netty.versions.properties").decode()
        yaml = jar.getinfo("org/yaml/snakeyaml/Yaml.class").date_time[0]
        log4j = jar.getinfo("org/apache/logging/log4j/core/Logger.class").date_time[0]
    (version,) = re.findall(r"netty-codec-http.version=([0-9.]+)\.Final", netty)
    assert f"Netty {version} of 2020, SnakeYAML of {yaml}, Log4j 2.17 of {log4j}" in TEXT


def test_our_requirements_lock_the_torchserve_that_is_named() -> None:
    (version,) = re.findall(r"(?m)^torchserve==([0-9.]+)", (ROOT / "requirements" / "run.txt").read_text())
    assert f"{version} is the last release" in TEXT


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("visionserve/engines.py", 'os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")'),
        ("visionserve/engines.py", 'sys.modules.setdefault("openvino_telemetry", None)'),
        ("ui/.streamlit/config.toml", "gatherUsageStats = false"),
        ("training/tracking/mlflow.py", 'os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")'),
        (".dvc/config", "analytics = false"),
        ("compose.yaml", 'GF_ANALYTICS_REPORTING_ENABLED: "false"'),
    ],
)
def test_what_would_report_home_is_told_not_to(file: str, line: str) -> None:
    assert line in (ROOT / file).read_text()
