package main

import (
	"errors"
	"os"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/cmd/internal/exit"
)

// What can go wrong before an attempt to attach; the attempt's own errors are those of package plan.
var (
	errNoInterface   = errors.New("no such interface")
	errNothingPinned = errors.New("nothing is pinned") // --pinned where no agent counts
)

const rights = "needs root, or the capabilities BPF, NET_ADMIN and PERFMON"

// statuses are the exit statuses of docs/xdpcount.md, each with a hint for the one who reads the error. The first that
// fits holds: that something may not be looked at can wear the dress of what was looked for.
var statuses = exit.Causes{
	{Err: errUsage, Status: 2, Hint: "xdpcount -h lists the flags"},
	{Err: plan.ErrPermission, Status: 5, Hint: rights},
	{Err: os.ErrPermission, Status: 5, Hint: rights},
	{Err: errNoInterface, Status: 3},
	{Err: plan.ErrInterfaceGone, Status: 3},
	{Err: plan.ErrHookInUse, Status: 4},
	{Err: plan.ErrBPFFSNotMounted, Status: 6, Hint: "--bpffs names another path"},
	{Err: plan.ErrNativeUnsupported, Status: 7, Hint: "without -N it is attached in generic mode"},
	{Err: plan.ErrMTUTooLarge, Status: 7, Hint: "without -N it is attached in generic mode"},
	{Err: errNothingPinned, Status: 8, Hint: "without --pinned xdpcount counts by itself"},
	{Err: plan.ErrKernelTooOld, Status: 9},
}
