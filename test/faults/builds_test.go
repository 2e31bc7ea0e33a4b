// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The usual programs, with a clock that can be set wrong (build tag faults).
var (
	agentBuild      = filepath.Join(root, "bin/faults/agent")
	controllerBuild = filepath.Join(root, "bin/faults/controller")
)

// otherProgram is the agent with a counting program that has other instructions with the same effect. So its tag is
// different, as after an upgrade.
var otherProgram = filepath.Join(root, "bin/faults/agent-with-another-program")

// otherLayout is the agent with another layout of counts, into which it converts the pinned ones.
var otherLayout = filepath.Join(root, "bin/faults/agent-with-another-layout")

func prepareBuilds(ctx context.Context, progress io.Writer) error {
	if err := build(ctx, progress, "faults", "", agentBuild, "./cmd/agent"); err != nil {
		return err
	}
	if err := build(ctx, progress, "faults", "", controllerBuild, "./cmd/controller"); err != nil {
		return err
	}
	if err := build(ctx, progress, "faults,nextlayout", "", otherLayout, "./cmd/agent"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "xdp-operator-overlay-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := anotherProgram(dir)
	if err != nil {
		return fmt.Errorf("change the counting program: %w", err)
	}
	return build(ctx, progress, "faults", overlay, otherProgram, "./cmd/agent")
}

func build(ctx context.Context, progress io.Writer, tags, overlay, output, what string) error {
	output, err := filepath.Abs(output)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", tags, "-overlay", overlay, "-o", output, what)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, progress, progress
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", filepath.Base(output), err)
	}
	return nil
}

// changed replaces the function that bpf2go generated to load the object. Each XDP program starts with an additional
// instruction, which has no effect.
const changed = `package bpf

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func loadCounter() (*ebpf.CollectionSpec, error) {
	spec, err := loadCounterAsGenerated()
	if err != nil {
		return nil, err
	}
	for _, program := range spec.Programs {
		first := asm.Mov.Imm(asm.R0, 7)
		first.Metadata = program.Instructions[0].Metadata
		program.Instructions[0].Metadata = asm.Metadata{}
		program.Instructions = append(asm.Instructions{first}, program.Instructions...)
	}
	return spec, nil
}
`

// anotherProgram writes into dir an overlay for go build with a counting program of other instructions. It returns
// the overlay's file.
func anotherProgram(dir string) (string, error) {
	generated, err := filepath.Abs(filepath.Join(root, "bpf/counter_bpfel.go"))
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(generated)
	if err != nil {
		return "", err
	}
	const load = "func loadCounter()"
	if !strings.Contains(string(source), load) {
		return "", fmt.Errorf("%s has no %q", generated, load)
	}
	renamed := strings.ReplaceAll(string(source), "loadCounter()", "loadCounterAsGenerated()")
	replace := map[string]string{
		generated: filepath.Join(dir, "generated.go"),
		filepath.Join(filepath.Dir(generated), "changed_by_test_faults.go"): filepath.Join(dir, "changed.go"),
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	for name, content := range map[string][]byte{"generated.go": []byte(renamed), "changed.go": []byte(changed), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "overlay.json"), nil
}
