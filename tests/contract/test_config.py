import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from handlers import image_handler
from launcher.settings import read_properties
from tests.contract.java_class import JavaClass
from tests.repository import ROOT
from training.export import contents
from visionserve.images import Limits
from visionserve.request_parsing import MAX_IMAGES

CONFIG = ROOT / "config.properties"
# Read by the `torchserve` program itself (ts/model_server.py) and not by its Java.
PYTHON_KEYS = {"vmargs", "plugins_path", "model_store"}
# What the handler reads of its archive's model-config.yaml.
HANDLER_KEYS = {"handler": {"threads", "runtime", "decoder"}}


@pytest.fixture(scope="module")
def settings() -> Mapping[str, str]:
    return read_properties(CONFIG)


@pytest.fixture(scope="module")
def legal_keys() -> set[str]:
    constants = JavaClass.of_torchserve("org/pytorch/serve/util/ConfigManager").constant_fields()
    return {value for value in constants if re.fullmatch("[a-z_]+", value)} | PYTHON_KEYS


def test_the_list_of_legal_keys_is_what_torchserve_documents(legal_keys: set[str]) -> None:
    documented = {"inference_address", "job_queue_size", "metrics_mode", "enable_envvars_config", "cors_allowed_origin"}
    assert documented < legal_keys
    assert "inference_adress" not in legal_keys
    assert len(legal_keys) > 50


def test_every_setting_is_one_that_torchserve_knows(settings: Mapping[str, str], legal_keys: set[str]) -> None:
    assert set(settings) - legal_keys == set()


@pytest.mark.parametrize("name", ["config.properties", "metrics.yaml"])
def test_every_line_has_its_reason_above_it(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    pattern = re.compile(r"[a-z_]+=|\s*- name: ")
    bare = [line for above, line in itertools.pairwise(lines) if pattern.match(line) and "#" not in above]
    assert [line for line in bare if not line.startswith(("    - name: Requests4XX", "    - name: Requests5XX"))] == []


def test_no_key_is_set_twice() -> None:
    keys = re.findall(r"(?m)^([a-z_]+)=", CONFIG.read_text())
    assert len(keys) == len(set(keys))


def test_everything_listens_on_this_machine_only(settings: Mapping[str, str]) -> None:
    for key in ("inference_address", "management_address", "metrics_address"):
        assert settings[key].startswith("http://127.0.0.1:")
    assert settings["grpc_inference_address"] == settings["grpc_management_address"] == "127.0.0.1"


def test_no_archive_can_be_fetched_or_registered(settings: Mapping[str, str]) -> None:
    assert settings["enable_model_api"] == "false"
    for url in ("http://example.org/x.mar", "file:///tmp/x.mar", "https://example.org/", ""):
        assert re.fullmatch(settings["allowed_urls"], url) is None


def test_the_largest_photograph_fits_into_a_request_in_base64(settings: Mapping[str, str]) -> None:
    encoded = -(-Limits().max_bytes // 3) * 4
    assert encoded + 4096 <= int(settings["max_request_size"])


def test_the_largest_answer_fits_into_a_response(settings: Mapping[str, str]) -> None:
    heatmap = 224 * 224 * 4 / 3
    predictions = 1000 * 100
    assert MAX_IMAGES * (heatmap + predictions) < int(settings["max_response_size"])


def test_the_files_that_are_named_exist(settings: Mapping[str, str]) -> None:
    assert (ROOT / settings["metrics_config"]).is_file()
    log = re.search(r"-Dlog4j\.configurationFile=(\S+)", settings["vmargs"])
    assert log is not None
    assert (ROOT / log[1]).is_file()


def test_the_log_is_json_at_warn_and_holds_no_access_lines() -> None:
    tree = ET.parse(ROOT / "log4j2.xml")  # our own file
    levels = {entry.get("name"): entry.get("level") for entry in tree.iter("Logger")}
    assert levels["ACCESS_LOG"] == levels["MODEL_METRICS"] == levels["TS_METRICS"] == "off"
    assert [entry.get("level") for entry in tree.iter("Root")] == ["warn"]
    patterns = [layout.get("pattern", "") for layout in tree.iter("PatternLayout")]
    names = ["time", "level", "logger", "thread", "message"]
    assert [re.findall(r'"(\w+)":', pattern) for pattern in patterns] == [names] * 2


def test_the_handler_and_metrics_yaml_name_the_same_metrics() -> None:
    declared = yaml.safe_load((ROOT / "metrics.yaml").read_text())["model_metrics"]
    used = set(re.findall(r'"(visionserve_\w+)"', Path(ROOT / "handlers" / "image_handler.py").read_text()))
    used -= set(image_handler._BOUNDS)
    used |= {f"{name}_{part}" for name in image_handler._BOUNDS for part in ("bucket", "sum", "count")}
    assert {entry["name"] for entries in declared.values() for entry in entries} == used


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_every_key_of_model_config_is_one_that_somebody_reads(profile: contents.Profile) -> None:
    strings = JavaClass.of_torchserve("org/pytorch/serve/archive/model/ModelConfig").strings()
    legal = {text for text in strings if re.fullmatch("[a-z][A-Za-z]+", text)}
    assert {"batchSize", "maxBatchDelay", "minWorkers", "responseTimeout"} < legal
    content = yaml.safe_load(contents.CONFIGS[profile])
    assert set(content) - legal - set(HANDLER_KEYS) == set()
    assert all(set(content[key]) <= known for key, known in HANDLER_KEYS.items())


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_batching_is_greedy_and_nothing_that_harms_it_is_on(profile: contents.Profile) -> None:
    content = yaml.safe_load(contents.CONFIGS[profile])
    assert content["maxBatchDelay"] == 1
    assert not {"asyncCommunication", "useJobTicket", "clientTimeoutInMills", "continuousBatching"} & set(content)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_every_line_of_model_config_has_its_reason_above_it(profile: contents.Profile) -> None:
    lines = contents.CONFIGS[profile].splitlines()
    pairs = itertools.pairwise(["", *lines])
    settings = [(above, line) for above, line in pairs if re.match(r"\s*\w+: \S", line)]
    assert settings
    assert all(above.lstrip().startswith("#") for above, _ in settings)
