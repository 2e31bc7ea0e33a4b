// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kernel is one to test on, in the cache.
type kernel struct {
	wanted  string // "6.1", or "7.3-rt" with PREEMPT_RT
	version string // "6.1.192-2"
	image   string // vmlinuz
	modules string // a folder with those that are to be loaded
}

// suite is one of Debian's, in one of its archives.
type suite struct{ archive, suite string }

// suites are where Debian has kernels. The oldest still maintained is in the first one.
var suites = []suite{
	{"Debian-Security", "bullseye-security"},
	{"Debian-Security", "bookworm-security"},
	{"Debian-Security", "trixie-security"},
	{"Debian", "trixie-backports"},
}

// keyring is that of package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// The flavours: without drivers of hardware, which is enough in an emulator, and with PREEMPT_RT, whose versions end in -rt.
const (
	cloud    = "-cloud-amd64"
	realtime = "-rt-amd64"
)

// shelf is where kernels are kept from one run to the next.
type shelf struct {
	folder   string
	progress io.Writer
}

// get returns the newest kernel of the version that Debian has, or with an earlier run the one that it got then, if with
// the same modules.
func (s shelf) get(ctx context.Context, wanted string) (kernel, error) {
	folder := filepath.Join(s.folder, wanted)
	k := kernel{wanted: wanted, image: filepath.Join(folder, "vmlinuz"), modules: filepath.Join(folder, "modules")}
	version, err := os.ReadFile(filepath.Join(folder, "version"))
	taken, _ := os.ReadFile(filepath.Join(folder, "taken"))
	if errors.Is(err, os.ErrNotExist) || string(taken) != strings.Join(modules, "\n") {
		if err := s.fetch(ctx, wanted); err != nil {
			return kernel{}, fmt.Errorf("get Linux %s: %w", wanted, err)
		}
		version, err = os.ReadFile(filepath.Join(folder, "version"))
	}
	k.version = string(version)
	return k, err
}

// fetch downloads a kernel, and leaves in the cache what is needed of it.
func (s shelf) fetch(ctx context.Context, wanted string) error {
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(s.folder, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	a, err := newApt(ctx, scratch, suites)
	if err != nil {
		return err
	}
	name, version, err := a.newest(ctx, wanted)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.progress, "Linux %s: downloading %s (%s), once\n", wanted, name, version)
	tree := filepath.Join(scratch, "tree")
	if err := a.unpack(ctx, name, tree); err != nil {
		return err
	}

	made := filepath.Join(scratch, "made")
	if err := os.MkdirAll(filepath.Join(made, "modules"), 0o755); err != nil {
		return err
	}
	image, err := only(filepath.Join(tree, "boot", "vmlinuz-*"), filepath.Join(tree, "usr/lib/modules/*/vmlinuz"))
	if err != nil {
		return err
	}
	if err := os.Rename(image, filepath.Join(made, "vmlinuz")); err != nil {
		return err
	}
	if err := copyModules(ctx, tree, filepath.Join(made, "modules")); err != nil {
		return err
	}
	for name, contents := range map[string]string{"version": version, "taken": strings.Join(modules, "\n")} {
		if err := os.WriteFile(filepath.Join(made, name), []byte(contents), 0o644); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(s.folder, wanted)); err != nil {
		return err
	}
	return os.Rename(made, filepath.Join(s.folder, wanted))
}

// only returns the only file that the patterns find.
func only(patterns ...string) (string, error) {
	var found []string
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		found = append(found, files...)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%q instead of one kernel in the package", found)
	}
	return found[0], nil
}

// apt is Debian's package manager with lists of its own, so that the machine's stay as they are. Nothing is installed.
type apt struct {
	folder  string
	options []string
}

// newApt takes Debian's archives from where this machine takes them, and fetches the lists of the suites.
func newApt(ctx context.Context, scratch string, suites []suite) (apt, error) {
	a := apt{folder: scratch}
	archives, err := a.run(ctx, "apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages", "Origin: Debian")
	if err != nil {
		return apt{}, fmt.Errorf("find out where Debian's packages come from (it needs a Debian machine): %w", err)
	}
	at := map[string]string{}
	for line := range strings.Lines(archives) {
		if label, uri, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			at[label] = uri
		}
	}
	var sources strings.Builder
	for _, s := range suites {
		if at[s.archive] == "" {
			return apt{}, fmt.Errorf("apt knows no archive %s: add it to the sources and run apt-get update", s.archive)
		}
		fmt.Fprintf(&sources, "deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, at[s.archive], s.suite)
	}
	list := filepath.Join(scratch, "sources.list")
	if err := os.WriteFile(list, []byte(sources.String()), 0o644); err != nil {
		return apt{}, err
	}
	for _, folder := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(scratch, folder), 0o755); err != nil {
			return apt{}, err
		}
	}
	a.options = []string{
		"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + filepath.Join(scratch, "lists"), "-o", "Dir::Cache=" + filepath.Join(scratch, "cache"),
		"-o", "APT::Architecture=amd64", "-o", "APT::Architectures::=amd64",
		"-o", "APT::Sandbox::User=root", // who may write where the cache is
	}
	_, err = a.run(ctx, "apt-get", "update", "-q")
	return a, err
}

func (a apt) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, append(slices.Clone(a.options), args...)...)
	cmd.Dir = a.folder
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// newest returns the name of the package with the newest kernel of a version such as 6.1 or 7.3-rt, and the package's version.
func (a apt) newest(ctx context.Context, wanted string) (name, version string, err error) {
	flavour := cloud
	if version, isRealtime := strings.CutSuffix(wanted, "-rt"); isRealtime {
		wanted, flavour = version, realtime
	}
	pattern := "^linux-image-" + regexp.QuoteMeta(wanted) + `\..*` + flavour + "$"
	found, err := a.run(ctx, "apt-cache", "pkgnames", "linux-image-"+wanted+".")
	if err != nil {
		return "", "", err
	}
	matches := regexp.MustCompile("(?m)"+pattern).FindAllString(found, -1)
	if len(matches) == 0 {
		return "", "", fmt.Errorf("no such kernel in Debian's %v", suites)
	}
	shown, err := a.run(ctx, "apt-cache", append([]string{"show", "--no-all-versions"}, matches...)...)
	if err != nil {
		return "", "", err
	}
	packageName := ""
	for line := range strings.Lines(shown) {
		field, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case field == "Package":
			packageName = value
		case field == "Version" && compareVersions(value, version) > 0:
			name, version = packageName, value
		}
	}
	return name, version, nil
}

// compareVersions compares what comes before the first hyphen, which is the kernel's own version.
func compareVersions(a, b string) int {
	numbers := func(version string) (n []int) {
		upstream, _, _ := strings.Cut(version, "-")
		for part := range strings.SplitSeq(upstream, ".") {
			i, _ := strconv.Atoi(part)
			n = append(n, i)
		}
		return n
	}
	return slices.Compare(numbers(a), numbers(b))
}

// unpack downloads a kernel and unpacks it. Newer ones are in packages of their own, which the image only asks for.
func (a apt) unpack(ctx context.Context, image, tree string) error {
	release := strings.TrimPrefix(image, "linux-image-")
	found, err := a.run(ctx, "apt-cache", "pkgnames", "linux-")
	if err != nil {
		return err
	}
	download := []string{"download"}
	for name := range strings.Lines(found) {
		switch name = strings.TrimSpace(name); name {
		case image, "linux-binary-" + release, "linux-modules-" + release:
			download = append(download, name)
		}
	}
	return a.extract(ctx, tree, download)
}

// extract downloads packages by their names and unpacks them.
func (a apt) extract(ctx context.Context, tree string, download []string) error {
	if _, err := a.run(ctx, "apt-get", download...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(a.folder, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range packages {
		if err := exec.CommandContext(ctx, "dpkg-deb", "--extract", file, tree).Run(); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}
