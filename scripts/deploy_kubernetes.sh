#!/bin/sh
# Roll a build out in the cluster that kubectl speaks to, ask it what users will ask, and go back when it fails:
#   scripts/deploy_kubernetes.sh OVERLAY IMAGE        such as: cpu ghcr.io/someone/visionserve@sha256:...
#
# Needs kubectl and curl. Exit code 0 when the new build serves, 1 when the one before it does again, 2 when called wrongly.
# From the environment: SMOKE_URL asks a public address instead of a port of this machine (LOCAL_PORT, 18000); API_KEY.
set -eu

if [ $# -ne 2 ]; then
    echo "usage: $0 OVERLAY IMAGE" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
overlay=$here/k8s/overlays/$1
image=$2
port=${LOCAL_PORT:-18000}
[ -d "$overlay" ] || { echo "There is no overlay $1: choose one of $(ls "$here/k8s/overlays" | tr '\n' ' ')" >&2; exit 2; }
case $image in
    *@sha256:* | *:[0-9a-f]*) ;;
    *) echo "$image names no version: give a tag or, better, a digest." >&2; exit 2 ;;
esac
forward=
trap '[ -z "$forward" ] || kill "$forward" 2>/dev/null || true' EXIT

rollout() { kubectl --namespace visionserve rollout "$@" deployment/visionserve; }

smoke() {
    if [ -n "${SMOKE_URL:-}" ]; then
        "$here/scripts/smoke_test.sh" "$SMOKE_URL"
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

# The build's name is written into the rendered manifests: the overlay in the repository names the last release.
kubectl kustomize "$overlay" | sed "s|image: visionserve:.*|image: $image|" | kubectl apply --filename -
if rollout status --timeout=600s && smoke; then
    echo "$image serves."
    exit 0
fi
echo "$image does not serve: going back to the build before it." >&2
rollout undo
rollout status --timeout=600s
exit 1
