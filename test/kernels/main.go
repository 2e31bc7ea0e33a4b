// SPDX-License-Identifier: Apache-2.0

// Command kernels runs the tests that need a kernel on other kernels than this machine's: those of Debian, in emulated
// machines, which need nothing of the processor. It fails if a test fails or skips, or if a feature of the support
// table is not found out.
//
//	go run ./test/kernels [-kernels "5.10 6.1"] [-write]
//	go run ./test/kernels -bench -kernels 6.12
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/xdp-operator/xdp-operator/internal/format"
	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// known are the kernels that Debian has: of its releases, and the newer ones for the present release.
const known = "5.10 6.1 6.12 6.18 7.2 7.3"

// tests are what is run in each guest. All have -short, and need no more frames than an emulator can count in seconds.
var tests = []report.Test{
	{Package: "test/kernels/features"},
	{Package: "bpf", Env: []string{"XDP_OPERATOR_FUZZ_FRAMES=1000"}},
	{Package: "agent/datapath"},
	{Package: "agent/links"},
	{Package: "test/stacks"},
	{Package: "test/kernels/sharing"},
	{Package: "test/kernels/apparmor"},
	// What is linked is asked of Go, and has nothing to do with a kernel.
	{Package: "cmd/xdpcount", Args: []string{"-test.skip=^TestNoKubernetesDependencies$"}, Env: []string{"XDP_OPERATOR_XDPCOUNT=/bin/xdpcount"}},
	{Package: "test/bench"},
	// It replays captures with frames of any length, natively.
	{Package: "test/oracle", NeedsFragments: true},
	{Package: "test/kernels/features", Lockdown: "integrity"},
	{Package: "test/kernels/features", Lockdown: "confidentiality"},
}

// document is what -write rewrites.
const document = "docs/kernels.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kernels := flag.String("kernels", known, "The `versions` to test on.")
	write := flag.Bool("write", false, "Write the support table into "+document+".")
	logs := flag.String("logs", filepath.Join("bin", "kernels"), "The `folder` for all that the guests say.")
	parallel := flag.Int("parallel", runtime.NumCPU(), "How many guests run at once. Each has 2 CPUs, of which it seldom uses both.")
	measure := flag.Bool("bench", false, "Measure what is left of the traffic of a virtio_net device instead, one kernel after the other.")
	only := flag.String("run", "", "Run only the tests that this `expression` matches, and make no table.")
	flag.Parse()
	if *measure {
		if err := bench(ctx, strings.Fields(*kernels), *logs); err != nil {
			fmt.Fprintln(os.Stderr, "kernels:", err)
			os.Exit(1)
		}
		return
	}
	for i := range tests {
		tests[i].Args = append(tests[i].Args, "-test.run="+*only)
	}
	if err := run(ctx, strings.Fields(*kernels), *only != "", *write, *logs, *parallel); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

// run tests on the kernels. With some, only some of the tests are run.
func run(ctx context.Context, versions []string, some, write bool, logs string, parallel int) error {
	began := time.Now()
	progress := &lockedWriter{out: os.Stderr}
	if err := installEmulator(ctx, progress); err != nil {
		return err
	}
	cache, err := controlplane.CacheDir()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "xdp-operator-kernels-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	fmt.Fprintln(progress, "building the tests")
	if err := build(ctx, scratch); err != nil {
		return err
	}

	shelf := shelf{folder: filepath.Join(cache, "kernels"), progress: progress}
	toolFolder, err := shelf.tools(ctx)
	if err != nil {
		return err
	}

	results, errs := make([]*result, len(versions)), make([]error, len(versions))
	places := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i, version := range versions {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			k, err := shelf.get(ctx, version)
			if err != nil {
				errs[i] = err
				return
			}
			results[i], errs[i] = test(ctx, k, scratch, toolFolder, filepath.Join(logs, version), progress)
		})
	}
	all.Wait()
	results = slices.DeleteFunc(results, func(r *result) bool { return r == nil })
	if !some {
		fmt.Fprintf(os.Stdout, "\n%s", table(results))
	}
	fmt.Fprintf(os.Stdout, "\n%s\n", timings(results))
	err = errors.Join(errs...)
	for _, r := range results {
		err = errors.Join(err, r.verdict(some))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s, every test passed, %.0f s\n", format.Count(len(results), "kernel", "kernels"), time.Since(began).Seconds())
	if write && !some {
		return replaceTable(document, table(results))
	}
	return nil
}

// build makes the guest's programs: statically linked, since a guest has no libraries.
func build(ctx context.Context, folder string) error {
	compile := []string{"test", "-c", "-ldflags=-s -w", "-o", folder + "/"}
	named := map[string]bool{}
	for _, t := range tests {
		if !named[t.Package] {
			compile = append(compile, "./"+t.Package)
		}
		named[t.Package] = true
	}
	return errors.Join(runGo(ctx, compile...), buildPrograms(ctx, folder, "./test/kernels/guest", "./cmd/xdpcount"))
}

func buildPrograms(ctx context.Context, folder string, packages ...string) error {
	return runGo(ctx, append([]string{"build", "-ldflags=-s -w", "-o", folder + "/"}, packages...)...)
}

func runGo(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// pack makes the guest's root file system, with the tests.
func pack(image string, k kernel, programs, toolFolder string) error {
	return packWith(image, k, programs, tests, func(a *archive) {
		a.file("/bin/xdpcount", filepath.Join(programs, "xdpcount"), 0o755)
		for _, name := range tools {
			a.file(name, filepath.Join(toolFolder, filepath.Base(name)), 0o755)
		}
		for _, t := range tests {
			if t.Lockdown == "" {
				a.file(t.Binary(), filepath.Join(programs, filepath.Base(t.Package)+".test"), 0o755)
				a.tree(t.Folder()+"/testdata", filepath.Join(filepath.FromSlash(t.Package), "testdata"))
			}
		}
	})
}

// packWith makes a root file system with the guest, the kernel's modules, what is to be run, and what add adds.
func packWith(image string, k kernel, programs string, run []report.Test, add func(*archive)) error {
	file, err := os.Create(image)
	if err != nil {
		return err
	}
	defer file.Close()
	a := newArchive(file)
	a.file("/init", filepath.Join(programs, "guest"), 0o755)
	modules, err := filepath.Glob(filepath.Join(k.modules, "*.ko"))
	if err != nil {
		return err
	}
	for _, module := range modules {
		a.file("/modules/"+filepath.Base(module), module, 0o644)
	}
	add(a)
	plan, err := json.Marshal(run)
	if err != nil {
		return err
	}
	a.bytes(report.Plan, plan, 0o644)
	return errors.Join(a.close(), file.Close())
}

// test boots a guest with the kernel and collects what it reports. Failed tests are not an error of it.
func test(ctx context.Context, k kernel, programs, toolFolder, logs string, progress io.Writer) (*result, error) {
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	image := filepath.Join(programs, k.wanted+".cpio")
	if err := pack(image, k, programs, toolFolder); err != nil {
		return nil, err
	}
	output, err := os.Create(filepath.Join(logs, "tests"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	r := newResult(k, progress)
	tap, err := newTap()
	if err != nil {
		return nil, err
	}
	defer tap.Close()
	g := guest{
		kernel: k, initrd: image, console: filepath.Join(logs, "console"), memory: "1G", timeout: 40 * time.Minute, cpus: 2, network: cards, files: []*os.File{tap},
	}
	began := time.Now()
	err = g.boot(ctx, func(line string) {
		fmt.Fprintln(output, line)
		r.read(line, time.Since(began))
	})
	r.took = time.Since(began)
	if err == nil && !r.done {
		console, _ := os.ReadFile(g.console)
		err = fmt.Errorf("the guest ended before its tests did; it said:\n%s", console)
	}
	if err != nil {
		return nil, fmt.Errorf("on Linux %s: %w", k.wanted, err)
	}
	return r, output.Close()
}

// lockedWriter lets many write line by line.
type lockedWriter struct {
	mutex sync.Mutex
	out   io.Writer
}

func (w *lockedWriter) Write(text []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.out.Write(text)
}
