// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xdp-operator/xdp-operator/test/util/gobuild"
)

// buildTarget is a binary that is built, and the programs that it has. It runs as the program by whose name it is called.
type buildTarget struct {
	binary   string
	what     string // for the progress
	pattern  string // the package in the module kubernetes
	ldflags  string
	programs []string
}

// buildTargets returns all binaries. What the demo and most tests do not need has a binary of its own, because compiling it takes
// minutes.
func buildTargets() []buildTarget {
	flags := "-s -w " + versionFlags()
	version := "Kubernetes v" + KubernetesVersion
	return []buildTarget{
		{
			binary: "kubernetes", what: version + " (API server and kubectl)", pattern: ".",
			ldflags: flags, programs: []string{"kube-apiserver", "kubectl"},
		},
		{
			binary: "kubernetes-controllers", what: version + " (controller manager)", pattern: "./controllers",
			ldflags: flags, programs: []string{"kube-controller-manager"},
		},
		{
			binary: "kubernetes-node", what: version + " (kubelet, kube-proxy and scheduler)", pattern: "./node",
			ldflags: flags, programs: []string{"kube-proxy", "kube-scheduler", "kubelet"},
		},
		{binary: "etcd", what: "etcd", pattern: "./etcd", ldflags: "-s -w", programs: []string{"etcd"}},
	}
}

// hasAny reports whether t has one of the programs.
func (t buildTarget) hasAny(programs []string) bool {
	return slices.ContainsFunc(t.programs, func(name string) bool { return slices.Contains(programs, name) })
}

// build builds the binary into cache, and makes a link to it for each program of another name.
func (t buildTarget) build(ctx context.Context, source, cache string, report *reporter) error {
	err := buildPackages(ctx, t.what, source, t.pattern, t.ldflags, filepath.Join(cache, t.binary), report)
	if err != nil {
		return err
	}
	for _, name := range t.programs {
		if name == t.binary {
			continue
		}
		if err := link(t.binary, filepath.Join(cache, name)); err != nil {
			return err
		}
	}
	return nil
}

// versionFlags returns the linker flags by which the binaries know their version. Without them they report
// v0.0.0-master+$Format:%H$, and kubectl version and every chart that asks for a Kubernetes version fail.
func versionFlags() string {
	number := strings.Split(KubernetesVersion, ".")
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, value := range []string{
			"gitVersion=v" + KubernetesVersion, "gitMajor=" + number[0], "gitMinor=" + number[1],
			"gitTreeState=clean", "gitCommit=unknown", "buildDate=1970-01-01T00:00:00Z",
		} {
			flags = append(flags, "-X "+pkg+"."+value)
		}
	}
	return strings.Join(flags, " ")
}

// buildPackages compiles the commands of a pattern, seen from dir, to the file output, which appears complete or not at
// all. If output ends in a slash, it is a directory that gets a file for each command. what says what is being built, for
// the progress.
func buildPackages(ctx context.Context, what, dir, pattern, ldflags, output string, report *reporter) error {
	report.line("building %s from source, once, into %s", what, filepath.Dir(output))
	// At an outside deadline the go command gets a signal, so that it stops its compilers.
	golang := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		// GOWORK: the module is in no workspace.
		cmd.Env = gobuild.Env("CGO_ENABLED=0", "GOWORK=off")
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 10 * time.Second
		return cmd
	}

	list := golang("list", "-deps", pattern)
	var packages bytes.Buffer
	list.Stdout = &packages
	begin := time.Now()
	downloaded := 0
	err := follow(list, report, func(line string) bool {
		if !strings.HasPrefix(line, "go: downloading ") {
			return false
		}
		downloaded++
		return true
	}, func() string {
		return fmt.Sprintf("building %s: %.0f s, %d modules downloaded", what, time.Since(begin).Seconds(), downloaded)
	})
	if err != nil {
		return fmt.Errorf("list the packages of %s: %w", what, err)
	}
	total := bytes.Count(packages.Bytes(), []byte("\n"))

	temporary := fmt.Sprintf("%s.%d", filepath.Clean(output), os.Getpid())
	if strings.HasSuffix(output, "/") {
		temporary += "/"
	}
	// No -trimpath: it would change the key of every package in Go's build cache.
	compile := golang("build", "-v", "-buildvcs=false", "-ldflags", ldflags, "-o", temporary, pattern)
	compiled := 0
	err = follow(compile, report, func(line string) bool {
		// With -v the go command prints the import path of each package that it compiles, nothing for cached ones.
		if strings.ContainsAny(line, " :#") {
			return strings.HasPrefix(line, "go: downloading ")
		}
		compiled++
		return true
	}, func() string {
		return fmt.Sprintf("building %s: %.0f s, %d of at most %d packages compiled",
			what, time.Since(begin).Seconds(), compiled, total)
	})
	if err == nil {
		err = os.Rename(temporary, output)
	}
	if err != nil {
		_ = os.RemoveAll(temporary) // absent if the compiler did not get that far
		return fmt.Errorf("build %s: %w", what, err)
	}
	report.line("built %s in %.0f s", what, time.Since(begin).Seconds())
	return nil
}

// follow runs cmd and hands each line of its standard error to expected. Lines that it does not expect become
// part of the error if cmd fails. status is asked for a progress line now and then; it is never called at the
// same time as expected.
func follow(cmd *exec.Cmd, report *reporter, expected func(line string) bool, status func() string) error {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		// Not a Scanner: that one stops at long lines, and then so would the command.
		for reader := bufio.NewReader(stderr); ; {
			line, err := reader.ReadString('\n')
			if line != "" {
				lines <- strings.TrimSuffix(line, "\n")
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(report.interval())
	defer tick.Stop()
	var surprises []string
	for open := true; open; {
		var line string
		select {
		case line, open = <-lines:
			if open && !expected(line) {
				surprises = append(surprises, line)
			}
		case <-tick.C:
			report.progress(status())
		}
	}
	report.progressEnd()
	if err := cmd.Wait(); err != nil {
		if len(surprises) > 0 {
			return fmt.Errorf("%w:\n%s", err, strings.Join(surprises, "\n"))
		}
		return err
	}
	return nil
}
