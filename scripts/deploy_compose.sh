#!/bin/sh
# Start a build on the machine that docker speaks to, ask it what users will ask, and go back when it fails:
#   scripts/deploy_compose.sh IMAGE         such as ghcr.io/someone/visionserve@sha256:...
#
# DOCKER_HOST=ssh://USER@HOST deploys to another machine; then give SMOKE_URL, its address. Needs docker with compose, curl.
# Exit code 0 when the new build serves, 1 when the one before it does again (or nothing did before), 2 when called wrongly.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 IMAGE" >&2
    exit 2
fi
cd "$(dirname "$0")/.."
image=$1
before=$(docker compose ps --quiet server | xargs -r docker inspect --format '{{.Config.Image}}' | head -n 1)

up() { VISIONSERVE_IMAGE=$1 docker compose up --detach --wait --no-build; }

smoke() { scripts/smoke_test.sh "${SMOKE_URL:-http://$(VISIONSERVE_IMAGE=$image docker compose port pod 8000)}"; }

if up "$image" && smoke; then
    echo "$image serves."
    exit 0
fi
if [ -z "$before" ]; then
    echo "$image does not serve, and nothing did before it." >&2
    exit 1
fi
echo "$image does not serve: going back to $before." >&2
up "$before"
exit 1
