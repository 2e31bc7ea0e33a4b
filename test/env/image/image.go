// Package image writes container images without a container engine: an archive that "docker load", "podman load" and
// "ctr images import" take. The same input gives the same bytes, every time and everywhere.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
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
	Path    string // from the root, without the slash
	Mode    int64  // permissions: 0o755
	Content []byte
}

// epoch is the time of everything in an image.
var epoch = time.Unix(0, 0).UTC()

// config is the part that is used here of the image configuration of the OCI:
// https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md
type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		User       string            `json:",omitempty"`
		Entrypoint []string          `json:",omitempty"`
		Labels     map[string]string `json:",omitempty"`
		WorkingDir string
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// manifest is an entry of manifest.json in an archive of "docker save".
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Write writes the archive. The layer in it is compressed; its size is nearly that of the archive.
func (i Image) Write(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	var compressed bytes.Buffer
	zip := gzip.NewWriter(&compressed)
	if _, err := zip.Write(layer); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	c := config{Created: epoch, Architecture: i.Architecture, OS: "linux"}
	c.Config.User, c.Config.Entrypoint, c.Config.Labels, c.Config.WorkingDir = i.User, i.Entrypoint, i.Labels, "/"
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{"sha256:" + digest(layer)}
	configJSON, err := json.Marshal(c)
	if err != nil {
		return err
	}
	m := manifest{Config: digest(configJSON) + ".json", RepoTags: []string{i.Name}, Layers: []string{digest(compressed.Bytes()) + ".tar.gz"}}
	manifestJSON, err := json.Marshal([]manifest{m})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, f := range []File{
		{m.Layers[0], 0o644, compressed.Bytes()},
		{m.Config, 0o644, configJSON},
		{"manifest.json", 0o644, manifestJSON},
	} {
		if err := add(archive, f); err != nil {
			return err
		}
	}
	return archive.Close()
}

// layer returns the files as a tar archive, sorted, each after its folders.
func (i Image) layer() ([]byte, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	made := map[string]bool{".": true}
	files := slices.SortedFunc(slices.Values(i.Files), func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	for _, f := range files {
		var above []string
		for dir := path.Dir(f.Path); !made[dir]; dir = path.Dir(dir) {
			made[dir] = true
			above = append(above, dir)
		}
		for _, dir := range slices.Backward(above) {
			header := &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch}
			if err := archive.WriteHeader(header); err != nil {
				return nil, fmt.Errorf("write %s: %w", dir, err)
			}
		}
		if err := add(archive, f); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), archive.Close()
}

func add(archive *tar.Writer, f File) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Mode: f.Mode, Size: int64(len(f.Content)), ModTime: epoch,
	}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	_, err := archive.Write(f.Content)
	return err
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
