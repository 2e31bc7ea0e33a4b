// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// fallbackReason is why native mode was refused to a program that Auto attached in generic mode, and what the device was
// like then. It is stored beside the pins, so that it is removed with them and a restarted agent finds it. A bpffs has no
// files but symbolic links, whose target may be any text (bpf_symlink of kernel/bpf/inode.c).
type fallbackReason struct {
	Cause   string      `json:"cause"`
	Message string      `json:"message"`
	Facts   deviceFacts `json:"situation"`
}

// fallbackCauses are the errors for which Auto attaches in generic mode, by the names that are stored. These are the errors
// for which a driver refuses native mode, and a lack of memory. The names must not change: they are in the pins of running
// systems.
var fallbackCauses = map[string]error{
	"NativeUnsupported": plan.ErrNativeUnsupported,
	"MTUTooLarge":       plan.ErrMTUTooLarge,
	"NotEnoughQueues":   plan.ErrNotEnoughQueues,
	"OffloadConflict":   plan.ErrOffloadConflict,
	"MemberHasProgram":  plan.ErrMemberHasProgram,
	"OutOfMemory":       plan.ErrOutOfMemory,
	"NativeRefused":     plan.ErrNativeRefused,
}

// driverRejection is the error of a stored fallbackReason.
type driverRejection struct {
	cause   error
	message string
}

func (n driverRejection) Error() string { return n.message }
func (n driverRejection) Unwrap() error { return n.cause }

// longestMessage leaves enough space for the other fields in a symbolic link's target of 4 KiB, even if JSON writes six
// bytes for each byte.
const longestMessage = 512

func (f folder) fallbackReasonPin() string { return f.path + "/refusal" }

// saveFallbackReason stores why native mode was refused, and the facts of the device at that time.
func (f folder) saveFallbackReason(refused error, facts deviceFacts) error {
	n := fallbackReason{Message: refused.Error(), Facts: facts}
	n.Message = n.Message[:min(len(n.Message), longestMessage)]
	for name, cause := range fallbackCauses {
		if errors.Is(refused, cause) {
			n.Cause = name
		}
	}
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := os.Symlink(string(text), f.fallbackReasonPin()); err != nil {
		return permission(fmt.Errorf("store why native mode was refused: %w", err))
	}
	return nil
}

// loadFallbackReason returns what saveFallbackReason stored. refused is nil if nothing is stored, or if it cannot be parsed.
func (f folder) loadFallbackReason() (then deviceFacts, refused error) {
	text, err := os.Readlink(f.fallbackReasonPin())
	if err != nil {
		return deviceFacts{}, nil //nolint:nilerr // nothing is stored
	}
	var n fallbackReason
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return deviceFacts{}, nil //nolint:nilerr // of another version
	}
	cause, known := fallbackCauses[n.Cause]
	if !known {
		cause = plan.ErrNativeRefused
	}
	return n.Facts, driverRejection{cause, n.Message}
}
