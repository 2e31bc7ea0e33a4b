// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// result is what came out of one guest.
type result struct {
	kernel   kernel
	release  string
	packages []*packageResult
	findings map[string]report.Finding // by feature, with the level of lockdown in front
	left     []report.Left
	errs     []error // of the guest itself
	done     bool
	booted   time.Duration
	took     time.Duration

	progress io.Writer
	now      *packageResult // whose output is being read; nil between two
	test     string         // the test whose output is being read
}

// packageResult is what came out of the tests of one package.
type packageResult struct {
	name            string
	passed          int // subtests included
	failed, skipped []string
	output          map[string][]string // by test
	end             report.End
	ended           bool
}

func newResult(k kernel, progress io.Writer) *result {
	return &result{kernel: k, progress: progress, findings: map[string]report.Finding{}}
}

// The lines of go test -v=test2json that matter: a test begins or goes on, and ends.
var (
	names = regexp.MustCompile(`^\x16=== (?:RUN|NAME|CONT|PAUSE) +(.*)$`)
	ends  = regexp.MustCompile(`^\x16 *--- (PASS|FAIL|SKIP): (.*) \([0-9.]+s\)$`)
)

// read takes the next line that the guest reports, which came so long after it was switched on.
func (r *result) read(text string, after time.Duration) {
	text = strings.TrimRight(text, "\r")
	line, own, err := report.Parse(text)
	switch {
	case err != nil:
		r.errs = append(r.errs, err)
	case own:
		r.take(line, after)
	case r.now != nil:
		r.now.read(text, &r.test)
	}
}

func (r *result) take(line report.Line, after time.Duration) {
	switch {
	case line.Release != "":
		r.release, r.booted = line.Release, after
		fmt.Fprintf(r.progress, "Linux %s: %s is up after %.1f s\n", r.kernel.wanted, line.Release, after.Seconds())
	case line.Begin != "":
		r.now, r.test = &packageResult{name: line.Begin, output: map[string][]string{}}, ""
		r.packages = append(r.packages, r.now)
	case line.Finding.Feature != "":
		level := ""
		if r.now != nil {
			_, level, _ = strings.Cut(r.now.name, "lockdown=")
		}
		r.findings[level+line.Finding.Feature] = line.Finding
	case line.Left.Name != "":
		r.left = append(r.left, line.Left)
		fmt.Fprintf(r.progress, "Linux %s: %s: not run: %s\n", r.kernel.wanted, line.Left.Name, line.Left.Why)
	case line.End != report.End{} && r.now != nil:
		r.now.end, r.now.ended = line.End, true
		fmt.Fprintf(r.progress, "Linux %s: %s\n", r.kernel.wanted, r.now)
		r.now = nil
	case line.Error != "":
		r.errs = append(r.errs, errors.New(line.Error))
	case line.Done:
		r.done = true
	}
}

func (p *packageResult) read(text string, test *string) {
	if m := names.FindStringSubmatch(text); m != nil {
		*test = m[1]
		return
	}
	if m := ends.FindStringSubmatch(text); m != nil {
		switch m[1] {
		case "PASS":
			p.passed++
			delete(p.output, m[2])
		case "FAIL":
			p.failed = append(p.failed, m[2])
		case "SKIP":
			p.skipped = append(p.skipped, m[2])
		}
		return
	}
	if text != "" {
		p.output[*test] = append(p.output[*test], text)
	}
}

func (p *packageResult) String() string {
	s := fmt.Sprintf("%-42s %4d passed", p.name, p.passed)
	if n := len(p.failed); n > 0 {
		s += fmt.Sprintf(", %d FAILED", n)
	}
	if n := len(p.skipped); n > 0 {
		s += fmt.Sprintf(", %d SKIPPED", n)
	}
	return s + fmt.Sprintf(" %6.1f s", p.end.Seconds)
}

// verdict returns everything that is not as it has to be, with the output of failed tests. With some, it is as it has to
// be that only some of the tests were run.
func (r *result) verdict(some bool) error {
	errs := slices.Clone(r.errs)
	for _, p := range r.packages {
		for _, name := range p.failed {
			errs = append(errs, fmt.Errorf("%s: %s failed\n%s", p.name, name, strings.Join(p.output[name], "\n")))
		}
		for _, name := range p.skipped {
			errs = append(errs, fmt.Errorf("%s: %s was skipped, which no test may be", p.name, name))
		}
		switch {
		case !p.ended || p.end.Status != 0 && len(p.failed) == 0:
			errs = append(errs, fmt.Errorf("%s ended with status %d\n%s", p.name, p.end.Status, strings.Join(p.output[""], "\n")))
		case !some && p.passed == 0 && len(p.failed) == 0:
			errs = append(errs, fmt.Errorf("%s: no test was run", p.name))
		}
	}
	if n := len(r.packages) + len(r.left); n != len(tests) && len(r.errs) == 0 && !some {
		errs = append(errs, fmt.Errorf("%d of %d packages were run", n, len(tests)))
	}
	for _, f := range features {
		for _, key := range f.keys {
			if _, ok := r.findings[key]; !ok && !some {
				errs = append(errs, fmt.Errorf("it was not found out: %s", key))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("on Linux %s: %w", r.kernel.wanted, err)
	}
	return nil
}
