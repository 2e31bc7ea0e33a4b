// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
)

// What of a cluster outlives a kill of its sandbox is two things: a folder, and control groups with the folder's name.
// The process that runs the cluster holds a lock on a file in the folder; where nobody does, Sweep removes both.

// statesDir returns the folder with one folder per cluster.
func statesDir() (string, error) {
	cache, err := controlplane.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "clusters")
	return dir, os.MkdirAll(dir, 0o700)
}

// state is the folder and the lock of one cluster.
type state struct {
	dir    string
	cgroup string
	lock   *os.File
}

// prefix begins the names of the control groups of clusters in a folder. Other users have other folders.
func prefix(states string) string {
	sum := sha256.Sum256([]byte(states))
	return "xdp-operator-" + hex.EncodeToString(sum[:])[:8] + "-"
}

func newState() (*state, error) {
	states, err := statesDir()
	if err != nil {
		return nil, fmt.Errorf("make a folder for the cluster: %w", err)
	}
	all, err := lockFile(filepath.Join(states, ".lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer func() { _ = all.Close() }()
	id := fmt.Sprintf("%08x", rand.Uint32())
	s := &state{dir: filepath.Join(states, id), cgroup: prefix(states) + id}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for the cluster: %w", err)
	}
	s.lock, err = lockFile(filepath.Join(s.dir, "lock"), unix.LOCK_EX)
	return s, err
}

// remove removes the folder and the control groups. All processes of the cluster must have been killed.
func (s *state) remove() error {
	err := errors.Join(removeCgroup(s.cgroup), os.RemoveAll(s.dir))
	return errors.Join(err, s.lock.Close())
}

// AwaitEnd returns when the cluster of a folder, as Dir returned it, holds its lock no more: when pid 1 of a sandbox is
// seen to have ended, what it takes along may need another moment.
func AwaitEnd(dir string) error {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for the end of the cluster: %w", err)
	}
	defer func() { _ = lock.Close() }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

// Sweep removes what clusters have left behind that were killed.
func Sweep() error {
	states, err := statesDir()
	if err != nil {
		return err
	}
	all, err := lockFile(filepath.Join(states, ".lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { _ = all.Close() }()
	dead := map[string]bool{}
	entries, err := os.ReadDir(states)
	if err != nil {
		return err
	}
	alive := map[string]bool{}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		lock, err := lockFile(filepath.Join(states, e.Name(), "lock"), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			alive[e.Name()] = true
			continue
		}
		if err != nil {
			return err
		}
		_ = lock.Close() // nobody else takes it: its folder is no new one's
		dead[e.Name()] = true
	}
	groups, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range groups {
		found, err := filepath.Glob(filepath.Join(h.dir, prefix(states)+"*"))
		if err != nil {
			return err
		}
		for _, dir := range found {
			if id := strings.TrimPrefix(filepath.Base(dir), prefix(states)); !alive[id] {
				dead[id] = true
			}
		}
	}
	var errs []error
	for id := range dead {
		errs = append(errs, removeCgroup(prefix(states)+id), os.RemoveAll(filepath.Join(states, id)))
	}
	return errors.Join(errs...)
}

// lockFile takes a lock that the kernel gives back when the file is closed or the process ends.
func lockFile(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return file, nil
}
