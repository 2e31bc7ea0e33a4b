// SPDX-License-Identifier: Apache-2.0

// Command imagetar builds the image of the operator without a container engine, one archive per architecture:
//
//	go run ./hack/imagetar -version 0.1.0 -output bin amd64 arm64
//
// It runs in the top folder of the clone, and prints the name, the size and the SHA-256 of each archive.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/xdp-operator/xdp-operator/test/env/image"
)

func main() {
	version := flag.String("version", "dev", "The version of the programs, and the tag of the image.")
	repository := flag.String("repository", "xdp-operator", "The image's name, less the tag.")
	output := flag.String("output", "bin", "The folder that gets the archives.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, architecture := range flag.Args() {
		if err := run(ctx, *repository, *version, *output, architecture); err != nil {
			fmt.Fprintln(os.Stderr, "image:", err)
			os.Exit(1)
		}
	}
}

func run(ctx context.Context, repository, version, output, architecture string) error {
	fmt.Fprintf(os.Stderr, "image: building for %s (minutes if it is the first time)\n", architecture)
	built, err := image.Operator(ctx, ".", repository+":"+version, version, architecture, os.Stderr)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := built.Write(&archive); err != nil {
		return err
	}
	path := filepath.Join(output, fmt.Sprintf("xdp-operator-%s-%s.tar", version, architecture))
	if err := os.MkdirAll(output, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, archive.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s  %.1f MB compressed  sha256:%x\n", path, float64(archive.Len())/1e6, sha256.Sum256(archive.Bytes()))
	return nil
}
