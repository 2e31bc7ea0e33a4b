package main

import (
	"errors"
	"os"
	"strings"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// What can go wrong before an attempt to attach; the attempt's own errors are those of package plan.
var (
	errNoInterface   = errors.New("no such interface")
	errNothingPinned = errors.New("nothing is pinned") // --pinned where no agent counts
)

const rights = "needs root, or the capabilities BPF, NET_ADMIN and PERFMON"

// statuses are the exit statuses of docs/xdpcount.md, each with a hint for the one who reads the error. The first that
// fits holds: that something may not be looked at can wear the dress of what was looked for.
var statuses = []struct {
	cause  error
	status int
	hint   string
}{
	{errUsage, 2, "xdpcount -h lists the flags"},
	{plan.ErrPermission, 5, rights},
	{os.ErrPermission, 5, rights},
	{errNoInterface, 3, ""},
	{plan.ErrInterfaceGone, 3, ""},
	{plan.ErrHookInUse, 4, ""},
	{plan.ErrBPFFSNotMounted, 6, "--bpffs names another path"},
	{plan.ErrNativeUnsupported, 7, "without -N it is attached in generic mode"},
	{plan.ErrMTUTooLarge, 7, "without -N it is attached in generic mode"},
	{errNothingPinned, 8, "without --pinned xdpcount counts by itself"},
	{plan.ErrKernelTooOld, 9, ""},
}

// status returns the exit status: 0 without an error, 1 for one that has none of its own.
func status(err error) int {
	if err == nil {
		return 0
	}
	for _, s := range statuses {
		if errors.Is(err, s.cause) {
			return s.status
		}
	}
	return 1
}

// line returns the error in one line.
func line(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	for _, s := range statuses {
		if !errors.Is(err, s.cause) {
			continue
		}
		if s.hint == "" {
			return text
		}
		return text + " (" + s.hint + ")"
	}
	return text
}
