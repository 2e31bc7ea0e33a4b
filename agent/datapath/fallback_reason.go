package datapath

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// note is why native mode was refused to what is attached generically, and in which deviceFacts. It is kept beside the
// pins, so that it ends with them and a restarted agent knows it too. A bpffs holds no files, but symbolic links, whose
// targets may be any text (bpf_symlink of kernel/bpf/inode.c).
type fallbackReason struct {
	Cause     string      `json:"cause"`
	Message   string      `json:"message"`
	Situation deviceFacts `json:"situation"`
}

// fallbackCauses name what a note can tell of: what lies with the driver. The names are kept in the pins of running systems.
var fallbackCauses = map[string]error{
	"NativeUnsupported": plan.ErrNativeUnsupported,
	"MTUTooLarge":       plan.ErrMTUTooLarge,
	"NotEnoughQueues":   plan.ErrNotEnoughQueues,
	"OffloadConflict":   plan.ErrOffloadConflict,
	"MemberHasProgram":  plan.ErrMemberHasProgram,
	"OutOfMemory":       plan.ErrOutOfMemory,
	"NativeRefused":     plan.ErrNativeRefused,
}

// noted is a refusal that was read back.
type driverRejection struct {
	cause   error
	message string
}

func (n driverRejection) Error() string { return n.message }
func (n driverRejection) Unwrap() error { return n.cause }

// longestMessage leaves room for the rest in a symbolic link's target of 4 KiB, also where JSON writes six bytes for one.
const longestMessage = 512

func (f folder) fallbackReasonPin() string { return f.path + "/refusal" }

// note writes down why native mode was refused in the deviceFacts.
func (f folder) saveFallbackReason(refused error, s deviceFacts) error {
	n := fallbackReason{Message: refused.Error(), Situation: s}
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
		return permission(fmt.Errorf("note why native mode was refused: %w", err))
	}
	return nil
}

// refused reads the note. The error is what was noted, nil if there is nothing that can be understood.
func (f folder) loadFallbackReason() (then deviceFacts, refused error) {
	text, err := os.Readlink(f.fallbackReasonPin())
	if err != nil {
		return deviceFacts{}, nil //nolint:nilerr // there is no note
	}
	var n fallbackReason
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return deviceFacts{}, nil //nolint:nilerr // another version's: nothing is known
	}
	cause, known := fallbackCauses[n.Cause]
	if !known {
		cause = plan.ErrNativeRefused
	}
	return n.Situation, driverRejection{cause, n.Message}
}
