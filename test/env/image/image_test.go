// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const root = "../../.."

// largest is how large an image may be, compressed, in bytes.
const largest = 40_000_000

// entry is an entry of a tar archive.
type entry struct {
	Name     string
	Mode     int64
	UID, GID int
	Time     time.Time
}

func untar(t *testing.T, r io.Reader) (entries []entry, contents map[string][]byte) {
	t.Helper()
	contents = map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return entries, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{header.Name, header.Mode, header.Uid, header.Gid, header.ModTime.UTC()})
		if contents[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, i Image) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := i.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// contextOfDocker returns a folder with what .dockerignore lets into a build, and nothing else.
func contextOfDocker(t *testing.T) string {
	t.Helper()
	list, err := os.Open(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = list.Close() }()
	dir := t.TempDir()
	for lines := bufio.NewScanner(list); lines.Scan(); {
		name, ok := strings.CutPrefix(lines.Text(), "!")
		if !ok {
			continue
		}
		from, to := filepath.Join(root, name), filepath.Join(dir, name)
		info, err := os.Stat(from)
		if err == nil && info.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
		} else if err == nil {
			var content []byte
			if content, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOperator(t *testing.T) {
	object, err := os.ReadFile(root + "/bpf/counter_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := contextOfDocker(t)
	for _, architecture := range []string{"amd64", "arm64"} {
		t.Run(architecture, func(t *testing.T) {
			build := func(dir string) []byte {
				i, err := Operator(t.Context(), dir, "xdp-operator:1.2.3", "1.2.3", architecture, nil)
				if err != nil {
					t.Fatal(err)
				}
				return write(t, i)
			}
			archive := build(root)
			if !bytes.Equal(archive, build(elsewhere)) {
				t.Error("the same sources in another folder give another image")
			}
			t.Logf("%.1f MB", float64(len(archive))/1e6)
			if len(archive) > largest {
				t.Errorf("the image has %d bytes, more than %d", len(archive), largest)
			}
			// What an engine makes of it.
			tag, err := name.NewTag("xdp-operator:1.2.3")
			if err != nil {
				t.Fatal(err)
			}
			opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }
			img, err := tarball.Image(opener, &tag)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(img); err != nil {
				t.Error(err)
			}
			outer, parts := untar(t, bytes.NewReader(archive))
			var manifests tarball.Manifest
			if err := json.Unmarshal(parts["manifest.json"], &manifests); err != nil {
				t.Fatal(err)
			}
			if len(manifests) != 1 || len(manifests[0].Layers) != 1 || len(outer) != 3 {
				t.Fatalf("got manifests %+v in %+v", manifests, outer)
			}
			if diff := cmp.Diff([]string{"xdp-operator:1.2.3"}, manifests[0].RepoTags); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			var got v1.ConfigFile
			if err := json.Unmarshal(parts[manifests[0].Config], &got); err != nil {
				t.Fatal(err)
			}
			zip, err := gzip.NewReader(bytes.NewReader(parts[manifests[0].Layers[0]]))
			if err != nil {
				t.Fatal(err)
			}
			layer, err := io.ReadAll(zip)
			if err != nil {
				t.Fatal(err)
			}
			want := v1.ConfigFile{
				Created: v1.Time{Time: epoch}, Architecture: architecture, OS: "linux",
				Config: v1.Config{
					User: "65532:65532", Entrypoint: []string{"/controller"}, WorkingDir: "/",
					Labels: map[string]string{
						"org.opencontainers.image.title":    "xdp-operator",
						"org.opencontainers.image.licenses": "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)",
					},
				},
				History: []v1.History{{Created: v1.Time{Time: epoch}, CreatedBy: "xdp-operator"}},
				RootFS: v1.RootFS{
					Type:    "layers",
					DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(layer))}},
				},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
			entries, files := untar(t, bytes.NewReader(layer))
			wantEntries := []entry{
				{"agent", 0o755, 0, 0, epoch}, {"controller", 0o755, 0, 0, epoch}, {"licenses/", 0o755, 0, 0, epoch},
				{"licenses/LICENSE", 0o644, 0, 0, epoch}, {"licenses/NOTICE", 0o644, 0, 0, epoch},
			}
			if diff := cmp.Diff(wantEntries, entries); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if !bytes.Contains(files["agent"], object) {
				t.Error("the agent does not hold bpf/counter_bpfel.o, which is the same for both architectures")
			}
		})
	}
}

// The Dockerfile and Operator describe one image.
func TestDockerfileIsTheSame(t *testing.T) {
	content, err := os.ReadFile(root + "/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/controller ./cmd/agent`,
		`LABEL org.opencontainers.image.title="xdp-operator" \`,
		`      org.opencontainers.image.licenses="Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"`,
		`COPY LICENSE NOTICE /licenses/`, `COPY --from=build /out/controller /out/agent /`,
		`USER 65532:65532`, `ENTRYPOINT ["/controller"]`,
	} {
		if !strings.Contains(string(content), line+"\n") {
			t.Errorf("the Dockerfile has no line %q: change build.go and this test with it", line)
		}
	}
}
