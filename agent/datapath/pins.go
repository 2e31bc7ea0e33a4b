package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/bpf"
)

// errForeign is a pin that is not of this package.
var errForeign = errors.New("not a pin of xdp-operator")

// folder is where the pins of one attachment are. It need not exist.
type folder struct {
	path string
}

func (f folder) counts() string     { return filepath.Join(f.path, "counts") }
func (f folder) programPin() string { return filepath.Join(f.path, "program") }
func (f folder) linkPin() string    { return filepath.Join(f.path, "link") }

// folders returns those that there are, of this layout, whatever they hold.
func (d *Datapath) folders() ([]folder, error) {
	entries, err := os.ReadDir(d.layout())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the pins: %w", err)
	}
	var folders []folder
	for _, e := range entries {
		// Whoever made something else here, it is not an attachment.
		if index, err := strconv.Atoi(e.Name()); err == nil && index > 0 && e.IsDir() {
			folders = append(folders, d.folder(index))
		}
	}
	return folders, nil
}

// counts opens the folder's map. The error wraps os.ErrNotExist if there is none, and errForeign if it is not a table
// of this layout for this machine.
func (d *Datapath) counts(f folder) (counts *ebpf.Map, id uint32, err error) {
	counts, err = ebpf.LoadPinnedMap(f.counts(), nil)
	if err != nil {
		return nil, 0, pinError(f.counts(), err)
	}
	defer func() {
		if err != nil {
			counts.Close()
		}
	}()
	if counts.ValueSize() != uint32(d.cpus*bpf.BytesPerCPU) || counts.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return nil, 0, fmt.Errorf("%s: %w: a map of another shape", f.counts(), errForeign)
	}
	info, err := counts.Info()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", f.counts(), err)
	}
	mapID, ok := info.ID()
	if !ok {
		return nil, 0, fmt.Errorf("%s: the kernel gives no ID", f.counts())
	}
	return counts, uint32(mapID), nil
}

// program returns ID and tag of the pinned program.
func (f folder) program() (id uint32, tag string, err error) {
	program, err := ebpf.LoadPinnedProgram(f.programPin(), nil)
	if err != nil {
		return 0, "", pinError(f.programPin(), err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", f.programPin(), err)
	}
	programID, _ := info.ID()
	return uint32(programID), info.Tag, nil
}

// linkState is what a link is attached to. It is zero without a link, and once the link was detached or the interface
// deleted: the link then lives on but leads nowhere.
type linkState struct {
	index   int
	program uint32
}

func (f folder) link() (linkState, error) {
	l, err := openLink(f.linkPin())
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return linkState{}, nil
	}
	if err != nil {
		return linkState{}, err
	}
	defer l.Close()
	return stateOf(l)
}

func openLink(pin string) (link.Link, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return nil, pinError(pin, err)
	}
	return l, nil
}

func stateOf(l link.Link) (linkState, error) {
	info, err := l.Info()
	if err != nil {
		return linkState{}, fmt.Errorf("look at the link: %w", err)
	}
	xdp := info.XDP()
	if xdp == nil || xdp.Ifindex == 0 {
		return linkState{}, nil
	}
	return linkState{index: int(xdp.Ifindex), program: uint32(info.Program)}, nil
}

// remove removes the folder and what is in it. The counts go last, so that what a killed remove leaves can still be
// read, or is nothing.
func (f folder) remove() error {
	var errs []error
	entries, err := os.ReadDir(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs = append(errs, err)
	for _, e := range entries {
		if path := filepath.Join(f.path, e.Name()); path != f.counts() {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the pins: %w", err)
	}
	if err := os.RemoveAll(f.path); err != nil {
		return fmt.Errorf("remove the pins: %w", err)
	}
	return nil
}

// pinError tells a pin of another kind, which opens well but is not what was asked for, from an error of the kernel.
func pinError(path string, err error) error {
	if _, ok := errors.AsType[syscall.Errno](err); !ok {
		return fmt.Errorf("%s: %w: %w", path, errForeign, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}
