// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/cmd/internal/exit"
)

// Errors that are found before attaching. Those of attaching are in package plan.
var (
	errNoInterface   = errors.New("no such interface")
	errNothingPinned = errors.New("nothing is pinned") // --pinned, but no agent counts
)

const rightsHint = "requires root, or the capabilities BPF, NET_ADMIN and PERFMON"

// statuses are the exit statuses of docs/xdpcount.md, with a hint for the user. The first that matches applies. Permission
// errors come first, because other errors can wrap them.
var statuses = exit.Causes{
	{Err: errUsage, Status: 2, Hint: "xdpcount -h lists the flags"},
	{Err: plan.ErrPermission, Status: 5, Hint: rightsHint},
	{Err: os.ErrPermission, Status: 5, Hint: rightsHint},
	{Err: errNoInterface, Status: 3},
	{Err: plan.ErrInterfaceGone, Status: 3},
	{Err: plan.ErrNoMembers, Status: 3},
	{Err: plan.ErrHookInUse, Status: 4},
	{Err: plan.ErrBPFFSNotMounted, Status: 6, Hint: "--bpffs selects another path"},
	{Err: plan.ErrNativeUnsupported, Status: 7, Hint: "without -N the program is attached in generic mode"},
	{Err: plan.ErrMTUTooLarge, Status: 7, Hint: "without -N the program is attached in generic mode"},
	{Err: errNothingPinned, Status: 8, Hint: "without --pinned, xdpcount attaches its own program"},
	{Err: plan.ErrKernelTooOld, Status: 9},
}
