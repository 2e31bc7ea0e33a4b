# SPDX-License-Identifier: Apache-2.0
# xdp-operator: make help

SHELL := /usr/bin/env bash -o pipefail
VERSION ?= 0.1.0
CONTROLLER_GEN := go tool -modfile=hack/tools/go.mod controller-gen
HELM_DOCS := cd test/manifests && go tool helm-docs --log-level=warning --chart-search-root=../../charts --sort-values-order=file
ACTIONLINT := go tool -modfile=hack/tools/go.mod actionlint
GOLANGCI_LINT := go tool -modfile=hack/tools/lint/go.mod golangci-lint
LDFLAGS := -s -w -X main.version=$(VERSION)
KUBECTL ?= kubectl

# Tests that need root fail without it and say so.
# CGO_ENABLED is set for all targets, so that packages are compiled only once if a C compiler is installed.
export CGO_ENABLED := 0

GO_TEST := go test -count=1

# Builds a program into bin/. The compiler collects garbage less often, which saves a fifth of the time (test/util/gobuild).
COMPILE := GOGC=$(or $(GOGC),400) go build -o bin/

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ The two commands

.PHONY: demo
demo: ## Run a cluster on this machine, count real packets and check the totals (KEEP=1: leave it running)
	@echo "Compiling the demo (minutes the first time) ..."
	@$(COMPILE) ./hack/demo
	@bin/demo $(if $(KEEP),-keep) $(if $(WRONG),-wrong)

.PHONY: demo-down
demo-down: ## End the cluster of make demo KEEP=1
	@$(COMPILE) ./hack/demo
	@bin/demo -down

# Two targets run at a time, because they mostly wait. The longest are first. Prerequisites are built before.
.PHONY: test
test: controlplane cluster-programs image-tar ## Run every test that this machine can run
	+@$(MAKE) --no-print-directory -j2 $(addprefix -o ,$^) test-e2e test-kernel test-integration test-env test-unit test-api test-faults-short test-prometheus test-scale-short test-charts test-gitops
	@echo "Every test passed."

##@ Single tests

# What tests which packages. A package that is in no list here is tested by test-unit: by plain Go, without root.
KERNEL_TESTS := ./bpf ./agent/datapath ./agent/dispatcher ./agent/links ./cmd/xdpcount ./test/bench ./test/bench/source ./test/oracle ./test/reasons ./test/stacks ./test/util/bpffs ./test/util/netns ./test/util/quiet
API_TESTS := ./api/v1alpha1 ./test/plugin
ENV_TESTS := ./test/env/...
INTEGRATION_TESTS := ./test/integration/...
FAULT_TESTS := ./test/faults/...
SCALE_TESTS := ./test/scale/...
E2E_TESTS := ./test/e2e/...
GUEST_TESTS := ./test/kernels/...
UNIT_TESTS = $(filter-out $(shell go list $(KERNEL_TESTS) $(API_TESTS) $(ENV_TESTS) $(INTEGRATION_TESTS) $(FAULT_TESTS) $(SCALE_TESTS) $(E2E_TESTS) $(GUEST_TESTS)),$(shell go list ./...))

.PHONY: packages
packages: ## List which target tests which package, and check that it is one
	@list() { local target=$$1 all; shift; all=$$(go list "$$@") || exit 1; for package in $$all; do echo "$$package $$target"; done; }; \
	{ list test-kernel $(KERNEL_TESTS); list test-api $(API_TESTS); list test-env $(ENV_TESTS); list test-integration $(INTEGRATION_TESTS); \
	  list test-faults $(FAULT_TESTS); list test-scale $(SCALE_TESTS); list test-e2e $(E2E_TESTS); list test-kernels $(GUEST_TESTS); \
	  list test-unit $(UNIT_TESTS); } | sort | awk '{print} $$1 == last {twice = 1; print "in two lists: " $$1 > "/dev/stderr"} {last = $$1} END {exit twice}'

.PHONY: test-unit
test-unit: ## What plain Go can test: without root, control plane or network
	$(GO_TEST) $(UNIT_TESTS)

.PHONY: test-api
test-api: controlplane ## The kinds and the kubectl plugin against a real API server
	$(GO_TEST) $(API_TESTS)

.PHONY: test-env
test-env: controlplane cluster-programs image-tar ## What tests stand on: sandbox, control plane, local clusters and image
	$(GO_TEST) $(ENV_TESTS)

# The integration tests that test-race runs: a few minutes. Some of the others need exact memory or time.
RACE_INTEGRATION := TestExactTotals TestEditNodeSelector TestLeaderElection TestCertificateReload TestUninstall
empty :=

.PHONY: test-race
test-race: controlplane ## The unit tests and a part of the integration tests with the race detector (needs a C compiler)
	@command -v $$(go env CC) > /dev/null || { echo "The race detector needs a C compiler, and there is no $$(go env CC): install gcc." >&2; exit 1; }
	@for name in $(RACE_INTEGRATION); do grep -q "^func $$name(" test/integration/*_test.go || { echo "There is no integration test $$name." >&2; exit 1; }; done
	CGO_ENABLED=1 $(GO_TEST) -race $(UNIT_TESTS)
	CGO_ENABLED=1 $(GO_TEST) -race -timeout 20m $(INTEGRATION_TESTS) -run '^($(subst $(empty) $(empty),|,$(RACE_INTEGRATION)))$$'

.PHONY: test-kernel
test-kernel: ## The BPF program, attaching, interfaces and xdpcount against this kernel, and 3 million frames
	$(GO_TEST) $(KERNEL_TESTS)

.PHONY: test-kernels
test-kernels: ## Run the kernel tests on Debian's kernels in QEMU (KERNELS="5.10 6.1", RUN=regexp; WRITE=1 updates docs/kernels.md)
	$(GO_TEST) ./test/kernels
	go run ./test/kernels $(if $(KERNELS),-kernels "$(KERNELS)") $(if $(RUN),-run "$(RUN)") $(if $(WRITE),-write)

.PHONY: test-integration
test-integration: controlplane ## Controller and agents on one real API server, real frames on three nodes
	$(GO_TEST) -timeout 20m $(INTEGRATION_TESTS)

.PHONY: test-faults-short
test-faults-short: controlplane ## Every fault once and 15 random ones, under traffic that is counted
	$(GO_TEST) -timeout 20m $(FAULT_TESTS)

.PHONY: test-faults
test-faults: controlplane ## Test faults with outages of a minute and 100 random ones (SEED=N: which ones, COUNT=N: how many)
	$(GO_TEST) -timeout 3h -v ./test/faults/... -large -table $(CURDIR)/bin/faults.md $(if $(SEED),-seed $(SEED)) $(if $(COUNT),-random $(COUNT))

.PHONY: test-scale-short
test-scale-short: controlplane ## 200 simulated nodes on a real API server: what is written stays within the budget
	$(GO_TEST) -timeout 20m $(SCALE_TESTS)

.PHONY: test-scale
test-scale: controlplane ## Measure any number of simulated nodes (NODES=1000 COUNTERS=20 INTERVAL=10s WINDOW=2m: docs/scale.md)
	$(GO_TEST) -timeout 3h -v ./test/scale -nodes $(if $(filter file,$(origin NODES)),1000,$(NODES)) -counters $(or $(COUNTERS),20) -interval $(or $(INTERVAL),10s) $(if $(WINDOW),-window $(WINDOW))

.PHONY: test-charts
test-charts: controlplane ## Test that chart and kustomize give the same objects, and that the API server accepts them
	cd test/manifests && $(GO_TEST) -timeout 20m ./...

.PHONY: test-gitops
test-gitops: ## Test the health of XDPCounters with the code of Argo CD and Flux, and docs/gitops.md
	cd test/gitops && $(GO_TEST) ./...

.PHONY: test-quiet
test-quiet: controlplane ## Count what is written to the API server in ten minutes without traffic (QUIET=1h: how long)
	$(GO_TEST) -timeout 3h -v ./test/integration -run TestIdleCluster -quiet $(or $(QUIET),10m)

.PHONY: test-prometheus
test-prometheus: controlplane ## Test metrics, alerts and dashboard with a real Prometheus (PICTURE=1 updates docs/dashboard.svg)
	cd test/prometheus && $(GO_TEST) ./... $(if $(PICTURE),-picture $(CURDIR)/docs/dashboard.svg)

.PHONY: test-e2e
test-e2e: $(if $(E2E_EXISTING_CLUSTER),,cluster-programs) ## The image and the chart on real nodes (E2E_EXISTING_CLUSTER=1 E2E_IMAGE=NAME:TAG: on the cluster of the kubeconfig)
	$(GO_TEST) -v -timeout 40m $(E2E_TESTS)

.PHONY: test-mutation
test-mutation: ## Change one operator at a time and count which changes the tests detect (PACKAGES="agent controllers": where)
	go run ./test/mutation $(PACKAGES)

.PHONY: fuzz
fuzz: ## Run each fuzz test for 30 s
	go test ./agent/plan -run '^$$' -fuzz FuzzGlobsNeverPanic -fuzztime 30s
	go test ./agent/plan -run '^$$' -fuzz FuzzLayers -fuzztime 30s
	go test ./bpf -run '^$$' -fuzz FuzzProgram -fuzztime 30s

.PHONY: oracle
oracle: ## Replay captures and compare every class with tshark: make oracle PCAP="FILE..." (needs tshark)
	go run ./test/oracle $(PCAP)

.PHONY: bench
bench: ## Measure what counting costs and compare it with the budgets (root, idle machine; QUICK=1: less exact)
	go run ./test/bench $(if $(QUICK),-quick)

.PHONY: bench-guest
bench-guest: ## Measure what is left of the traffic of virtio_net in a QEMU guest (root; KERNELS="6.1 6.12")
	go run ./test/kernels -bench -kernels "$(or $(KERNELS),6.12)"

.PHONY: controlplane
controlplane: ## Get etcd, kube-apiserver, kube-controller-manager and kubectl (built once, then cached)
	@$(COMPILE) ./hack/controlplane
	@bin/controlplane > /dev/null

##@ Generate and check

.PHONY: generate
generate: ## Generate deep copies, apply configurations and the BPF objects (needs clang-14)
	$(CONTROLLER_GEN) object:headerFile=hack/tools/header.go.txt paths=./api/v1alpha1
	$(CONTROLLER_GEN) applyconfiguration:headerFile=hack/tools/header.go.txt paths=./api/v1alpha1
	go generate ./bpf ./test/bench ./test/kernels/sharing

.PHONY: manifests
manifests: ## Generate CRDs and roles, copy them into the chart, and write its README and docs/api.md
	$(CONTROLLER_GEN) crd paths=./api/... output:crd:dir=config/crd/bases
	$(CONTROLLER_GEN) rbac:roleName=xdp-operator-controller,fileName=controller_role.yaml paths=./controllers output:rbac:dir=config/rbac
	$(CONTROLLER_GEN) rbac:roleName=xdp-operator-uninstall,fileName=uninstall_role.yaml paths=./controllers/uninstall output:rbac:dir=config/uninstall
	$(CONTROLLER_GEN) rbac:roleName=xdp-operator-agent,fileName=agent_role.yaml paths=./agent/... output:rbac:dir=config/rbac
	cp config/crd/bases/*.yaml charts/xdp-operator/files/crds/
	cp config/rbac/*_role.yaml charts/xdp-operator/files/rbac/
	cp config/uninstall/*_role.yaml charts/xdp-operator/files/uninstall/
	cp config/admission/policy.yaml config/admission/binding.yaml charts/xdp-operator/files/admission/
	cp config/prometheus/rules.yaml config/prometheus/dashboard.json charts/xdp-operator/files/prometheus/
	$(HELM_DOCS)
	go run ./hack/apidocs

.PHONY: metrics-docs
metrics-docs: ## Write docs/metrics.md
	go run ./hack/metricsdocs

.PHONY: pictures
pictures: ## Write docs/pictures: the output of kubectl, the plugin and xdpcount on a cluster (needs root)
	go run ./hack/pictures

.PHONY: fmt
fmt: ## Format Go and C
	gofmt -w $$(git ls-files '*.go')
	clang-format-14 -i --style=file:bpf/.clang-format bpf/*.c bpf/*.h bpf/headers/*.h test/bench/*.c test/kernels/sharing/*.c

.PHONY: lint
lint: packages ## Check the style, which package imports which, and the GitHub workflow
	$(ACTIONLINT)
	$(GOLANGCI_LINT) run ./...
	cd test/manifests && go tool -modfile=../../hack/tools/lint/go.mod golangci-lint run -c ../../.golangci.yml ./...
	cd test/gitops && go tool -modfile=../../hack/tools/lint/go.mod golangci-lint run -c ../../.golangci.yml ./...
	cd test/prometheus && go tool -modfile=../../hack/tools/lint/go.mod golangci-lint run -c ../../.golangci.yml ./...

.PHONY: verify
verify: generate manifests metrics-docs fmt lint ## Check that generated files are current, and lint (needs clang-14)
	go mod tidy -diff
	git diff --exit-code

##@ A cluster of real nodes on this machine

NODES ?= 2

.PHONY: cluster-up
cluster-up: ## Run a Kubernetes cluster on this machine with the image of this clone on its nodes (NODES=2)
	go run ./hack/cluster -nodes $(NODES) -version $(VERSION)

.PHONY: cluster-programs
cluster-programs: ## Get what clusters of real nodes are made of (built once, then cached)
	@$(COMPILE) ./hack/cluster
	@bin/cluster -prepare

.PHONY: cluster-down
cluster-down: ## End that cluster, and remove what it or one that was killed has left
	go run ./hack/cluster -down

##@ Build and deploy

.PHONY: build
build: ## Build the programs into bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...
	cp cmd/kubectl-xdpcounter/kubectl_complete-xdpcounter bin/

PLUGIN_PLATFORMS := linux_amd64 linux_arm64 darwin_amd64 darwin_arm64

.PHONY: plugin-archives
plugin-archives: ## Build the kubectl plugin for every platform into bin/, as the archives that .krew.yaml names
	for platform in $(PLUGIN_PLATFORMS); do \
		dir=bin/plugin/$$platform && mkdir -p $$dir && cp LICENSE cmd/kubectl-xdpcounter/kubectl_complete-xdpcounter $$dir/ && \
		GOOS=$${platform%_*} GOARCH=$${platform#*_} go build -trimpath -ldflags '$(LDFLAGS)' -o $$dir/ ./cmd/kubectl-xdpcounter && \
		tar -C $$dir --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - . | gzip -n > bin/kubectl-xdpcounter_$$platform.tar.gz || exit 1; \
	done

.PHONY: image
image: ## Build the image (needs Docker with BuildKit)
	docker build --build-arg VERSION=$(VERSION) -t xdp-operator:$(VERSION) .

.PHONY: image-tar
image-tar: ## Build the image for amd64 and arm64 into bin/, without an engine (docker load and ctr images import take it)
	@$(COMPILE) ./hack/imagetar
	bin/imagetar -version $(VERSION) -output bin amd64 arm64

.PHONY: install
install: ## Install the CRDs into the cluster of the kubeconfig
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ## Remove the CRDs, and with them all XDPCounters
	$(KUBECTL) delete --ignore-not-found -k config/crd

.PHONY: deploy
deploy: ## Install everything into the cluster of the kubeconfig
	$(KUBECTL) apply --server-side -k config/default

# A step that fails does not stop the others: its objects may be deleted already.
.PHONY: undeploy
undeploy: ## Detach all programs, clean each node, then delete all objects, including XDPCounters
	-$(KUBECTL) delete --ignore-not-found -k config/uninstall
	-$(KUBECTL) apply --server-side -k config/uninstall
	-$(KUBECTL) -n xdp-operator-system wait --for=condition=complete --timeout=210s job/xdp-operator-uninstall
	-$(KUBECTL) apply --server-side -k config/sweep
	-$(KUBECTL) -n xdp-operator-system rollout status --timeout=60s daemonset/xdp-operator-sweep
	-$(KUBECTL) delete --ignore-not-found -k config/sweep
	-$(KUBECTL) delete --ignore-not-found -k config/uninstall
	$(KUBECTL) delete --ignore-not-found -k config/default

.PHONY: clean
clean: ## Remove bin/; the cache stays
	rm -rf bin
