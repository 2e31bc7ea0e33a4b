// SPDX-License-Identifier: Apache-2.0

// Package image builds container images without a container engine: an archive that "docker load", "podman load" and
// "ctr images import" take. The same input gives the same bytes, every time and everywhere.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"path"
	"testing/fstest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image is an image of one layer.
type Image struct {
	// Name is what the archive calls the image, for example "xdp-operator:0.1.0". Without a registry it means what it
	// means in a pod's spec.
	Name string
	// Architecture is that of the binaries, as GOARCH.
	Architecture string
	// User is the uid and gid that containers run as, "65532:65532"; empty is root.
	User       string
	Entrypoint []string
	Labels     map[string]string
	Files      []File
}

// File is a file of an image, owned by root.
type File struct {
	Path    string      // from the root, without the slash
	Mode    fs.FileMode // permissions: 0o755
	Content []byte
}

// epoch is the time of everything in an image.
var epoch = time.Unix(0, 0).UTC()

// Write writes the archive. The layer in it is compressed; its size is nearly that of the archive.
func (i Image) Write(w io.Writer) error {
	tag, err := name.NewTag(i.Name)
	if err != nil {
		return err
	}
	layer, err := i.layer()
	if err != nil {
		return err
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		Created: v1.Time{Time: epoch}, Architecture: i.Architecture, OS: "linux",
		Config: v1.Config{User: i.User, Entrypoint: i.Entrypoint, Labels: i.Labels, WorkingDir: "/"},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return err
	}
	history := v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "xdp-operator"}
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: history})
	if err != nil {
		return err
	}
	return tarball.Write(tag, img, w)
}

// layer returns the layer of the files, sorted, each after its folders.
func (i Image) layer() (v1.Layer, error) {
	files := fstest.MapFS{}
	for _, f := range i.Files {
		files[f.Path] = &fstest.MapFile{Data: f.Content, Mode: f.Mode, ModTime: epoch}
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			files[dir] = &fstest.MapFile{Mode: fs.ModeDir | 0o755, ModTime: epoch}
		}
	}
	var content bytes.Buffer
	archive := tar.NewWriter(&content)
	if err := archive.AddFS(files); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content.Bytes())), nil },
		tarball.WithCompressionLevel(gzip.DefaultCompression), tarball.WithCompressedCaching)
}
