package plan

import "errors"

// What can go wrong with one attachment. The kernel's edge wraps them together with the cause; the agent turns
// them into reasons.
var (
	ErrHookInUse         = errors.New("another XDP program holds the hook")
	ErrNativeUnsupported = errors.New("the driver has no native XDP")
	ErrMTUTooLarge       = errors.New("the MTU is too large for native XDP")
	ErrInterfaceGone     = errors.New("the interface is gone")
	ErrPermission        = errors.New("not permitted")
	ErrBPFFSNotMounted   = errors.New("no BPF file system is mounted")
	ErrKernelTooOld      = errors.New("the kernel has no XDP links (Linux 5.9)")
	ErrDispatcherRefused = errors.New("the hook cannot be shared by a dispatcher here")
	ErrPending           = errors.New("the counts of an earlier attachment are not saved yet")
)
