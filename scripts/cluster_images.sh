#!/bin/sh
# Save the images that tests/cluster needs as one archive, to be loaded into a cluster's nodes:
#   scripts/cluster_images.sh VERSION ARCHIVE [options of docker build, such as --network=host]
#
# Needs docker, the image visionserve:VERSION (make image), and the gateway's (docker pull). Exit code 2 if one is missing.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 VERSION ARCHIVE [options of docker build]" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
version=$1 archive=$2
shift 2
server=visionserve:$version
folder=$here/tests/cluster/images
# A tag of a kustomization: tag NAME FILE
tag() { sed -n "s|.*name: $1, newTag: \([^}]*\)}.*|\1|p" "$here/k8s/$2/kustomization.yaml"; }
canary=visionserve:$(tag visionserve canary/cpu)
gateway=nginxinc/nginx-unprivileged:$(tag nginxinc/nginx-unprivileged base)
for image in "$server" "$gateway"; do
    docker image inspect "$image" >/dev/null 2>&1 || { echo "The image $image is missing: make image, or docker pull." >&2; exit 2; }
done
DOCKER_BUILDKIT=1 docker build --target tools --tag visionserve-cluster-tools:test "$@" "$folder"
DOCKER_BUILDKIT=1 docker build --target broken --build-arg "SERVER=$server" --tag visionserve:broken "$@" "$folder"
# The canary is the same build: what is tested is its share.
docker tag "$server" "$canary"
mkdir -p "$(dirname "$archive")"
docker save --output "$archive" "$server" "$canary" "$gateway" visionserve:broken visionserve-cluster-tools:test
echo "$archive is written: kind load image-archive $archive"
