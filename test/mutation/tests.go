// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// alsoTests are packages whose tests run, too.
var alsoTests = []string{"./test/histories"}

const module = "github.com/xdp-operator/xdp-operator"

// Exit statuses, as gremlins reads them.
const (
	passed    = 0
	failed    = 1
	notViable = 2
)

// testMutant stands for the go command while gremlins runs: gremlins runs the tests of one package only, and takes a change
// that does not compile for one that was detected.
func testMutant(args []string) (status int) {
	root, own := moduleRoot(), os.Getenv(ownPkg)
	coverage := slices.Index(args, "-coverprofile")
	switch {
	case len(args) == 0 || args[0] != "test":
		return command("", args...)
	case coverage > 0:
		// gremlins changes only what the profile calls covered, and Go's profiles leave out the conditions of a switch.
		for _, pkg := range append([]string{own}, alsoTests...) {
			if status := command(root, "test", "-count=1", pkg); status != passed {
				return status
			}
		}
		return writeProfile(root, own, args[coverage+1])
	}
	if command(root, "build", own) != passed {
		return notViable
	}
	for _, pkg := range append([]string{own}, alsoTests...) {
		if command(root, "test", "-count=1", "-vet=off", "-ldflags=-s -w", "-failfast", testTimeout, pkg) != passed {
			return failed
		}
	}
	return passed
}

// testTimeout ends tests that do not end by themselves.
const testTimeout = "-timeout=2m"

// writeProfile writes a coverage profile in which all code of the package is covered.
func writeProfile(root, own, path string) (status int) {
	files, err := filepath.Glob(filepath.Join(root, own, "*.go"))
	var profile strings.Builder
	profile.WriteString("mode: set\n")
	for _, file := range files {
		fmt.Fprintf(&profile, "%s/%s:1.1,1000000.1 1 1\n", strings.Replace(own, ".", module, 1), filepath.Base(file))
	}
	if err := errors.Join(err, os.WriteFile(path, []byte(profile.String()), 0o600)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return notViable
	}
	return passed
}

// moduleRoot returns the top folder of the clone around the working directory.
func moduleRoot() string {
	out, err := exec.Command(os.Getenv(realGo), "list", "-m", "-f", "{{.Dir}}").Output() //nolint:noctx // ends by itself
	if err != nil {
		fmt.Fprintln(os.Stderr, "find the module:", err)
		os.Exit(notViable)
	}
	return strings.TrimSpace(string(out))
}

// command runs the real go command and returns its exit status.
func command(dir string, args ...string) (status int) {
	cmd := exec.Command(os.Getenv(realGo), args...) //nolint:noctx // gremlins ends it with this process
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return passed
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		fmt.Fprintln(os.Stderr, err)
		return notViable
	}
}
