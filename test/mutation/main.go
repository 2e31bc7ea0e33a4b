// SPDX-License-Identifier: Apache-2.0

// Command mutation changes one operator of the product at a time and runs the tests, which should fail. It runs gremlins
// (github.com/go-gremlins/gremlins) on a copy of the clone, and prints which changes no test has detected.
//
//	go run ./test/mutation [-atleast PERCENT] [-workers N] [PACKAGE...]
//
// The tests are those of the package itself and then those of test/histories. Random histories differ from run to run, so a
// change that only they detect may survive once in a while.
package main

import (
	"bytes"
	"cmp"
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
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

// packages are tested unless others are named.
var packages = []string{"api/traffic", "agent/plan", "agent", "controllers"}

func main() {
	if filepath.Base(os.Args[0]) == "go" {
		os.Exit(testMutant(os.Args[1:]))
	}
	atLeast := flag.Float64("atleast", 92, "How many `percent` of the changes must be detected.")
	workers := flag.Int("workers", 2, "How many changes are tested at a time.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, flag.Args(), *workers, *atLeast); err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, only []string, workers int, atLeast float64) error {
	if len(only) == 0 {
		only = packages
	}
	dir, err := os.MkdirTemp("", "mutation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	g := gremlins{clone: filepath.Join(dir, "clone"), tools: filepath.Join(dir, "tools"), workers: workers}
	if err := g.prepare(ctx); err != nil {
		return err
	}
	var all []mutant
	for _, pkg := range only {
		mutants, err := g.unleash(ctx, out, pkg)
		if err != nil {
			return fmt.Errorf("%s: %w", pkg, err)
		}
		all = append(all, mutants...)
	}
	detected := report(out, only, all)
	if detected < atLeast {
		return fmt.Errorf("%.1f %% of the changes are detected, at least %.1f %% must be", detected, atLeast)
	}
	return nil
}

// gremlins runs in a copy of the clone.
type gremlins struct {
	clone, tools string
	workers      int
}

// prepare copies what git knows of this clone, as it is on disk, and builds gremlins.
func (g gremlins) prepare(ctx context.Context) error {
	files, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("list the files of the clone: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(files), "\x00"), "\x00") {
		content, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) { // deleted, but not yet for git
			continue
		}
		to := filepath.Join(g.clone, name)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, 0o644)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(g.tools, 0o755); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-modfile=hack/tools/mutation/go.mod", "-o", g.tools, "github.com/go-gremlins/gremlins/cmd/gremlins")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build gremlins: %w\n%s", err, out)
	}
	own, err := os.Executable()
	if err != nil {
		return err
	}
	return os.Symlink(own, filepath.Join(g.tools, "go"))
}

// The environment of testMutant.
const (
	realGo = "MUTATION_GO"      // the go command
	ownPkg = "MUTATION_PACKAGE" // the package whose code is changed, with ./
)

// unleash changes the code of one package.
func (g gremlins) unleash(ctx context.Context, out io.Writer, pkg string) ([]mutant, error) {
	command, err := exec.LookPath("go")
	if err != nil {
		return nil, err
	}
	results := filepath.Join(g.tools, "results.json")
	config := filepath.Join(g.tools, "gremlins.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil { // not the one of the caller
		return nil, err
	}
	args := []string{
		"unleash", pkg, "--config=" + config, "--output=" + results, fmt.Sprintf("--workers=%d", g.workers), "--timeout-coefficient=10",
		"--exclude-files=/", // packages below
		"--invert-assignments", "--invert-bitwise", "--invert-bwassign", "--invert-logical", "--invert-loopctrl", "--remove-self-assignments",
	}
	cmd := exec.CommandContext(ctx, filepath.Join(g.tools, "gremlins"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = g.clone, out, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "PATH="+g.tools+":"+os.Getenv("PATH"), realGo+"="+command, ownPkg+"=./"+pkg)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("gremlins: %w", err)
	}
	content, err := os.ReadFile(results)
	if err != nil {
		return nil, err
	}
	return g.parse(pkg, content)
}

// mutant is one change.
type mutant struct {
	pkg          string
	file         string // within the package
	line, column int
	kind, status string // gremlins' words
	code         string // the line of code before the change
}

// parse reads the results of gremlins.
func (g gremlins) parse(pkg string, results []byte) ([]mutant, error) {
	var r struct {
		Files []struct {
			Name      string `json:"file_name"`
			Mutations []struct {
				Type, Status string
				Line, Column int
			}
		}
	}
	if err := json.Unmarshal(results, &r); err != nil {
		return nil, fmt.Errorf("read the results of gremlins: %w", err)
	}
	var all []mutant
	for _, file := range r.Files {
		content, err := os.ReadFile(filepath.Join(g.clone, pkg, file.Name))
		if err != nil {
			return nil, err
		}
		lines := bytes.Split(content, []byte("\n"))
		for _, m := range file.Mutations {
			all = append(all, mutant{pkg, file.Name, m.Line, m.Column, m.Type, m.Status, string(bytes.TrimSpace(lines[m.Line-1]))})
		}
	}
	slices.SortFunc(all, func(a, b mutant) int {
		return cmp.Or(cmp.Compare(a.file, b.file), a.line-b.line, a.column-b.column, cmp.Compare(a.kind, b.kind))
	})
	return all, nil
}

// report lists the changes that were not detected, and returns how many percent of all were. Changes that do not compile
// do not count.
func report(out io.Writer, only []string, all []mutant) (percent float64) {
	fmt.Fprintln(out, "\nNot detected:")
	for _, m := range all {
		if !m.detected() && m.counts() {
			why := ""
			if e := m.equivalent(); e != "" {
				why = "\n    equivalent: " + e
			}
			fmt.Fprintf(out, "%s/%s:%d:%d %s %s\n    %s%s\n", m.pkg, m.file, m.line, m.column, m.kind, m.status, m.code, why)
		}
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "package\tchanges\tdetected\tpercent\tequivalent\tleft\t")
	row := func(name string, of []mutant) float64 {
		var detected, equivalent, left int
		for _, m := range of {
			switch {
			case !m.counts():
			case m.detected():
				detected++
			case m.equivalent() != "":
				equivalent++
			default:
				left++
			}
		}
		n := detected + equivalent + left
		percent := 100 * float64(detected) / float64(max(n, 1))
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%d\t%d\t\n", name, n, detected, percent, equivalent, left)
		return percent
	}
	for _, pkg := range only {
		row(pkg, slices.DeleteFunc(slices.Clone(all), func(m mutant) bool { return m.pkg != pkg }))
	}
	percent = row("all", all)
	w.Flush()
	return percent
}

// counts reports that the tests could judge the change.
func (m mutant) counts() bool { return m.status != "NOT VIABLE" && m.status != "SKIPPED" }

// detected reports that a test failed, or never ended.
func (m mutant) detected() bool { return m.status == "KILLED" || m.status == "TIMED OUT" }
