# Two commands: make run (the main job, live) and make test (everything that must
# pass). Both need Linux, Go, git, make and root.

export CGO_ENABLED := 0
GO      ?= go
VERSION := v1.37.2
STRIP   := -trimpath -ldflags "-s -w"
# Where the kernel enters sampan: see cmd/sampan/shortcut. And where the OCI runtime.
AMD64   := $(filter amd64,$(shell $(GO) env GOARCH))
ENTRY   := $(if $(AMD64),-E github.com/sampan-dev/sampan/cmd/sampan/shortcut.entry)
OCIENTRY := $(if $(AMD64),-E main.entry)
ASSETS  := cmd/sampan/assets
OCI     := cmd/sampan/shortcut/assets/oci

.PHONY: all run test fuzz lint bench conformance clean FORCE

all: bin/sampan examples/hello/bin/hello

# The one binary. It carries three programs: the keeper, which parents containers,
# the OCI runtime's command line, and kubectl, compressed.
bin/sampan: $(ASSETS)/keeper $(OCI) $(ASSETS)/kubectl.zst FORCE
	$(GO) build -trimpath -ldflags "-s -w $(ENTRY)" -o $@ ./cmd/sampan

$(ASSETS)/keeper: FORCE
	$(GO) build $(STRIP) -o $@ ./cmd/keeper

# The command line carries a keeper too.
$(OCI): $(ASSETS)/keeper FORCE
	cp $(ASSETS)/keeper cmd/oci/assets/keeper
	$(GO) build -trimpath -ldflags "-s -w $(OCIENTRY)" -o $@ ./cmd/oci

# kubectl changes only with its version: it is built when go.mod changes. client-go has
# a version of its own, which is what kubectl calls itself in its requests.
$(ASSETS)/kubectl.zst: go.mod cmd/kubectl/main.go
	$(GO) build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$(VERSION) \
		-X k8s.io/client-go/pkg/version.gitVersion=$(VERSION) -X k8s.io/client-go/pkg/version.gitCommit=" -o bin/kubectl ./cmd/kubectl
	$(GO) run ./cmd/kubectl/pack bin/kubectl $@

examples/hello/bin/hello: examples/hello/main.go go.mod
	$(GO) build $(STRIP) -o $@ ./examples/hello

# Helm, for one story: a user of the cluster that nobody here wrote.
bin/helm: test/helm/go.mod
	cd test/helm && $(GO) build -trimpath -ldflags "-s -w" -o ../../bin/helm helm.sh/helm/v3/cmd/helm

run: all
	examples/hello/run.sh $(ARGS)

test: all bin/helm
	$(GO) vet ./...
	GO="$(GO)" test/all.sh
	@if [ -x $(SUITE) ]; then cd test/conformance && $(GO) test -count=1 ./run; \
	else echo "skipped upstream's quickest specs: $(SUITE) is not there; make conformance builds it"; fi
	$(FUZZING)

# Each decoder that an outsider can reach, for FUZZ long. That is the last of what
# make test does, and takes some five minutes, on two processors, when it is built.
FUZZ    ?= 20s
FUZZING  = $(GO) run ./test/fuzz -time $(FUZZ)

fuzz:
	$(FUZZING)

lint:
	test/lint.sh

# Upstream's conformance suite, or the part of it that FOCUS selects. Building it
# takes some ten minutes, and images need Debian's apt-get: both are done once.
CONFORMANCE := bin/conformance
SUITE       := $(CONFORMANCE)/suite.test

conformance: all $(SUITE) $(CONFORMANCE)/images.tar
	cd test/conformance && $(GO) run ./run -focus '$(FOCUS)' $(ARGS)

$(SUITE): V := k8s.io/component-base/version
$(SUITE): test/conformance/go.mod test/conformance/suite/suite_test.go
	cd test/conformance && $(GO) test -c -ldflags "-s -w -X $(V).gitVersion=$(VERSION) -X $(V).gitMajor=1 -X $(V).gitMinor=37" -o ../../$@ ./suite

$(CONFORMANCE)/images.tar: test/conformance/go.mod $(shell find test/conformance/images -type f)
	cd test/conformance && $(GO) run ./images -sampan ../../bin/sampan -o ../../$@

bench: all
	$(GO) run ./test/bench

clean:
	rm -rf bin $(ASSETS)/keeper $(ASSETS)/kubectl.zst $(OCI) cmd/oci/assets/keeper examples/hello/bin
