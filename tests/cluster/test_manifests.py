"""Every variant of k8s/ on a real API server: accepted without a warning, unchanged when applied again, removed whole.

No pod starts: a quota forbids them. So a control plane alone is enough. Variants with resources of operators need their
definitions in the cluster (Gateway API, KEDA, Prometheus operator, Kubeflow training, KServe).
"""

from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.conftest import CLUSTER, claim
from tests.cluster.kube import NAMESPACE, attempt, get, kubectl
from tests.contract.manifests import K8S, VARIANTS, rendered

pytestmark = CLUSTER
# Nobody applies the base by itself: it names no version.
APPLIED = [variant for variant in VARIANTS if variant != "base"]
# kubectl sends a budget's selector whole and says "configured" whatever it is; `kubectl diff` knows better.
_BUDGET = "poddisruptionbudget.policy/"
_QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods", "namespace": NAMESPACE},
    "spec": {"hard": {"pods": "0"}},
}


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """The service's namespace, in which no pod starts."""
    kubectl("apply", "--filename", str(K8S / "base" / "namespace.yaml"))
    claim(NAMESPACE)
    kubectl("apply", "--filename=-", data=_QUOTA)
    yield
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")


@pytest.fixture(scope="module")
def known() -> set[tuple[str, str]]:
    """Group with version, and kind, of everything that the cluster knows."""
    lines = kubectl("api-resources", "--no-headers").splitlines()
    words = [line.split() for line in lines]
    return {(columns[-3], columns[-1]) for columns in words}


@pytest.mark.parametrize("variant", APPLIED)
def test_a_variant_is_accepted_without_a_warning_and_unchanged_when_applied_again(
    variant: str, known: set[tuple[str, str]]
) -> None:
    manifests = rendered(variant)
    unknown = sorted({f"{one['kind']} of {one['apiVersion']}" for one in manifests} - {f"{k} of {v}" for v, k in known})
    if unknown:
        pytest.skip(f"the cluster does not know {', '.join(unknown)}: apply the operators' definitions")
    text = yaml.safe_dump_all(manifests)
    first = attempt("apply", "--warnings-as-errors", "--filename=-", data=text)
    assert (first.returncode, first.stderr) == (0, ""), first.stderr
    again = attempt("apply", "--warnings-as-errors", "--filename=-", data=text)
    changed = [line for line in again.stdout.splitlines() if not line.endswith(" unchanged") and _BUDGET not in line]
    assert (again.returncode, again.stderr, changed) == (0, "", []), again.stderr
    different = attempt("diff", "--filename=-", data=text)
    assert (different.returncode, different.stdout) == (0, ""), different.stderr


def test_a_field_that_the_api_does_not_know_is_refused() -> None:
    """The tests above can fail."""
    (service,) = (one for one in rendered("overlays/cpu") if one["kind"] == "Service")
    wrong = {**service, "spec": {**service["spec"], "sessionAffinty": "None"}}
    done = attempt("apply", "--dry-run=server", "--filename=-", data=wrong)
    assert done.returncode != 0
    assert 'unknown field "spec.sessionAffinty"' in done.stderr


def test_a_pod_with_more_privileges_is_warned_of_and_refused() -> None:
    """The namespace's pod security is in force."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": NAMESPACE}}
    spec = {"containers": [{"name": "root", "image": "debian", "securityContext": {"privileged": True}}]}
    done = attempt("apply", "--dry-run=server", "--filename=-", data={**pod, "spec": spec})
    assert 'violates PodSecurity "restricted' in done.stderr


def test_deleting_what_was_applied_leaves_nothing() -> None:
    kubectl("apply", "--filename", str(K8S))
    kubectl("delete", "--filename", str(K8S), "--timeout=180s")
    assert attempt("get", "namespace", NAMESPACE).returncode != 0
    kinds = kubectl("api-resources", "--namespaced=false", "--verbs=list", "--output=name").split()
    for kind in kinds:
        items = get(kind, "--selector=app.kubernetes.io/name=visionserve")["items"]
        assert items == [], kind
