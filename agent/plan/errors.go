// SPDX-License-Identifier: Apache-2.0

package plan

import "errors"

// Errors of one attachment. Package datapath wraps them together with the cause, and the agent maps them to reasons of the API.
var (
	ErrHookInUse         = errors.New("another XDP program holds the hook")
	ErrUpperHasProgram   = errors.New("an interface above this one has an XDP program")
	ErrInterfaceGone     = errors.New("the interface is gone")
	ErrPermission        = errors.New("not permitted")
	ErrBPFFSNotMounted   = errors.New("no BPF file system is mounted")
	ErrKernelTooOld      = errors.New("the kernel has no XDP links (Linux 5.9)")
	ErrOutOfMemory       = errors.New("the kernel has no memory for it")
	ErrModeConflict      = errors.New("an older counter wants it in another mode")
	ErrCountedElsewhere  = errors.New("its frames are counted at another interface")
	ErrNoMembers         = errors.New("it has no members, through which it would receive frames")
	ErrDispatcherRefused = errors.New("the hook cannot be shared by a dispatcher here")
	ErrNoEthernet        = errors.New("its packets have no Ethernet header")
	ErrPending           = errors.New("the counts of an earlier attachment are not saved yet")
)

// Errors of a driver that refuses native mode. Generic mode works then, because it does not depend on the driver.
var (
	ErrNativeUnsupported = errors.New("the driver has no native XDP")
	ErrMTUTooLarge       = errors.New("the MTU is too large for native XDP")
	ErrNotEnoughQueues   = errors.New("the queues do not suffice for native XDP")
	ErrOffloadConflict   = errors.New("an offload that is on rules native XDP out")
	ErrMemberHasProgram  = errors.New("a member of the interface has an XDP program")
	ErrNativeRefused     = errors.New("the driver refuses native XDP")
)
