# visionserve: every verb of its life. `make` prints them.

MODEL ?= flowers
PROFILE ?= auto
SLO_MS ?= 100
PYTHON ?= python3
BIN := .venv/bin
DAHLIA = .venv/lib/python3*/site-packages/sklearn/datasets/images/flower.jpg
BUNDLE := model_store/$(MODEL)
ARCHIVE := $(BUNDLE).mar
PACKED := $(wildcard handlers/*.py visionserve/*.py training/export/onnx.py training/export/package.py training/export/gates.py training/golden.py)
SETS := .venv/.serve .venv/.ui .venv/.train .venv/.dev
DEVICE ?= cpu
URL ?= http://127.0.0.1:8000
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BUILD = docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD)
export PYTHONWARNINGS ?= ignore::FutureWarning

.DEFAULT_GOAL := help
.PHONY: help setup serve gateway predict ui archive image up monitoring down smoke manifests dashboard train pipeline evaluate test test-unit live drift loadtest bench endurance restarts tune picture lint format lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.serve ## make .venv with what serving needs (the other verbs do it by themselves)

serve: .venv/.serve ## build the archive, start TorchServe, prove one answer, stay in the foreground
	@$(MAKE) --no-print-directory archive
	@exec $(BIN)/python -m launcher serve --model $(MODEL) $(ARGS)

gateway: .venv/.serve ## nginx in front of the running service, as a client meets it: make gateway [ARGS="--port 8000"]
	@exec $(BIN)/python -m gateway run $(ARGS)

predict: .venv/.serve ## send a photograph to the running service: make predict FILE=photo.jpg
	@$(BIN)/visionserve predict --name $(MODEL) $(or $(FILE),$(wildcard $(DAHLIA))) $(ARGS)

ui: .venv/.serve .venv/.ui ## the page for people, http://127.0.0.1:8501, beside `make serve`
	@exec $(BIN)/python -m streamlit run ui/page.py $(ARGS)

archive: $(ARCHIVE) ## pack model_store/MODEL into MODEL.mar: make archive [MODEL=flowers] [PROFILE=auto|cpu|gpu]

$(ARCHIVE): .venv/.serve .venv/.profile-$(PROFILE) $(wildcard $(BUNDLE)/*.json $(BUNDLE)/*.yaml $(BUNDLE)/*.onnx $(BUNDLE)/*.safetensors) $(PACKED)
	@$(BIN)/python -m training package --bundle $(BUNDLE) --profile $(PROFILE) --output $@

image: ## build the images: make image [DEVICE=cpu|gpu] [ARGS="--network host"]
	$(BUILD) --build-arg DEVICE=$(DEVICE) --tag visionserve:$(VERSION)$(if $(filter gpu,$(DEVICE)),-gpu) $(ARGS) .
	$(BUILD) --target ui --tag visionserve-ui:$(VERSION) $(ARGS) .

up: ## start server and gateway in containers, wait until they are ready: make up [ARGS="--build"]
	docker compose up --detach --wait $(ARGS)
	@echo "Serving at http://$$(docker compose port pod 8000); make smoke asks it, make down stops it."

monitoring: ## the same with Prometheus :9090, Alertmanager :9093 and Grafana :3000, on this machine only
	docker compose --profile monitoring up --detach --wait $(ARGS)

down: ## stop them: the gateway first, then the server, nothing lost
	docker compose --profile '*' down $(ARGS)

smoke: ## ask a deployed service what its users will ask: make smoke [URL=http://127.0.0.1:8000]
	@scripts/smoke_test.sh $(URL)

manifests: .venv/.dev ## write the manifests of k8s/ that are made, check every variant on three versions of Kubernetes
	$(BIN)/python scripts/render_manifests.py
	$(BIN)/python -m pytest tests/contract/test_k8s.py tests/contract/test_k8s_names.py tests/contract/test_scanners.py $(ARGS)

dashboard: .venv/.serve ## write the Grafana dashboard and the drift reference of MODEL anew
	$(BIN)/python -m monitoring.dashboard.render
	$(BIN)/python -m monitoring.reference --bundle $(BUNDLE)

train: .venv/.train ## train, evaluate, export, quantize, bundle: make train [RECIPE=training/recipes/flowers102.yaml]
	$(BIN)/python -m training all --config $(or $(RECIPE),training/recipes/flowers102.yaml) $(ARGS)

pipeline: .venv/.train ## the same in steps that run again only when what they need has changed (params.yaml, dvc.yaml)
	@test "$$(sed -n 's/^root: *\([^ ]*\).*/\1/p' params.yaml)" != .cache/flowers-102 || test -e .cache/flowers-102/setid.mat || \
		$(BIN)/python -m training data manifest --data.source flowers102
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro $(ARGS)

evaluate: .venv/.train ## evaluate the shipped bundle as it is served: make evaluate ARGS="--data.root DIR"
	$(BIN)/python -m training evaluate --bundle $(BUNDLE) $(ARGS)

live: .venv/.train ## is the running service still right? make live IMAGES=DIR [ARGS="--compare"]
	@$(BIN)/python -m monitoring.online --images $(or $(IMAGES),photographs) --model $(MODEL) --bundle $(BUNDLE) $(ARGS)

drift: .venv/.train ## does what came in lately still look as it should? make drift [ARGS="--window 50"]
	@$(BIN)/python -m monitoring.drift check --bundle $(BUNDLE) $(or $(IMAGES:%=--images %),--log runs/live/log.jsonl) $(ARGS)

loadtest: .venv/.dev ## load the running service, judge it, report: make loadtest [ARGS="--shape steps --hold 240"]
	@$(BIN)/python -m loadtests run --url http://127.0.0.1:8080/predictions/$(MODEL) $(ARGS)

bench: .venv/.dev ## measure ours beside stock TorchServe and the ceilings: make bench [PEERS=mosec,fastapi] [ARGS=--quick]
	@$(MAKE) --no-print-directory archive
	@$(BIN)/python -m loadtests.benchmark --bundle $(BUNDLE) --peers "$(PEERS)" $(ARGS)

endurance: .venv/.dev ## is memory flat over 100,000 requests? make endurance [ARGS="--photos DIR"]
	@$(MAKE) --no-print-directory archive
	@$(BIN)/python -m loadtests.soak $(ARGS)

tune: .venv/.dev ## find the settings that hold the highest rate here: make tune [SLO_MS=100]
	@$(MAKE) --no-print-directory archive
	@$(BIN)/python -m loadtests.tune --bundle $(BUNDLE) --slo-p99-ms $(SLO_MS) $(ARGS)

restarts: .venv/.dev ## count what restarts lose behind a load balancer, ours beside stock TorchServe: make restarts [ARGS=--help]
	@$(MAKE) --no-print-directory archive
	@$(BIN)/python -m loadtests.restarts $(ARGS)

picture: .venv/.dev ## draw the README's pictures from the running service
	@$(BIN)/python -m scripts.draw_figure $(ARGS)
	@$(BIN)/python -m scripts.screenshots

test: .venv/.dev ## all the tests: unit, contract, and end to end against a real TorchServe
	$(BIN)/python -m pytest $(ARGS)

test-unit: .venv/.dev ## the tests that start no server
	$(BIN)/python -m pytest -m "not e2e" $(ARGS)

lint: .venv/.dev ## formatting, lint, types and who may import whom
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev ## put the code into its form
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: .venv/.dev ## renew the hash-locked requirements from pyproject.toml
	$(BIN)/python scripts/lock.py

clean: ## remove what was built: archives, caches, .venv (runs/ stays)
	rm -rf .venv .cache .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache logs model_store/*.mar

$(SETS): .venv/.%: requirements/%.txt scripts/install.py
	@$(PYTHON) scripts/install.py $*
	@touch $@

# Another profile than last time makes the archive out of date.
.venv/.profile-$(PROFILE): | .venv/.serve
	@rm -f .venv/.profile-* && touch $@
