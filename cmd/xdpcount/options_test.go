// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

func TestParse(t *testing.T) {
	with := func(change func(*options)) options {
		o := options{names: []string{"eth0"}, mode: plan.Auto, interval: 2 * time.Second, output: "table", bpffs: "/sys/fs/bpf"}
		change(&o)
		return o
	}
	for name, test := range map[string]struct {
		args []string
		want options
	}{
		"one interface":                       {[]string{"eth0"}, with(func(*options) {})},
		"several interfaces keep their order": {[]string{"eth1", "eth0"}, with(func(o *options) { o.names = []string{"eth1", "eth0"} })},
		"-S as in xdp1":                       {[]string{"-S", "eth0"}, with(func(o *options) { o.mode = plan.Generic })},
		"-N as in xdp1":                       {[]string{"-N", "eth0"}, with(func(o *options) { o.mode = plan.Native })},
		"flags between and after names":       {[]string{"eth0", "-N", "eth1", "--count=3"}, with(func(o *options) { o.names = []string{"eth0", "eth1"}; o.mode = plan.Native; o.count = 3 })},
		"all other flags":                     {[]string{"--interval", "500ms", "--output", "json", "--duration", "1m", "eth0"}, with(func(o *options) { o.interval = 500 * time.Millisecond; o.output = "json"; o.duration = time.Minute })},
		"--pinned without interface":          {[]string{"--pinned"}, with(func(o *options) { o.names = nil; o.pinned = true })},
		"--pinned with --bpffs and interface": {[]string{"--pinned", "--bpffs", "/b", "eth0"}, with(func(o *options) { o.pinned = true; o.bpffs = "/b" })},
		"names after --":                      {[]string{"--", "-S", "eth0"}, with(func(o *options) { o.names = []string{"-S", "eth0"} })},
		"-- between names":                    {[]string{"eth0", "-N", "--", "--"}, with(func(o *options) { o.names = []string{"eth0", "--"}; o.mode = plan.Native })},
	} {
		got, err := parse(test.args)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(options{})); diff != "" || err != nil {
			t.Errorf("%s: error %v (-want +got):\n%s", name, err, diff)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for args, want := range map[string]string{
		"":                           "an interface name is required",
		"--count 3":                  "an interface name is required",
		"-S -N eth0":                 "-S and -N exclude each other",
		"-N --pinned":                "-S and -N cannot be used with --pinned, which attaches nothing",
		"eth0 eth1 eth0":             `interface "eth0" is given twice`,
		"--output yaml eth0":         `--output is "yaml", must be table or json`,
		"--interval 0 eth0":          "--interval is 0s, must be at least 10ms",
		"--interval 2 eth0":          `invalid value "2" for flag -interval: parse error`,
		"--duration -1s eth0":        "--duration is -1s, must not be negative",
		"--count -1 eth0":            "--count is -1, must not be negative",
		"--skb eth0":                 "flag provided but not defined: -skb",
		"eth0 --interval":            "flag needs an argument: -interval",
		"--pinned --output= --count": "flag needs an argument: -count",
	} {
		_, err := parse(strings.Fields(args))
		if !errors.Is(err, errUsage) || statuses.Status(err) != 2 {
			t.Errorf("%q: error %v with status %d", args, err, statuses.Status(err))
			continue
		}
		if got := statuses.Line(err); got != "usage: "+want+" (xdpcount -h lists the flags)" {
			t.Errorf("%q: %s", args, got)
		}
	}
	if _, err := parse([]string{"eth0", "-h"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
	if _, err := parse([]string{""}); !errors.Is(err, errUsage) {
		t.Errorf("an empty name: %v", err)
	}
}

func TestUsage(t *testing.T) {
	golden.Check(t, "testdata/usage.txt", usage())
}

func TestNoKubernetesDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	for _, dep := range deps {
		if strings.HasPrefix(dep, "k8s.io/") || strings.HasPrefix(dep, "sigs.k8s.io/") {
			t.Errorf("depends on %s", dep)
		}
	}
	if len(deps) < 10 {
		t.Errorf("go list returns only %v", deps)
	}
}
