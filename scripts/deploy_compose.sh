#!/bin/sh
# Deploy a build to the machine of the docker client, smoke-test it, and roll back if that fails:
#   scripts/deploy_compose.sh IMAGE         such as ghcr.io/someone/visionserve@sha256:...
#
# DOCKER_HOST=ssh://USER@HOST deploys to another machine; then set SMOKE_URL to its address. Needs docker with compose, curl.
# Exit code 0 if the new build serves, 1 if it was rolled back (or nothing ran before), 2 for a usage error.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 IMAGE" >&2
    exit 2
fi
cd "$(dirname "$0")/.."
image=$1
before=$(docker compose ps --quiet server | xargs -r docker inspect --format '{{.Config.Image}}' | head -n 1)

up() { VISIONSERVE_IMAGE=$1 docker compose up --detach --wait --no-build; }

smoke() { scripts/smoke_test.sh ${SMOKE_URL:+--public} "${SMOKE_URL:-http://$(VISIONSERVE_IMAGE=$image docker compose port pod 8000)}"; }

if up "$image" && smoke; then
    echo "$image is deployed."
    exit 0
fi
if [ -z "$before" ]; then
    echo "$image failed, and no previous build exists to roll back to." >&2
    exit 1
fi
echo "$image failed: rolling back to $before." >&2
up "$before"
exit 1
