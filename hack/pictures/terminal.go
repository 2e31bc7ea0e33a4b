// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/terminal"
)

// The terminal in which commands run. kubectl's tables do not heed its width.
const columns, lines = 110, 40

// command is an exec.Cmd, or one that starts on a node.
type command interface{ Start() error }

// picture runs a command in a terminal, to its end or for as long as live says, and draws what stands there.
func picture(name, prompt string, c command, live time.Duration) error {
	text, err := show(c, live)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", prompt, err, text)
	}
	return os.WriteFile(filepath.Join(folder, name+".svg"), []byte(draw(prompt, text)), 0o644)
}

func show(c command, live time.Duration) (text string, err error) {
	screen, end, err := terminal.New(columns, lines)
	if err != nil {
		return "", err
	}
	defer screen.Close()
	cmd := process(c)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = end, end, end
	if err := errors.Join(c.Start(), end.Close()); err != nil {
		return "", err
	}
	var stands lockedBuilder
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&stands, screen) // it ends with an error when the command does
	}()
	if live > 0 {
		time.Sleep(live)
		text = standing(stands.String())
		err = cmd.Process.Signal(syscall.SIGTERM)
	}
	err = errors.Join(err, cmd.Wait())
	<-read
	if live == 0 {
		text = standing(stands.String())
	}
	// why ends with 4 if the counter is not Ready: that is what is shown.
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 4 {
		err = nil
	}
	return text, err
}

func process(c command) *exec.Cmd {
	if onNode, ok := c.(*sandbox.Cmd); ok {
		return onNode.Cmd
	}
	return c.(*exec.Cmd)
}

// lockedBuilder is a strings.Builder for one who writes and one who reads.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// standing returns what stands on the terminal once all of that was printed. Ours print a table in the place of the one
// before by one sequence, which ends with this.
func standing(printed string) string {
	if i := strings.LastIndex(printed, "\x1b[J"); i >= 0 {
		printed = printed[i+len("\x1b[J"):]
	}
	return strings.ReplaceAll(printed, "\r\n", "\n")
}

// send sends frames of all kinds to each node, more of some and to some, and now more and now less, until the context ends.
func send(ctx context.Context, nodes []*netnscluster.Node) error {
	var senders []*frames.Sender
	defer func() {
		for _, s := range senders {
			_ = s.Close()
		}
	}()
	for _, n := range nodes {
		s, err := n.Sender()
		if err != nil {
			return err
		}
		senders = append(senders, s)
	}
	kinds := frames.Common()
	for round := 0; ; round++ {
		for i, s := range senders {
			for k, f := range kinds {
				wave := 1.5 + math.Sin(float64(round)/40+float64(k))
				if err := s.Send(f.Data, int(wave*float64((i+1)*(len(kinds)-k)))); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
