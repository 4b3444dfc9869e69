# strake: `make run` shows a container, `make test` checks everything. `make help` lists the rest.
#
# Each target installs what it lacks (scripts/need): Debian packages and Go modules, nothing else.

SHELL := /bin/bash
export CGO_ENABLED := 0
PREFIX ?= /usr/local
BIN := bin
COMMIT ?= $(shell git describe --always --exclude '*' --dirty 2>/dev/null || echo unknown)
# Clients parse it as a number: that of the newest tag, or what comes before the first.
VERSION ?= $(patsubst v%,%,$(or $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null),0.1.0-dev+$(COMMIT)))
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# What runs for milliseconds is entered before the Go runtime (internal/early).
EARLY := $(LDFLAGS) -E strake/internal/early.entry
BASE := image/base/embed
ARCH := $(shell go env GOARCH 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help build run test check unit integration bench install uninstall clean generate

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: $(BASE)/base-$(ARCH).tar.gz ## build static binaries into ./bin
	@scripts/step "build strake, straked, strake-runtime, strake-lxc" go build -trimpath -ldflags "$(EARLY)" -ldflags "strake/cmd/straked=$(LDFLAGS)" -o $(BIN)/ ./cmd/strake ./cmd/straked ./cmd/strake-runtime ./cmd/strake-lxc

# The image that straked embeds is made by a module of its own, userland.
BASE_SOURCES := $(shell find userland -name '*.go' ! -name '*_test.go') userland/go.mod userland/go.sum
$(BASE)/base-$(ARCH).tar.gz: $(BASE_SOURCES)
	@scripts/step "build the embedded image strake/base" go -C userland run ./mkbase -o ../$(BASE) -arch $(ARCH)

run: ## build and show a container from the inside
	@scripts/need run
	@$(MAKE) --no-print-directory build
	@scripts/demo $(BIN)

test: ## check, unit tests with -race, integration tests
	@scripts/need test
	@$(MAKE) --no-print-directory build check unit integration

check: ## gofmt, vet, staticcheck, import rules, generated files
	@scripts/check

unit: ## unit tests with the race detector
	@scripts/unit

integration: ## tests of the built binaries
	@scripts/integration

bench: ## measure strake beside crun, runc and dockerd
	@scripts/need bench
	@$(MAKE) --no-print-directory build
	@bench/run $(BIN)

generate: ## rebuild generated files
	go generate ./...

install: build ## install below PREFIX (default /usr/local)
	@scripts/install "$(BIN)" "$(PREFIX)"

uninstall: ## remove what install and strake itself put on this host
	$(PREFIX)/bin/strake system uninstall

clean: ## remove what build made
	rm -rf $(BIN) $(BASE)/base-*.tar.gz
