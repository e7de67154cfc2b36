# plyfs. The two commands to begin with: `make demo` and `make test`.

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
# Where mount(8) looks for helpers, whatever PREFIX is.
SBINDIR ?= /sbin
DATADIR ?= $(PREFIX)/share
MANDIR  ?= $(DATADIR)/man
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 30s

.PHONY: all build demo test test-race lint format vuln bench fuzz deps tools install uninstall clean

all: build

# One static binary: no C library, no paths of the machine that built it.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/plyfs ./cmd/plyfs

# The main path on an image and a registry made on the spot. Needs root and /dev/fuse, and nothing but Go.
demo: build
	$(GO) run ./scripts/demo -plyfs bin/plyfs

# Installs what the tests need, then runs all of them.
test: deps
	$(GO) test -timeout 30m ./...

test-race: deps
	$(GO) test -race -timeout 40m ./...

deps:
	scripts/install-deps.sh

# golangci-lint, gofumpt and govulncheck in the versions that CI uses.
tools:
	scripts/install-tools.sh

lint: tools
	@tools=$$(scripts/install-tools.sh --where) && "$$tools/golangci-lint" run ./... && \
	bad=$$(git ls-files '*.go' | xargs "$$tools/gofumpt" -l) && \
	if [ -n "$$bad" ]; then echo "not formatted (make format):"; echo "$$bad"; exit 1; fi

format: tools
	@tools=$$(scripts/install-tools.sh --where) && git ls-files '*.go' | xargs "$$tools/gofumpt" -w

vuln: tools
	scripts/vulncheck.sh

# Measures plyfs beside other programs on one image and registry: docs are in scripts/bench.
bench: build deps
	$(GO) run ./scripts/bench -plyfs bin/plyfs

# Runs every fuzz target for FUZZTIME.
fuzz:
	scripts/fuzz.sh $(FUZZTIME)

# BINARY=FILE installs one that is built already. mount(8) finds `mount -t plyfs` and `mount -t fuse.plyfs` by the names
# of the helpers. A link called fuse-overlayfs would do as well, but that name is the distribution's.
install: $(if $(BINARY),,build)
	install -D -m 0755 $(or $(BINARY),bin/plyfs) $(DESTDIR)$(PREFIX)/bin/plyfs
	install -d $(DESTDIR)$(SBINDIR)
	ln -sf $(PREFIX)/bin/plyfs $(DESTDIR)$(SBINDIR)/mount.plyfs
	ln -sf $(PREFIX)/bin/plyfs $(DESTDIR)$(SBINDIR)/mount.fuse.plyfs
	install -D -m 0644 man/plyfs-overlay.8 $(DESTDIR)$(MANDIR)/man8/plyfs-overlay.8
	install -d $(DESTDIR)$(MANDIR)/man1
	$(or $(BINARY),bin/plyfs) generate-man $(DESTDIR)$(MANDIR)/man1
	install -D -m 0644 cmd/plyfs/completion/plyfs.bash $(DESTDIR)$(DATADIR)/bash-completion/completions/plyfs
	install -D -m 0644 cmd/plyfs/completion/plyfs.zsh $(DESTDIR)$(DATADIR)/zsh/site-functions/_plyfs
	install -D -m 0644 cmd/plyfs/completion/plyfs.fish $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/plyfs.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/plyfs \
	  $(DESTDIR)$(SBINDIR)/mount.plyfs $(DESTDIR)$(SBINDIR)/mount.fuse.plyfs \
	  $(DESTDIR)$(MANDIR)/man8/plyfs-overlay.8 $(DESTDIR)$(MANDIR)/man1/plyfs.1 $(DESTDIR)$(MANDIR)/man1/plyfs-*.1 \
	  $(DESTDIR)$(DATADIR)/bash-completion/completions/plyfs $(DESTDIR)$(DATADIR)/zsh/site-functions/_plyfs \
	  $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/plyfs.fish

clean:
	rm -rf bin
