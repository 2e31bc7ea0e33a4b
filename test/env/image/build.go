// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/xdp-operator/xdp-operator/test/util/gobuild"
)

// Operator builds the programs of this clone for an architecture and returns the image that the Dockerfile describes.
// root is the top folder of the clone; version is what the programs say of themselves. Both architectures of one
// version are of the same bytes on every machine with the same Go release. The first build of an architecture
// compiles all that the programs need, which takes minutes; what the go command says meanwhile goes to progress.
func Operator(ctx context.Context, root, name, version, architecture string, progress io.Writer) (Image, error) {
	i := Image{
		Name: name, Architecture: architecture, User: "65532:65532", Entrypoint: []string{"/controller"},
		Labels: map[string]string{
			"org.opencontainers.image.title":    "xdp-operator",
			"org.opencontainers.image.licenses": "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)",
		},
	}
	for _, program := range []string{"controller", "agent"} {
		content, err := Compile(ctx, root, "./cmd/"+program, architecture, "-X main.version="+version, progress)
		if err != nil {
			return Image{}, err
		}
		i.Files = append(i.Files, File{program, 0o755, content})
	}
	for _, license := range []string{"LICENSE", "NOTICE"} {
		content, err := os.ReadFile(filepath.Join(root, license))
		if err != nil {
			return Image{}, fmt.Errorf("read what the image is to hold: %w", err)
		}
		i.Files = append(i.Files, File{"licenses/" + license, 0o644, content})
	}
	return i, nil
}

// Compile builds a command of the module in dir for Linux, static and without the paths of this machine, and returns
// the executable.
func Compile(ctx context.Context, dir, pkg, architecture, ldflags string, progress io.Writer) ([]byte, error) {
	temporary, err := os.MkdirTemp("", "xdp-operator-image-")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", pkg, err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	output := filepath.Join(temporary, "program")
	// As in the Dockerfile, where there is no repository that could be stamped in.
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w "+ldflags, "-o", output, pkg)
	build.Dir = dir
	build.Env = gobuild.Env("CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOAMD64=v1", "GOARM64=v8.0")
	var said bytes.Buffer
	build.Stderr = &said
	if progress != nil {
		build.Stderr = io.MultiWriter(&said, progress)
	}
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build %s for %s: %w\n%s", pkg, architecture, err, said.Bytes())
	}
	return os.ReadFile(output)
}
