# visionserve: one target per task, in the order of a model's life. `make` prints them.

MODEL ?= flowers
PROFILE ?= auto
SLO_MS ?= 100
PYTHON ?= python3
BIN := .venv/bin
DAHLIA = .venv/lib/python3*/site-packages/sklearn/datasets/images/flower.jpg
BUNDLE := model_store/$(MODEL)
ARCHIVE := $(BUNDLE).mar
SETS := .venv/.serve .venv/.ui .venv/.train .venv/.docs .venv/.notebooks .venv/.dev
DEVICE ?= cpu
IMAGES ?= server ui
URL ?= http://127.0.0.1:8000
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Docker 20.10 uses its old builder otherwise, which does not know RUN --mount.
BUILD = DOCKER_BUILDKIT=1 docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD)
export PYTHONWARNINGS ?= ignore::FutureWarning

.DEFAULT_GOAL := help
.PHONY: help setup serve gateway release rollback predict ui archive image up monitoring down smoke manifests dashboard train pipeline evaluate evaluate-live drift loadtest bench soak tune restart-test screenshots test test-unit coverage cluster-images test-cluster docs notebooks hooks lint format lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.serve ## create .venv with the packages for serving (other targets do this on their own)

serve: .venv/.serve ## install dependencies, build the archive, start the server, run one test prediction
	@$(MAKE) --no-print-directory archive
	@exec $(BIN)/python -m launcher serve --model $(MODEL) $(ARGS)

gateway: .venv/.serve ## start the nginx gateway in front of the running server: make gateway [ARGS="--port 8000"]
	@exec $(BIN)/python -m gateway run --releases-file model_store/releases.json $(ARGS)

release: .venv/.serve ## choose the version that answers: make release MODEL=mine TO=1.1 [SHARE=10 | SHADOW=100]; without TO: say it; ARGS=--help
	@$(BIN)/python -m launcher release --model $(MODEL) $(TO:%=--version %) $(SHARE:%=--share %) $(SHADOW:%=--shadow %) $(ARGS)

rollback: .venv/.serve ## undo the last release: make rollback MODEL=mine
	@$(BIN)/python -m launcher release --model $(MODEL) --back $(ARGS)

predict: .venv/.serve ## send an image to the running server, by default a test image of the model: make predict [FILE=photo.jpg]
	@$(BIN)/visionserve predict --name $(MODEL) $(if $(FILE),"$(FILE)",$(or $(wildcard model_store/.samples/$(MODEL).jpg),$(wildcard $(DAHLIA)))) $(ARGS)

ui: .venv/.serve .venv/.ui ## start the web UI at http://127.0.0.1:8501; needs the running server
	@UI_SAMPLES="$${UI_SAMPLES-model_store/.samples}" exec $(BIN)/python -m ui $(ARGS)

archive: .venv/.serve ## build model_store/MODEL.mar: make archive [MODEL=flowers] [PROFILE=auto|cpu|gpu] [KEEP=1: another version stays beside it]
	@$(BIN)/python -m training package --if-changed $(KEEP:%=--keep) --bundle $(BUNDLE) --profile $(PROFILE) --output $(ARCHIVE)

image: ## build container images: make image [IMAGES="server ui standalone loadtest train"] [MODEL=flowers] [DEVICE=cpu|gpu] [ARGS="--network host"]
	$(foreach image,$(IMAGES),$(BUILD) --target $(image) --build-arg DEVICE=$(DEVICE) --build-arg MODEL=$(MODEL) \
		--tag visionserve$(patsubst %,-%,$(filter-out server,$(image))):$(VERSION)$(if $(filter server standalone,$(image)),$(filter -gpu,-$(DEVICE))) $(ARGS) . &&) true

up: ## start server and gateway in containers and wait until they are ready: make up [ARGS="--build"]
	docker compose up --detach --wait $(ARGS)
	@echo "Serving at http://$$(docker compose port pod 8000); make smoke asks it, make down stops it."

monitoring: ## the same with Prometheus :9090, Alertmanager :9093 and Grafana :3000, published on this machine only
	docker compose --profile monitoring up --detach --wait $(ARGS)

down: ## stop the containers, the gateway first, so that no request is lost
	docker compose --profile '*' down $(ARGS)

smoke: ## smoke-test a deployed service: make smoke [URL=http://127.0.0.1:8000] [ARGS=--public]
	@scripts/smoke_test.sh $(ARGS) $(URL)

manifests: .venv/.dev ## render the generated manifests of k8s/ and validate every variant against three Kubernetes versions
	$(BIN)/python scripts/render_manifests.py
	$(BIN)/python -m pytest tests/contract/test_k8s.py tests/contract/test_k8s_names.py tests/contract/test_scanners.py $(ARGS)

dashboard: .venv/.serve ## regenerate the Grafana dashboard and MODEL's drift reference
	$(BIN)/python -m monitoring dashboard
	$(BIN)/python -m monitoring reference --bundle $(BUNDLE)

train: .venv/.train ## train, evaluate, export, quantize, bundle: make train [RECIPE=training/recipes/flowers102.yaml]
	$(BIN)/python -m training all --config $(or $(RECIPE),training/recipes/flowers102.yaml) $(ARGS)

pipeline: .venv/.train ## the same as DVC stages; a stage runs again only when its inputs have changed (params.yaml, dvc.yaml)
	@test "$$(sed -n 's/^root: *\([^ ]*\).*/\1/p' params.yaml)" != .cache/flowers-102 || test -e .cache/flowers-102/setid.mat || \
		$(BIN)/python -m training data manifest --data.source flowers102
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro $(ARGS)

evaluate: .venv/.train ## evaluate the shipped bundle as it is served: make evaluate ARGS="--data.root DIR"
	$(BIN)/python -m training evaluate --bundle $(BUNDLE) $(ARGS)

evaluate-live: .venv/.train ## measure online accuracy of the running server on labelled images: make evaluate-live IMAGES=DIR [ARGS="--compare"]
	@$(BIN)/python -m monitoring evaluate --images $(or $(IMAGES),images) --model $(MODEL) --bundle $(BUNDLE) $(ARGS)

drift: .venv/.train ## compare recent requests with the reference: make drift [ARGS="--window 50"]
	@$(BIN)/python -m monitoring drift check --bundle $(BUNDLE) $(or $(IMAGES:%=--images %),--log runs/live/log.jsonl) $(ARGS)

loadtest: .venv/.dev ## load-test the running server and write a report: make loadtest [ARGS="--shape steps --hold 240"]
	@$(BIN)/python -m loadtests run --url http://127.0.0.1:8080/predictions/$(MODEL) $(ARGS)

bench: .venv/.dev ## benchmark visionserve beside stock TorchServe and other servers: make bench [PEERS=mosec,fastapi] [ARGS=--quick]
	@$(MAKE) --no-print-directory archive
	@$(BIN)/python -m loadtests benchmark --bundle $(BUNDLE) --peers "$(PEERS)" $(ARGS)

soak: .venv/.dev ## soak test, check that memory stays flat over 100,000 requests: make soak [ARGS="--images DIR"]
	@$(MAKE) --no-print-directory archive
	@$(BIN)/python -m loadtests soak $(ARGS)

tune: .venv/.dev ## find the settings with the highest rate within a latency target on this machine: make tune [SLO_MS=100]
	@$(MAKE) --no-print-directory archive
	@$(BIN)/python -m loadtests tune --bundle $(BUNDLE) --slo-p99-ms $(SLO_MS) $(ARGS)

restart-test: .venv/.dev ## count requests lost in restarts behind a load balancer, beside stock TorchServe: make restart-test [ARGS=--help]
	@$(MAKE) --no-print-directory archive
	@$(BIN)/python -m loadtests restarts $(ARGS)

screenshots: .venv/.dev ## regenerate the README's images from the running server
	@$(BIN)/python -m scripts.screenshots $(ARGS)

test: .venv/.dev ## run the test suite: unit, contract, and end-to-end tests against a real TorchServe
	$(BIN)/python -m pytest $(ARGS)

test-unit: .venv/.dev ## run the tests that start no server
	$(BIN)/python -m pytest -m "not e2e" $(ARGS)

coverage: .venv/.dev ## the same with the share of lines and branches that they run; below the floor in pyproject.toml it fails
	$(BIN)/python -m pytest -m "not e2e" --cov --cov-report=term --cov-report=xml:.cache/coverage.xml $(ARGS)

docs: .venv/.docs ## build the documentation site into .cache/site; a link that leads nowhere fails it
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs .cache/site $(ARGS)
	@echo ".cache/site/index.html"

notebooks: .venv/.notebooks ## run docs/notebooks into .cache/notebooks: make notebooks [IMAGES=DIR] [NETWORK=NAME SIZE=224] [BUNDLE=model_store/flowers]
	@mkdir -p .cache/notebooks
	IMAGES='$(IMAGES:%=$(abspath $(IMAGES)))' BUNDLE='$(if $(filter command%,$(origin BUNDLE)),$(abspath $(BUNDLE)))' NETWORK='$(NETWORK)' SIZE='$(SIZE)' \
		$(BIN)/jupyter execute --timeout=-1 --output='../../.cache/notebooks/{notebook_name}' docs/notebooks/*.ipynb

hooks: .venv/.dev ## have git run lint before every commit and test-unit before every push (pre-commit)
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type pre-push

cluster-images: ## save the images of `make image` and those that only tests need for a cluster: .cache/cluster-images.tar
	@scripts/cluster_images.sh $(VERSION) .cache/cluster-images.tar $(ARGS)

test-cluster: .venv/.dev ## run the tests on the cluster that KUBECONFIG names, which must be for tests: make test-cluster [ARGS="-k canary"]
	VISIONSERVE_TEST_CLUSTER=1 $(BIN)/python -m pytest tests/cluster $(ARGS)

lint: .venv/.dev ## format check, lint, type check, import rules
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev ## format the code and apply safe lint fixes
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: .venv/.dev ## update the hash-locked requirements from pyproject.toml
	$(BIN)/python scripts/lock.py

clean: ## remove build products: archives, caches, .venv (runs/ stays)
	rm -rf .venv .cache .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache logs model_store/*.mar

# Former names print the new one.
RENAMED := door=gateway endurance=soak live=evaluate-live picture=screenshots restarts=restart-test
$(foreach pair,$(RENAMED),$(firstword $(subst =, ,$(pair)))):
	@echo "make $@ is now: make $(patsubst $@=%,%,$(filter $@=%,$(RENAMED)))" >&2; exit 2

$(SETS): .venv/.%: requirements/%.txt scripts/install.py
	@TORCH_INDEX='$(TORCH_INDEX)' $(PYTHON) scripts/install.py $*
	@touch $@
