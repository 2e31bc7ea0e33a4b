// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/xdp-operator/xdp-operator/test/env/kubeletcluster"
)

// residue lists what is left of the project.
type residue struct {
	attached []string // all programs on interfaces of nodes
	kernel   objects  // objects that were attached or pinned and still exist
	pins     []string // folders and pins in the BPF file systems of nodes
	objects  []string // in the cluster
}

// none returns an error that lists the residue, or nil if there is none.
func (r residue) none() error {
	if len(r.attached)+len(r.kernel.Programs)+len(r.kernel.Maps)+len(r.kernel.Links)+len(r.pins)+len(r.objects) == 0 {
		return nil
	}
	return fmt.Errorf("left: %+v", r)
}

// onNodes adds everything that is attached or pinned on the nodes, and the objects that still exist.
func (r *residue) onNodes(nodes []*kubeletcluster.Node, had ...objects) error {
	var errs []error
	for _, n := range nodes {
		programs, err := attached(n)
		errs = append(errs, err)
		for name, id := range programs {
			r.attached = append(r.attached, fmt.Sprintf("program %d on %s of %s", id, name, n.Name))
		}
		paths, err := pinned(n)
		errs = append(errs, err)
		for _, path := range paths {
			r.pins = append(r.pins, fmt.Sprintf("%s on %s", path, n.Name))
		}
	}
	for _, o := range had {
		left := o.alive()
		r.kernel.Programs = append(r.kernel.Programs, left.Programs...)
		r.kernel.Maps = append(r.kernel.Maps, left.Maps...)
		r.kernel.Links = append(r.kernel.Links, left.Links...)
	}
	return errors.Join(errs...)
}

// inCluster adds the objects of all kinds with the project's name, except for events and the names in allow.
func (r *residue) inCluster(t *testing.T, allow ...string) {
	t.Helper()
	kinds := slices.DeleteFunc(strings.Fields(kubectl(t, "api-resources", "--verbs=list", "--output=name")), func(kind string) bool {
		return strings.HasPrefix(kind, "events")
	})
	out := kubectl(t, "get", strings.Join(kinds, ","), "--all-namespaces", "--ignore-not-found", "--output=name")
	r.objects = slices.DeleteFunc(strings.Fields(out), func(name string) bool {
		return !strings.Contains(name, "xdp") || slices.Contains(allow, name)
	})
}

// expectNothingOn waits until nothing is attached or pinned on the nodes, and none of the objects exists.
func expectNothingOn(t *testing.T, nodes []*kubeletcluster.Node, had ...objects) {
	t.Helper()
	eventually(t, func() error {
		var r residue
		return errors.Join(r.onNodes(nodes, had...), r.none())
	})
}

// removed lists the tested orders of removal and their residues.
var removed []struct {
	order   string
	seconds float64
	left    residue
}

// expectNothing waits until nothing is left on the nodes and in the cluster after a removal, and then deletes the release's
// namespace, which helm keeps. It records the last residue.
func expectNothing(t *testing.T, order string, seconds float64, had []objects, allow ...string) {
	t.Helper()
	var r residue
	defer func() {
		removed = append(removed, struct {
			order   string
			seconds float64
			left    residue
		}{order, seconds, r})
	}()
	allow = append(allow, "namespace/"+namespace)
	eventually(t, func() error {
		r = residue{}
		err := r.onNodes(ownNodes(), had...)
		r.inCluster(t, allow...)
		return errors.Join(err, r.none())
	})
	kubectl(t, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=1m")
	allow = allow[:len(allow)-1]
	r.inCluster(t, allow...)
	if err := r.none(); err != nil {
		t.Error(err)
	}
}

// logResidues logs a table of all removals.
func logResidues(t *testing.T) {
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "order of removal\tseconds\tattached\tprograms\tmaps\tlinks\tpins\tobjects\t")
	for _, o := range removed {
		fmt.Fprintf(table, "%s\t%.1f\t%d\t%d\t%d\t%d\t%d\t%d\t\n", o.order, o.seconds, len(o.left.attached),
			len(o.left.kernel.Programs), len(o.left.kernel.Maps), len(o.left.kernel.Links), len(o.left.pins), len(o.left.objects))
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
	t.Logf("what is left, on all nodes and in the cluster, after each order of removal:\n%s", out.String())
}
