#!/bin/sh
# Deploy a build to kubectl's current cluster, smoke-test it, and roll back if that fails:
#   scripts/deploy_kubernetes.sh OVERLAY IMAGE        such as: cpu ghcr.io/someone/visionserve@sha256:...
#
# Needs kubectl and curl. Exit code 0 if the new build serves, 1 if it was rolled back, 2 for a usage error.
# From the environment: SMOKE_URL, a public address instead of a forwarded port (LOCAL_PORT, 18000); API_KEY.
set -eu

if [ $# -ne 2 ]; then
    echo "usage: $0 OVERLAY IMAGE" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
overlay=$here/k8s/overlays/$1
image=$2
port=${LOCAL_PORT:-18000}
[ -d "$overlay" ] || { echo "Unknown overlay $1: choose one of $(ls "$here/k8s/overlays" | tr '\n' ' ')" >&2; exit 2; }
case $image in
    *@sha256:* | *:[0-9a-f]*) ;;
    *) echo "$image has no version: add a tag or, better, a digest." >&2; exit 2 ;;
esac
forward=
trap '[ -z "$forward" ] || kill "$forward" 2>/dev/null || true' EXIT

rollout() { kubectl --namespace visionserve rollout "$@" deployment/visionserve; }

smoke() {
    if [ -n "${SMOKE_URL:-}" ]; then
        "$here/scripts/smoke_test.sh" --public "$SMOKE_URL"
        return
    fi
    kubectl --namespace visionserve port-forward service/visionserve "$port:80" >/dev/null &
    forward=$!
    tries=30
    until curl --silent --output /dev/null "http://127.0.0.1:$port/livez"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || break
        sleep 1
    done
    "$here/scripts/smoke_test.sh" "http://127.0.0.1:$port"
}

# The image is replaced in the rendered manifests: the overlay in the repository names the last release.
kubectl kustomize "$overlay" | sed "s|image: visionserve:.*|image: $image|" | kubectl apply --filename -
if rollout status --timeout=600s && smoke; then
    echo "$image is deployed."
    exit 0
fi
echo "$image failed: rolling back to the previous build." >&2
rollout undo
rollout status --timeout=600s
exit 1
