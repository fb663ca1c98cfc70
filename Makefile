# The programs, their tests and their packages. make alone lists the targets.

SHELL       := /bin/sh
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# The time of the commit: equal sources give equal binaries.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
LDFLAGS     := -s -w -X swarming/shared/version.version=$(VERSION) -X swarming/shared/version.date=$(SOURCE_DATE_EPOCH)
# Without inlining the agent is half a megabyte smaller, and its processor time,
# nine tenths of which is the kernel's, the same.
AGENT_GCFLAGS := all=-l
TESTFLAGS   ?=
FUZZTIME    ?= 60s
BENCHTIME   ?= 1s
TOOL        := go tool -modfile=build/tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help demo test build cross package bench lint fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: ## brokers, agents and a collector on this machine, with real pings; needs Go only; DEMO_SECONDS=30 ends it
	@go run ./build/demo

test: ## run all tests; on Debian, install first what they need (mosquitto, a JDK and Maven, …)
	@build/needs.sh
	go test -count=1 -timeout 15m $(TESTFLAGS) ./...

build: ## build both programs for this machine into dist/
	@mkdir -p dist
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -gcflags '$(AGENT_GCFLAGS)' -ldflags '$(LDFLAGS)' -o dist/ ./agent/cmd/swarming-agent
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o dist/ ./collector/cmd/swarming-collector

cross: export LDFLAGS := $(LDFLAGS)
cross: export AGENT_GCFLAGS := $(AGENT_GCFLAGS)
cross: ## build for every platform in build/platforms.txt into dist/
	@mkdir -p dist
	@build/platforms.sh build/cross.sh

package: ## make packages (.deb, .rpm, .ipk, .msi): not there yet
	@echo "make package: there are no packages yet; make build or make cross, then copy the program" >&2; exit 1

bench: ## print the figures of all benchmarks in one table (BENCHTIME=1s each)
	@go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./... | awk -f build/bench.awk

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l agent build collector shared); if [ -n "$$unformatted" ]; then echo "gofmt -w $$unformatted" >&2; exit 1; fi
	go vet ./...
	$(TOOL) staticcheck ./...

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@FUZZTIME=$(FUZZTIME) build/fuzz.sh

clean: ## remove what was built
	rm -rf dist
