# Two commands: make run (the main job, live) and make test (everything that must
# pass). Both need Linux, Go, git, make and root.

export CGO_ENABLED := 0
GO      ?= go
VERSION := v1.37.2
STRIP   := -trimpath -ldflags "-s -w"
ASSETS  := cmd/sampan/assets

.PHONY: all run test lint bench clean FORCE

all: bin/sampan examples/hello/bin/hello

# The one binary. It carries two programs: the keeper, which parents containers,
# and kubectl, compressed.
bin/sampan: $(ASSETS)/keeper $(ASSETS)/kubectl.zst FORCE
	$(GO) build $(STRIP) -o $@ ./cmd/sampan

$(ASSETS)/keeper: FORCE
	$(GO) build $(STRIP) -o $@ ./cmd/keeper

# kubectl changes only with its version: it is built when go.mod changes.
$(ASSETS)/kubectl.zst: go.mod cmd/kubectl/main.go
	$(GO) build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$(VERSION)" -o bin/kubectl ./cmd/kubectl
	$(GO) run ./cmd/kubectl/pack bin/kubectl $@

examples/hello/bin/hello: examples/hello/main.go go.mod
	$(GO) build $(STRIP) -o $@ ./examples/hello

run: all
	examples/hello/run.sh $(ARGS)

test: all
	$(GO) vet ./...
	$(GO) test -p 2 -timeout 20m ./...

lint:
	test/lint.sh

bench: all
	$(GO) run ./test/bench

clean:
	rm -rf bin $(ASSETS)/keeper $(ASSETS)/kubectl.zst examples/hello/bin
