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
	ErrModeConflict      = errors.New("an older counter wants it in another mode")
	ErrCountedElsewhere  = errors.New("its frames are counted at another interface")
	ErrNoEthernet        = errors.New("its packets have no Ethernet header")
	ErrPending           = errors.New("the counts of an earlier attachment are not saved yet")
)
