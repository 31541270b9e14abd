# One set of flags for everything, so that build, test and lint share one build
# cache; nothing needs a C compiler.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -buildvcs=false

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
MAINS     := $(patsubst cmd/%/main.go,bin/%,$(wildcard cmd/*/main.go))
LINTER    := bin/tools/golangci-lint
HELM      := bin/tools/helm
FUZZTIME  ?= 10s
BENCH     ?= .
BENCHTIME ?= 1s
COUNT     ?= 1
PACKAGES  ?= ./...
FLOWS     ?= 2000000
TUPLES    ?= 2000
STORE     ?=
BUILDER   ?= docker
BASE      ?= scratch
IMAGE     ?= weir-policy/weir-controller:$(VERSION)
AGENT     ?= weir-policy/weir-agent:$(VERSION)

.PHONY: help all build test test-cluster test-clickhouse test-duckdb test-kernel test-agent chart image image-agent lint format golden fuzz bench bench-flows bench-kernel demo demo-node clean $(MAINS)

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

all: build lint test ## what to run before you push

build: $(MAINS) ## build the programs into bin/

$(MAINS): bin/%:
	go build -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./cmd/$*

test: ## run the tests
	go test $(PACKAGES)

# The first time it builds the API server, which takes some ten minutes.
test-cluster: $(HELM) ## run the tests that want a real Kubernetes API server
	assets=$$(tools/control-plane/build.sh) && KUBEBUILDER_ASSETS=$$assets WEIR_HELM=$(abspath $(HELM)) \
		go test -count=1 -run Real ./internal/captures ./internal/cluster ./internal/live ./webhook/cert ./cmd/weir-agent ./cmd/weir-controller ./charts

test-agent: ## run the agent beside a real API server and a kernel, as root or in a user namespace
	assets=$$(tools/control-plane/build.sh) && KUBEBUILDER_ASSETS=$$assets tools/kernel/run.sh go test -count=1 -run RealCluster ./cmd/weir-agent

# Debian's servers want root to be installed, the current engine wants npm; what
# cannot be had is left out, and said.
test-clickhouse: ## run the tests that want a real ClickHouse
	servers=; engine=; \
	if tools/clickhouse/servers.sh install; then servers=1; else echo "not tried with Debian's ClickHouse servers"; fi; \
	engine=$$(tools/clickhouse/engine.sh) || echo "not tried with the current ClickHouse engine"; \
	WEIR_CLICKHOUSE=$$servers WEIR_CHDB=$$engine go test -count=1 -timeout 20m -run Real ./simulator/clickhouse ./cmd/weir

# Wants a C++ compiler and 600 MB of modules.
test-duckdb: ## run the tests that want DuckDB
	if engine=$$(tools/duckdb/build.sh); then WEIR_DUCKDB=$$engine go test -count=1 -run Real ./simulator/flowstore; else echo "not tried with DuckDB"; fi

# Debian's nft is installed where it is missing, which wants root.
test-kernel: ## run the tests that want a kernel, as root or in a user namespace
	tools/kernel/tshark.sh || echo "not tried with tshark"
	tools/kernel/run.sh go test -count=1 -run Real ./enforcer/... ./cmd/weir-agent

chart: $(HELM) bin/weir ## lint the chart, render it and look at what comes of it
	$(HELM) lint --strict --quiet charts/weir
	bin/tools/helm-unittest charts/weir
	$(HELM) template weir charts/weir --namespace weir-system | bin/weir check -
	WEIR_HELM=$(abspath $(HELM)) go test -count=1 ./charts

lint: $(LINTER) ## run the linters
	$(LINTER) run

format: $(LINTER) ## format the source
	$(LINTER) fmt

# Built once and kept: the linter takes a minute or two of processor time.
$(LINTER): tools/go.mod tools/go.sum
	go -C tools build -ldflags "-s -w" -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# Helm takes the version of Kubernetes that it renders for from how it is built.
$(HELM): tools/helm/go.mod tools/helm/go.sum
	kubernetes=$$(go -C tools/helm list -m -f '{{.Version}}' k8s.io/client-go) && minor=$${kubernetes#v0.} && \
	go -C tools/helm build -o ../../bin/tools/ -ldflags "-s -w \
		$(foreach package,chartutil lint/rules,-X helm.sh/helm/v3/pkg/$(package).k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$(package).k8sVersionMinor=$${minor%%.*})" tool
	touch $@

golden: ## rewrite expected outputs; read that diff as code
	WEIR_GOLDEN=1 go test -count=1 $(PACKAGES)

# A package's targets are listed before the line that names the package.
fuzz: ## run each fuzz target for FUZZTIME (10s, or 1000x)
	@go test -list '^Fuzz' $(PACKAGES) | \
	awk '/^Fuzz/ { target[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, target[i]; n = 0 }' | \
	while read -r package target; do \
		echo "$$package $$target"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	done

bench: ## run the benchmarks that match BENCH, COUNT times for BENCHTIME each
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -count $(COUNT) -benchmem $(PACKAGES)

# STORE names a folder in which the stores are kept for the next time.
bench-flows: ## measure the store, others' Parquet and replays with FLOWS flows, and a month of TUPLES tuples
	@command -v clickhouse >/dev/null || echo "there is no command clickhouse: nothing is compared with it"
	duckdb=$$(command -v duckdb || tools/duckdb/build.sh) || echo "there is no DuckDB: nothing is compared with it"; \
	WEIR_DUCKDB=$$duckdb go test -run '^$$' -bench 'Import|CountTuples|TuplesOf|Engine' -benchtime 3x -count $(COUNT) -cpu 1 -timeout 0 ./simulator/flowstore \
		-args -rows $(FLOWS) -tuples $(TUPLES) $(if $(STORE),-store $(abspath $(STORE))) && \
	WEIR_DUCKDB=$$duckdb go test -run '^$$' -bench Table -benchtime 1x -count $(COUNT) -cpu 1 -timeout 0 ./simulator/flowlog -args -rows $(FLOWS)
	go test -run '^$$' -bench Replay -benchtime 1x -count $(COUNT) -timeout 0 ./cmd/weir -args -flows $(FLOWS) $(if $(STORE),-store $(abspath $(STORE)/replay))

bench-kernel: ## measure loads, changes and recording in the kernel
	tools/kernel/run.sh go test -run '^$$' -bench 'Real|Recorder' -benchtime 3x -count $(COUNT) -timeout 0 ./enforcer/kernel ./enforcer/record

# Another builder than docker, and its base: make image BUILDER=podman BASE=…
image: bin/weir-controller ## build the image of weir-controller, named IMAGE
	$(BUILDER) build --build-arg BASE=$(BASE) --tag $(IMAGE) --file Dockerfile bin

image-agent: bin/weir-agent ## build the image of weir-agent, named AGENT
	$(BUILDER) build --build-arg BASE=$(BASE) --tag $(AGENT) --file Dockerfile.agent bin

demo: build ## preview a pull request of the example application
	examples/shop/demo.sh

demo-node: build ## guard a small network of namespaces with weir-agent, as root
	tools/kernel/run.sh examples/node/demo.sh

clean: ## remove what was built
	rm -rf bin dist
