# Flotilla. All that is needed is Go, make and a Go module proxy; 'make race' also needs a C compiler.

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT    ?= $(shell git rev-parse --short HEAD 2>/dev/null)
LDFLAGS   := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
BUF       := github.com/bufbuild/buf/cmd/buf@v1.75.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
TEST_TIMEOUT ?= 10m
RACE_TIMEOUT ?= 25m
# What chaos runs, and for how long each scenario breaks things.
SCENARIO  ?= all
TIME      ?= 20s
# How long fuzz-kafka attacks.
FUZZ_TIME ?= 10m
# How long sim runs random schedules, and how often it repeats one.
SIM_TIME  ?= 1m
RUNS      ?= 1
# Packages that a run is about; for instance: make test PKGS=./raftlog/...
PKGS      ?= ./...
# For bench, for instance ARGS='-flags "--record-bytes 100"'; for bench-peers ARGS=-quick (see scripts/benchpeers/README.md).
ARGS      ?=

.DEFAULT_GOAL := help
.PHONY: bench bench-peers memory help check-go build install demo chaos sim test race conformance conformance-kgo fuzz-kafka fmt vet lint proto proto-check ci clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check-go:
	@GO='$(GO)' ./scripts/check-go

build: check-go ## Build bin/flotilla, statically
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/flotilla ./cmd/flotilla

install: check-go ## Install flotilla into GOBIN
	CGO_ENABLED=0 $(GO) install -trimpath -ldflags '$(LDFLAGS)' ./cmd/flotilla

demo: build ## Three brokers, 20,000 events, a leader killed, everything checked; under a minute
	@$(GO) build -o bin/demo ./scripts/demo
	@./bin/demo -flotilla bin/flotilla

chaos: build ## Attack real brokers and judge the result; SCENARIO=kill-leader (or all, list), TIME=20s of faults each, SEED=, REPEAT=
	@$(GO) build -o bin/chaos ./scripts/chaos
	@./bin/chaos -flotilla bin/flotilla -scenario $(SCENARIO) -time $(TIME) $(if $(SEED),-seed $(SEED)) $(if $(REPEAT),-repeat $(REPEAT))

bench: build ## Measure three brokers, with CPU profiles of all in bin/profiles
	@$(GO) build -o bin/bench ./scripts/bench
	@./bin/bench -flotilla bin/flotilla -profiles bin/profiles $(ARGS)

bench-peers: build ## Measure Flotilla beside NATS JetStream; ARGS=-quick for a short run
	cd scripts/benchpeers && $(GO) build -o ../../bin/nats-server github.com/nats-io/nats-server/v2 && $(GO) build -o ../../bin/benchpeers .
	@./bin/benchpeers -flotilla bin/flotilla -nats bin/nats-server $(ARGS)

memory: build ## Show that brokers' memory stays flat under load, 2,000 connections and lagging consumers
	@$(GO) build -o bin/memory ./scripts/memory
	@./bin/memory -flotilla bin/flotilla $(ARGS)

sim: check-go ## Simulate whole clusters under random faults on a virtual clock; SIM_TIME=5m, SEED= or SIM=name repeats one, RUNS= times
	$(GO) test -count=1 -timeout 0 -v ./broker/brokertest/sim -run '^TestSchedules$$' $(if $(SEED)$(SIM),-sim.runs $(RUNS) $(if $(SEED),-sim.seed $(SEED)) $(if $(SIM),-sim.scenario $(SIM)),-sim.time $(SIM_TIME))

test: check-go ## Run all tests
	$(GO) test -timeout $(TEST_TIMEOUT) $(PKGS)

race: check-go ## Run all tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout $(RACE_TIMEOUT) $(PKGS)

conformance: build ## Drive a cluster with Kafka clients of five languages, which it sets up (CONFORMANCE_CACHE), and print what works
	./broker/kafka/conformance/setup
	cd broker/kafka/conformance && FLOTILLA_BINARY='$(CURDIR)/bin/flotilla' $(GO) test -count=1 -timeout 25m -v .

conformance-kgo: build ## Run franz-go's own tests against a cluster (RECORDS= for its larger ones); ARGS=-kafka-go: those of kafka-go
	cd broker/kafka/conformance && $(GO) run ./suites -flotilla '$(CURDIR)/bin/flotilla' $(if $(RECORDS),-records $(RECORDS)) $(ARGS)

fuzz-kafka: check-go ## Attack a broker's Kafka listener for FUZZ_TIME under the race detector; it must serve, and its memory stay flat
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 0 -v ./broker/kafka/kafkafuzz -soak $(FUZZ_TIME) $(if $(SEED),-soak-seed $(SEED))

fmt: check-go ## Format all Go files
	gofmt -w $$(git ls-files -co --exclude-standard '*.go' | grep -v '\.pb\.go$$')

vet: check-go ## Run go vet
	$(GO) vet $(PKGS)

lint: check-go ## Run staticcheck
	$(GO) run $(STATICCHECK) $(PKGS)

proto: check-go ## Generate the gRPC code from proto/
	cd proto && $(GO) run $(BUF) lint && $(GO) run $(BUF) generate

proto-check: check-go ## Check that the generated gRPC code is up to date
	@GO='$(GO)' BUF='$(BUF)' ./scripts/proto-check

ci: ## What CI runs: tests, format, vet, lint, race detector, generated code, demo
	./.ci/run

clean: ## Remove what was built
	rm -rf bin dist
