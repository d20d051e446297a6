"""The workflows call what is there, with pinned actions and no more rights than they need."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repository import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
READ_ONLY = {"contents": "read"}
# Who may write what, and nothing else may.
WRITES = {("image.yml", "push"): {"packages", "id-token", "attestations"}, ("package.yml", "publish"): {"id-token"}}
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def load(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text())
    # YAML 1.1 takes the word `on` for true.
    loaded["on"] = loaded.pop(True)
    return dict(loaded)


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job.get("steps", [])]


def test_there_are_workflows_for_checks_clusters_images_packages_and_deployments() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "cluster.yml", "deploy.yml", "image.yml", "package.yml"]


@each
def test_every_action_is_pinned_by_its_commit_and_named_by_its_version(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert used
    for action, comment in used:
        if action.startswith("./"):  # a workflow of this repository and this commit
            assert (ROOT / action).is_file()
            continue
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v[0-9.]+", comment), action


def test_an_action_has_one_version_everywhere() -> None:
    used = {action for path in WORKFLOWS for action in re.findall(r"uses: (\S+@\S+)", path.read_text())}
    assert len({action.split("@")[0] for action in used}) == len(used)


@each
def test_every_job_has_a_time_limit_and_every_workflow_its_turn(path: Path) -> None:
    workflow = load(path)
    assert "group" in workflow["concurrency"]
    # A job that calls a workflow has that one's limits.
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values() if "uses" not in job)


@each
def test_nobody_may_write_but_who_has_to(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == READ_ONLY
    for name, job in workflow["jobs"].items():
        writing = {key for key, right in job.get("permissions", {}).items() if right == "write"}
        assert writing == WRITES.get((path.name, name), set()), name


@each
def test_the_checkout_leaves_no_token_behind(path: Path) -> None:
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@each
def test_what_others_choose_reaches_the_shell_as_a_variable(path: Path) -> None:
    """An expression inside a script is pasted into it before the shell reads it: a title could be a command."""
    for step in steps(path):
        assert "${{" not in step.get("run", ""), step.get("name")


@each
def test_workflows_call_targets_and_scripts_that_exist(path: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    for step in steps(path):
        script = step.get("run", "")
        assert set(re.findall(r"(?m)^\s*make ([a-z-]+)", script)) <= targets
        for program in re.findall(r"scripts/[\w.]+", script):
            assert (ROOT / program).stat().st_mode & 0o111, program


def test_every_stage_that_is_built_is_one_of_the_dockerfile() -> None:
    stages = set(re.findall(r"(?m)^FROM .* AS (\S+)", (ROOT / "Dockerfile").read_text()))
    jobs = load(ROOT / ".github" / "workflows" / "image.yml")["jobs"]
    pushed = jobs["push"]["strategy"]["matrix"]["include"]
    assert {entry["target"] for entry in pushed} <= stages
    assert {entry["target"] for entry in pushed} == set(jobs["build"]["strategy"]["matrix"]["image"])
    assert {entry["device"] for entry in pushed} == {"cpu", "gpu"}


def test_what_a_pull_request_runs_writes_nothing_and_what_writes_runs_for_none() -> None:
    workflow = load(ROOT / ".github" / "workflows" / "image.yml")
    assert "pull_request" in workflow["on"] and "pull_request_target" not in workflow["on"]
    conditions = {name: job["if"] for name, job in workflow["jobs"].items()}
    assert conditions["build"] == "github.event_name == 'pull_request'"
    assert conditions["push"] == "github.event_name != 'pull_request'"
    assert "refs/heads/main" in conditions["staging"] and "vars.STAGING_TARGET != ''" in conditions["staging"]


@pytest.mark.parametrize(
    ("release", "tags"),
    [
        ("", ["sha-gpu"]),
        ("v1.2.3", ["sha-gpu", "1.2.3-gpu", "latest-gpu"]),
        ("v1.2.3-rc1", ["sha-gpu", "1.2.3-rc1-gpu"]),
    ],
)
def test_a_release_is_tagged_by_its_version_and_as_the_latest(tmp_path: Path, release: str, tags: list[str]) -> None:
    (step,) = (step for step in steps(ROOT / ".github" / "workflows" / "image.yml") if step.get("id") == "name")
    output = tmp_path / "output"
    variables = {"REGISTRY": "ghcr.io", "OWNER": "Some", "NAME": "visionserve", "SUFFIX": "-gpu", "RELEASE": release}
    own = {"GITHUB_SHA": "sha", "GITHUB_OUTPUT": str(output), "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], env=variables | own, check=True)
    lines = output.read_text().splitlines()
    assert lines == [
        "image=ghcr.io/some/visionserve",
        "tags<<END",
        *(f"ghcr.io/some/visionserve:{tag}" for tag in tags),
        "END",
    ]


def test_the_cluster_gets_the_gateway_image_of_the_manifests() -> None:
    (image,) = yaml.safe_load((ROOT / "k8s" / "base" / "kustomization.yaml").read_text())["images"]
    assert f"docker pull {image['name']}:{image['newTag']}\n" in (ROOT / ".github/workflows/cluster.yml").read_text()


def test_a_deployment_can_go_to_every_overlay_and_to_compose() -> None:
    options = load(ROOT / ".github" / "workflows" / "deploy.yml")["on"]["workflow_dispatch"]["inputs"]["target"][
        "options"
    ]
    overlays = {f"kubernetes-{path.name}" for path in (ROOT / "k8s" / "overlays").iterdir()}
    assert set(options) == overlays | {"compose"}


def test_dependabot_watches_what_is_here() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    watched = {update["package-ecosystem"] for update in updates}
    assert watched == {"github-actions", "docker", "docker-compose", "pip"}


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_one_that_a_plain_shell_reads(script: Path) -> None:
    done = subprocess.run(["/bin/sh", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("former", "target"),
    [
        *(("door", "gateway"), ("endurance", "soak"), ("live", "evaluate-live")),
        *(("picture", "screenshots"), ("restarts", "restart-test")),
    ],
)
def test_a_former_target_names_the_new_one(former: str, target: str) -> None:
    done = subprocess.run(["make", former], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"make {former} is now: make {target}\n" in done.stderr
    assert re.search(rf"^{target}:.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
