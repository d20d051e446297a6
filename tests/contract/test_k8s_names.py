"""What the manifests of k8s/ name is there: labels, ports, paths, settings, volumes, metrics, images, seconds."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gateway.limits import Limits
from gateway.options import OPTIONS, resolve
from gateway.routes import GATEWAY_LIVENESS, STATUS
from launcher.process import stop
from launcher.settings import LAUNCHER_OPTIONS
from launcher.workers import START_TIMEOUT_S
from tests.contract.java_class import JavaClass
from tests.contract.manifests import (
    COMPONENTS,
    K8S,
    VARIANTS,
    Manifest,
    Pod,
    of_kind,
    only,
    pods,
    rendered,
    with_components,
)
from tests.repository import ROOT
from ui.settings import Settings as PageSettings

# Everything that runs beside the service, and is applied with it or after it.
EVERYTHING = ("base", "canary/cpu", "components/ui", "loadtest", "training")
# Made by hand, as docs/kubernetes.md says.
SECRETS = {"visionserve-keys", "visionserve-tls", "visionserve-ui-key"}
# Streamlit's own.
PAGE_HEALTH = "/_stcore/health"
WITHOUT_PODS = {"canary/gateway-api", "canary/ingress-nginx"}
WITH_PODS = [variant for variant in VARIANTS if variant not in WITHOUT_PODS]


def everything() -> list[Manifest]:
    return [manifest for variant in EVERYTHING for manifest in rendered(variant)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_but_two_asks_for_pods(variant: str) -> None:
    assert any(pods(rendered(variant))) == (variant in WITH_PODS)


def test_every_selector_finds_pods() -> None:
    labels = [pod.labels for pod in pods(tuple(everything()))]
    for variant in VARIANTS:
        for manifest in rendered(variant):
            for selector in selectors(manifest):
                assert any(selector.items() <= one.items() for one in labels), (variant, manifest["metadata"]["name"])


@pytest.mark.parametrize("variant", [*WITH_PODS, "canary/gateway-api"])
def test_a_service_leads_to_a_port_that_every_selected_pod_has(variant: str) -> None:
    present = list(pods(tuple(everything())))
    for service in of_kind(rendered(variant), "Service"):
        selected = [pod for pod in present if service["spec"]["selector"].items() <= pod.labels.items()]
        assert selected
        for port in service["spec"]["ports"]:
            assert all(port["targetPort"] in ports(pod) for pod in selected), service["metadata"]["name"]


def test_the_services_of_the_page_and_of_the_service_do_not_share_pods() -> None:
    service, page = of_kind(rendered("components/ui"), "Service")
    for pod in pods(rendered("components/ui")):
        assert sum(one["spec"]["selector"].items() <= pod.labels.items() for one in (service, page)) == 1


def test_a_deployment_owns_its_own_track_only() -> None:
    stable, canary = only(rendered("base"), "Deployment"), only(rendered("canary/cpu"), "Deployment")
    for deployment, other in ((stable, canary), (canary, stable)):
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        assert not selector.items() <= other["spec"]["template"]["metadata"]["labels"].items()


def test_both_tracks_are_behind_the_one_service() -> None:
    selector = only(rendered("base"), "Service")["spec"]["selector"]
    for variant in ("base", "canary/cpu", "canary/gpu"):
        (pod,) = pods(rendered(variant))
        assert selector.items() <= pod.labels.items()


def test_deleting_the_canary_takes_nothing_from_the_service() -> None:
    shared = {(one["kind"], one["metadata"]["name"]) for one in rendered("overlays/cpu")}
    assert not shared & {(one["kind"], one["metadata"]["name"]) for one in rendered("canary/cpu")}


@pytest.mark.parametrize("variant", WITH_PODS)
def test_every_volume_that_is_mounted_is_there_and_the_other_way_round(variant: str) -> None:
    for pod in pods(rendered(variant)):
        volumes = [volume["name"] for volume in pod.spec["volumes"]]
        mounted = {mount["name"] for container in pod.containers for mount in container["volumeMounts"]}
        assert sorted(mounted) == sorted(volumes), pod.owner


@pytest.mark.parametrize("variant", WITH_PODS)
def test_every_configmap_secret_claim_and_account_is_there(variant: str) -> None:
    present = {(one["kind"], one["metadata"]["name"]) for one in (*rendered(variant), *rendered("base"))}
    for pod in pods(rendered(variant)):
        for kind, name in references(pod):
            assert (kind, name) in present or (kind == "Secret" and name in SECRETS), (pod.owner, kind, name)


def test_the_secrets_that_are_made_by_hand_are_explained() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    assert {name for name in SECRETS if name not in text} == set()


@pytest.mark.parametrize("variant", WITH_PODS)
def test_every_probe_asks_a_path_of_a_port_that_answers_it(variant: str) -> None:
    health = {route.shown for route in STATUS if route.kind == "health"}
    answers = {"status": health, "http": {*health, PAGE_HEALTH, GATEWAY_LIVENESS}}
    for pod in pods(rendered(variant)):
        for container in pod.containers:
            for probe in (container.get(f"{name}Probe") for name in ("startup", "readiness", "liveness")):
                if probe is None:
                    continue
                action = probe.get("httpGet") or probe["tcpSocket"]
                assert action["port"] in {port["name"] for port in container["ports"]}
                assert "path" not in action or action["path"] in answers[action["port"]], container["name"]


@pytest.mark.parametrize("variant", WITH_PODS)
def test_the_ports_are_those_that_the_programs_listen_on(variant: str) -> None:
    gateway = {option.name: option.default for option in OPTIONS}
    names = {"status": int(LAUNCHER_OPTIONS["status_port"]), "http": int(gateway["port"]), "locust": 5557}
    for pod in pods(rendered(variant)):
        for name, number in ports(pod).items():
            expected = 8501 if pod.labels["app.kubernetes.io/name"] == "visionserve-ui" else names[name]
            assert number == expected, pod.owner


def test_nothing_but_the_gateway_is_in_a_service_and_torchserve_is_in_no_pod() -> None:
    published = only(rendered("base"), "Service")["spec"]["ports"]
    assert [port["targetPort"] for port in published] == ["http"]
    torchserve = {8080, 8081, 8082, 7070, 7071}
    for variant in WITH_PODS:
        for pod in pods(rendered(variant)):
            assert not torchserve & set(ports(pod).values())


def test_a_network_policy_holds_every_pod_and_names_ports_that_it_has() -> None:
    manifests = (*everything(), *rendered("components/ui"))
    policies = of_kind(manifests, "NetworkPolicy")
    for pod in pods(manifests):
        matching = [
            one["spec"] for one in policies if one["spec"]["podSelector"]["matchLabels"].items() <= pod.labels.items()
        ]
        assert matching and all(spec["policyTypes"] == ["Ingress", "Egress"] for spec in matching), pod.owner
        named = {port["port"] for spec in matching for rule in spec.get("ingress", []) for port in rule["ports"]}
        assert pod.owner.startswith("Job") or named <= ports(pod).keys(), pod.owner


def test_the_status_port_is_open_to_labelled_namespaces_only() -> None:
    rules = only(rendered("base"), "NetworkPolicy")["spec"]["ingress"]
    (status,) = [rule for rule in rules if rule["ports"][0]["port"] == "status"]
    assert status["from"] == [{"namespaceSelector": {"matchLabels": {"visionserve.io/monitoring": "true"}}}]


@pytest.mark.parametrize("variant", WITH_PODS)
def test_every_setting_is_one_that_its_program_knows(variant: str) -> None:
    torchserve = JavaClass.of_torchserve("org/pytorch/serve/util/ConfigManager").constant_fields()
    names = {
        *(option.variable for option in OPTIONS),
        *(f"VISIONSERVE_{name.upper()}" for name in LAUNCHER_OPTIONS),
        *(f"TS_{name.upper()}" for name in torchserve),
        *(name for name in re.findall("UI_[A-Z_]+", PageSettings.read.__doc__ or "")),
        # Locust's own, as `locust --help` lists them.
        *("LOCUST_HOST", "LOCUST_USERS", "LOCUST_SPAWN_RATE", "LOCUST_RUN_TIME"),
    }
    for manifest in rendered(variant):
        if manifest["kind"] == "ConfigMap" and "recipe" not in manifest["metadata"]["name"]:
            assert manifest["data"].keys() <= names
    for pod in pods(rendered(variant)):
        for container in pod.containers:
            assert {one["name"] for one in container.get("env", [])} <= names


@pytest.mark.parametrize("variant", ["overlays/cpu", "overlays/gpu", "components/api-keys"])
def test_the_gateway_takes_its_settings(variant: str) -> None:
    (pod,) = pods(rendered(variant))
    by_name = {one["name"]: one for one in pod.containers}
    server = by_name["server"]["resources"]["limits"]
    environment = [one for one in by_name["gateway-config"]["env"] if "valueFrom" in one]
    fields = {one["name"]: one["valueFrom"]["resourceFieldRef"] for one in environment}
    assert fields == {
        "GATEWAY_SERVER_MEMORY": {"containerName": "server", "resource": "limits.memory"},
        "GATEWAY_SERVER_CPUS": {"containerName": "server", "resource": "limits.cpu"},
    }
    limits = {"GATEWAY_SERVER_MEMORY": server["memory"], "GATEWAY_SERVER_CPUS": server["cpu"]}
    values = resolve({}, settings(variant, "visionserve-gateway") | limits)
    assert settings(variant, "visionserve-gateway")["GATEWAY_HOST"] == "::", "all of IPv6 and IPv4"
    # The gateway's limit, not TorchServe's queue, is what a client meets.
    places = Limits.of(values)
    assert places.small + places.large < int(settings(variant, "visionserve-server")["TS_JOB_QUEUE_SIZE"])


@pytest.mark.parametrize("variant", ["base", "overlays/gpu", "canary/cpu", "kserve/inferenceservice.yaml"])
def test_the_folder_for_bodies_is_smaller_than_the_memory_that_it_counts_in(variant: str) -> None:
    (pod,) = pods(rendered(variant))
    (folder,) = [one["emptyDir"] for one in pod.spec["volumes"] if one["name"] == "gateway-tmp"]
    gateway = next(one for one in pod.containers if "nginx" in one["image"])
    assert folder == {"medium": "Memory", "sizeLimit": "512Mi"}
    assert gateway["resources"]["limits"]["memory"] == "1Gi"


@pytest.mark.parametrize("variant", ["base", "overlays/gpu", "canary/cpu", "kserve/inferenceservice.yaml"])
def test_the_seconds_of_a_stop_fit_into_each_other(variant: str) -> None:
    """SIGTERM meets the server at once, the gateway after its preStop; whoever is killed loses requests."""
    (pod,) = pods(rendered(variant))
    (waits,) = [one["lifecycle"]["preStop"]["exec"]["command"] for one in pod.spec["containers"] if "lifecycle" in one]
    assert waits[0] == "sleep"
    pre_stop = int(waits[1])
    gateway = resolve({}, settings(variant, "visionserve-gateway"))
    server = settings(variant, "visionserve-server")
    delay, drain = int(server["VISIONSERVE_DRAIN_DELAY"]), int(server["VISIONSERVE_DRAIN_TIMEOUT"])
    stop_s = inspect.signature(stop).parameters["timeout_s"].default
    assert delay >= pre_stop, "the server must take requests for as long as the gateway may be sent some"
    assert gateway["drain_timeout_s"] >= gateway["answer_timeout_s"], "an answer that is allowed must not be cut"
    assert drain > pre_stop + gateway["drain_timeout_s"], "the server must outlive the gateway"
    assert pod.spec["terminationGracePeriodSeconds"] >= delay + drain + stop_s + 10, "nobody is killed"


def test_a_start_may_take_as_long_as_the_server_gives_itself() -> None:
    (pod,) = pods(rendered("base"))
    (probe,) = [one["startupProbe"] for one in pod.spec["containers"] if "startupProbe" in one]
    budget_s = probe["periodSeconds"] * probe["failureThreshold"]
    assert START_TIMEOUT_S < budget_s < only(rendered("base"), "Deployment")["spec"]["progressDeadlineSeconds"]


def test_the_image_lets_kubelet_and_prometheus_reach_the_status_server() -> None:
    text = (ROOT / "Dockerfile").read_text()
    server = text[text.index("AS server\n") :]
    (entrypoint,) = [line for line in server.splitlines() if line.startswith("ENTRYPOINT")]
    assert "--status-host" not in entrypoint, "the command line would win over the environment"
    assert re.search(r"(?m)^ENV (?:[^#]*\\\n)* +VISIONSERVE_STATUS_HOST=::$", text), "all of IPv6 and IPv4"


def test_autoscalers_ask_for_metrics_that_exist_and_for_rates() -> None:
    hpa = only(rendered("components/autoscaling-hpa"), "HorizontalPodAutoscaler")["spec"]
    values = yaml.safe_load((K8S / "components" / "autoscaling-hpa" / "prometheus-adapter-values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    assert [one["pods"]["metric"]["name"] for one in hpa["metrics"]] == [rule["name"]["as"]]
    keda = only(rendered("components/autoscaling-keda"), "ScaledObject")["spec"]
    served = (ROOT / "launcher").rglob("*.py")
    text = "\n".join(path.read_text() for path in served)
    for query in (rule["metricsQuery"], keda["triggers"][0]["metadata"]["query"]):
        (name,) = re.findall(r"rate\((\w+)", query)
        base = re.sub("_(sum|count|bucket|total)$", "", name)
        assert f'"{base}"' in text or f'"{name}"' in text, f"nothing of launcher/ makes {name}"
        assert query.count(name) == query.count("rate("), "a raw counter grows for ever"
    assert rule["seriesQuery"].startswith(re.findall(r"rate\((\w+)", rule["metricsQuery"])[0])


@pytest.mark.parametrize("component", ["autoscaling-hpa", "autoscaling-keda"])
def test_whoever_scales_owns_the_number_and_takes_its_time_to_scale_down(component: str) -> None:
    manifests = rendered(f"components/{component}")
    assert "replicas" not in only(manifests, "Deployment")["spec"]
    scaler = next(one for one in manifests if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"))["spec"]
    behaviour = scaler.get("behavior") or scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 300
    assert scaler["scaleTargetRef"]["name"] == only(manifests, "Deployment")["metadata"]["name"]


def test_both_autoscalers_want_the_same() -> None:
    hpa = only(rendered("components/autoscaling-hpa"), "HorizontalPodAutoscaler")["spec"]
    keda = only(rendered("components/autoscaling-keda"), "ScaledObject")["spec"]
    assert hpa["metrics"][0]["pods"]["target"]["averageValue"] == keda["triggers"][0]["metadata"]["threshold"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"])
    assert hpa["behavior"]["scaleDown"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]


def test_prometheus_scrapes_a_port_and_path_that_answer_under_the_job_that_the_rules_ask_for() -> None:
    manifests = rendered("components/monitoring")
    monitor = only(manifests, "PodMonitor")["spec"]
    (pod,) = pods(manifests)
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in ports(pod) and endpoint["path"] == "/metrics"
    assert monitor["selector"]["matchLabels"].items() <= pod.labels.items()
    text = yaml.safe_dump(only(manifests, "PrometheusRule"))
    assert set(re.findall(r'job="(\w+)"', text)) == {pod.labels[monitor["jobLabel"]]}


# The overlays say which build of the server runs, the base does not.
@pytest.mark.parametrize("variant", [variant for variant in WITH_PODS if variant != "base"])
def test_every_image_has_a_version_and_those_of_a_pod_agree(variant: str) -> None:
    for pod in pods(rendered(variant)):
        images = {container["image"] for container in pod.containers}
        assert all(re.search(r":[0-9]+\.[0-9]+", image) for image in images), pod.owner
        assert len({image.partition(":")[0] for image in images}) == len(images), (pod.owner, images)


def test_compose_and_the_cpu_overlay_run_the_same_images() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for variant in ("overlays/cpu", "components/ui", "loadtest"):
        for pod in pods(rendered(variant)):
            assert [one["image"] for one in pod.containers if one["image"] not in text] == []


def test_the_gpu_is_asked_for_by_the_gpu_overlay_only() -> None:
    for variant in ("overlays/cpu", "overlays/gpu"):
        (pod,) = pods(rendered(variant))
        server = next(one for one in pod.spec["containers"] if one["name"] == "server")
        assert ("nvidia.com/gpu" in server["resources"]["limits"]) is (variant == "overlays/gpu")
        assert ("nodeSelector" in pod.spec) is (variant == "overlays/gpu")


@pytest.mark.parametrize("variant", ["canary/gateway-api", "canary/ingress-nginx"])
def test_a_weighed_route_leads_to_services_that_are_there(variant: str) -> None:
    services = {one["metadata"]["name"] for one in of_kind(rendered(variant), "Service")}
    assert set(re.findall(r"name: (visionserve-(?:stable|canary))", yaml.safe_dump_all(rendered(variant)))) == services


def test_all_options_can_be_taken_together() -> None:
    components = [one for one in COMPONENTS if one not in ("components/canary", "components/autoscaling-keda")]
    assert len(with_components(*components)) > len(rendered("overlays/cpu"))


def selectors(manifest: Manifest) -> Iterator[dict[str, str]]:
    """Yield what a resource selects pods by."""
    spec, kind = manifest.get("spec", {}), manifest["kind"]
    if kind == "Service":
        yield spec["selector"]
    elif kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        yield spec["selector"]["matchLabels"]
    elif kind == "NetworkPolicy":
        yield spec["podSelector"]["matchLabels"]
    for pod in pods((manifest,)):
        for constraint in pod.spec.get("topologySpreadConstraints", []):
            yield constraint["labelSelector"]["matchLabels"]


def ports(pod: Pod) -> dict[str, int]:
    """Return a pod's ports by name."""
    return {one["name"]: one["containerPort"] for container in pod.containers for one in container.get("ports", [])}


def references(pod: Pod) -> Iterator[tuple[str, str]]:
    """Yield kind and name of everything that a pod cannot start without."""
    if "serviceAccountName" in pod.spec:
        yield "ServiceAccount", pod.spec["serviceAccountName"]
    for volume in pod.spec["volumes"]:
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        elif "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        elif "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for container in pod.containers:
        for source in container.get("envFrom", []):
            yield "ConfigMap", source["configMapRef"]["name"]
        for variable in container.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                yield "Secret", variable["valueFrom"]["secretKeyRef"]["name"]


def settings(variant: str, name: str) -> dict[str, Any]:
    """Return the settings that a variant gives to a program."""
    maps = of_kind(rendered(variant), "ConfigMap")
    (data,) = [one["data"] for one in maps if one["metadata"]["name"].startswith(name)]
    return dict(data)
