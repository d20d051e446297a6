# Images: `server` (the default; also renders the gateway's configuration), `standalone` (server and gateway in one, for
# container platforms), `ui` (the web UI), `loadtest`, `train`.
#
# Without a GPU, install torch's CPU build from PyTorch's own index; PyPI's is a CUDA build:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu --tag visionserve:1.0.0 .
#
#   docker build --build-arg DEVICE=cpu --tag visionserve:1.0.0 .            as `make image`, without revision and version
#   docker build --target ui --tag visionserve-ui:1.0.0 .
#
#   base -> installer -> installed-cpu | installed-gpu -> archive   builds the archive; its gates test the packages
#                                                      -> packages  without files that serving never loads
#   base + packages + archive -> server            base + their own packages -> ui, loadtest
#   server + nginx -> standalone
#   installed-gpu + training's packages -> train   (the training job in Kubernetes)

# Python 3.11: the published figures were measured with it, and tests/container runs it. The others of pyproject.toml
# are `--build-arg BASE=python:3.13-slim-trixie` and the like. Pin it for a release:
#   --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm
# cpu or gpu: the archive's profile, and which packages are installed.
ARG DEVICE=cpu

FROM ${BASE} AS base
# Python's output must not be lost in a buffer when a container is killed.
ENV PYTHONUNBUFFERED=1 \
    PATH=/opt/venv/bin:$PATH

FROM base AS installer
# binutils: to inspect libraries and to link one; it stays in this stage. Any version works, and Debian has only one.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The system's certificates, so that a custom BASE can add those of a private package index.
ENV UV_LINK_MODE=copy \
    UV_SYSTEM_CERTS=true \
    UV_PYTHON=/opt/venv/bin/python
COPY requirements/uv.txt requirements/
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --require-hashes --requirement requirements/uv.txt \
    && python3 -m venv --without-pip /opt/venv
COPY docker/filter_requirements.py docker/
COPY requirements/*.txt requirements/

# Without a GPU: torch's CPU build from TORCH_INDEX; without that index PyPI's CUDA build, whose CUDA libraries are
# replaced by stubs (docker/cuda_stubs.py).
FROM installer AS installed-cpu
# An index with torch's CPU build: https://download.pytorch.org/whl/cpu. Installed from there by version, because the
# lock file has PyPI's hashes only.
ARG TORCH_INDEX=
COPY docker/cuda_stubs.py docker/
RUN --mount=type=cache,target=/root/.cache/uv \
    if [ -n "$TORCH_INDEX" ]; then without=--without-torch; else without=; fi \
    && python3 docker/filter_requirements.py requirements/run.txt --device cpu $without > cpu.txt \
    && /opt/uv/bin/uv pip install --no-deps --require-hashes --requirement cpu.txt \
    && if [ -n "$TORCH_INDEX" ]; then \
        python3 docker/filter_requirements.py requirements/run.txt --device cpu --only-torch > torch.txt \
        && /opt/uv/bin/uv pip install --no-deps --index-url "$TORCH_INDEX" --requirement torch.txt; \
    fi \
    && python3 docker/cuda_stubs.py /opt/venv/lib/python3.*/site-packages

FROM installer AS installed-gpu
RUN --mount=type=cache,target=/root/.cache/uv \
    python3 docker/filter_requirements.py requirements/run.txt --device gpu > gpu.txt \
    && /opt/uv/bin/uv pip install --no-deps --require-hashes --requirement gpu.txt

# hadolint ignore=DL3006
FROM installed-${DEVICE} AS archive
ARG DEVICE
WORKDIR /build
RUN --mount=type=cache,target=/root/.cache/uv \
    python3 docker/filter_requirements.py requirements/serve.txt --device "$DEVICE" --without-torch > archive.txt \
    && /opt/uv/bin/uv pip install --no-deps --require-hashes --requirement archive.txt
COPY visionserve visionserve
COPY handlers handlers
COPY training training
# Here, so that another model does not install the packages again.
ARG MODEL=flowers
COPY model_store/${MODEL} model_store/${MODEL}
RUN mkdir /models && python -m training package --bundle "model_store/$MODEL" --profile "$DEVICE" --output "/models/$MODEL.mar"

# hadolint ignore=DL3006
FROM installed-${DEVICE} AS packages
ARG DEVICE
WORKDIR /build
COPY docker docker
COPY visionserve visionserve
COPY model_store/flowers/card.json model_store/flowers/model.int8.onnx bundle/
RUN python3 docker/prune_packages.py /opt/venv/lib/python3.*/site-packages --device "$DEVICE" \
    && PYTHONPATH=. python docker/precompile.py bundle
# Last: Java's class data is valid for exactly these files only.
COPY config.properties log4j2.xml metrics.yaml ./
COPY launcher launcher
RUN python -m launcher prepare

FROM installer AS page
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install --require-hashes --compile-bytecode --requirement requirements/ui.txt

# The web UI: an HTTP client of the gateway that needs none of the packages above.
FROM base AS ui
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="visionserve-ui" \
      org.opencontainers.image.description="Web UI of visionserve: predictions and a heatmap for an image" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
COPY --from=page /opt/venv /opt/venv
WORKDIR /app
COPY visionserve visionserve
COPY ui ui
# Owned by the user, so that a volume created from it is too.
RUN install --directory --owner=10001 --group=10001 /var/lib/visionserve
USER 10001:10001
EXPOSE 8501
ENV HOME=/tmp
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "streamlit", "run", "ui/page.py", "--server.address=0.0.0.0"]

FROM installer AS generator
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install --require-hashes --compile-bytecode --requirement requirements/loadtest.txt

# Locust with visionserve's workload: sends generated images to a given address.
FROM base AS loadtest
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="visionserve-loadtest" \
      org.opencontainers.image.description="Locust with visionserve's workload of images" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
COPY --from=generator /opt/venv /opt/venv
WORKDIR /app
COPY loadtests loadtests
USER 10001:10001
# matplotlib and Locust need a home folder.
ENV HOME=/tmp
ENTRYPOINT ["locust", "--locustfile", "loadtests/locustfile.py"]

FROM installed-gpu AS train
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="visionserve-train" \
      org.opencontainers.image.description="Training, evaluation and packaging of visionserve's models" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install --no-deps --require-hashes --requirement requirements/train.txt
WORKDIR /app
COPY visionserve visionserve
COPY handlers handlers
COPY training training
USER 10001:10001
ENV HOME=/tmp
ENTRYPOINT ["python", "-m", "training"]

FROM base AS service
ARG DEVICE
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="visionserve" \
      org.opencontainers.image.description="Image classification over HTTP on TorchServe ($DEVICE)" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY config.properties log4j2.xml metrics.yaml ./
COPY docs docs
COPY visionserve visionserve
COPY launcher launcher
COPY gateway gateway
COPY --from=archive /models /models
# The gateway's configuration is written here; owned by the user, so that a volume created from it is too.
RUN install --directory --owner=10001 --group=10001 /run/gateway
# Has no account in the image; the owner of mounted volumes may be set to this number.
USER 10001:10001
# For NVIDIA's container runtime; TorchServe counts GPUs with nvidia-smi (utility). Without that runtime they are unused.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HOME=/tmp \
    VISIONSERVE_STATUS_HOST=::

# Server and gateway in one container: one port, PORT, at all addresses; docs/platforms.md.
FROM service AS standalone
USER 0:0
# Debian has only one version of it.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends nginx-light && rm -rf /var/lib/apt/lists/*
USER 10001:10001
# TorchServe's ports make room for PORT. Platforms give ten seconds from SIGTERM to SIGKILL: what is in flight has six of them.
# Only the platform's own proxy, in a private network, is believed about a client's address.
ENV PORT=8080 \
    VISIONSERVE_PORT_OFFSET=10000 \
    VISIONSERVE_STATUS_HOST=127.0.0.1 \
    VISIONSERVE_DRAIN_TIMEOUT=7 \
    GATEWAY_DRAIN_TIMEOUT_S=6 \
    GATEWAY_UPLOADS=128 \
    GATEWAY_UPLOADS_PER_CLIENT=64 \
    GATEWAY_TRUSTED_PROXIES="10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 fc00::/7 fe80::/10"
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:18083/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "launcher", "serve", "--model-store", "/models", "--gateway"]

# The last stage is what is built by default.
FROM service AS server
# The status server, at all of IPv6 and IPv4; without IPv6 at IPv4. TorchServe is reachable inside the container only; the gateway in front of it is another container.
EXPOSE 8083
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8083/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "launcher", "serve", "--model-store", "/models"]
