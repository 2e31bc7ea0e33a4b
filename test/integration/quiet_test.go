// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

var silence = flag.Duration("quiet", 20*time.Second, "how long the quiet cluster is looked at")

func TestIdleClusterWritesOnlyHeartbeats(t *testing.T) {
	counter(t, "quiet", nil) // a report interval of one second, so that heartbeats are sent every minute, which is the maximum
	expectReady(t, "quiet", "True", v1alpha1.ReasonAllInterfacesAttached)
	time.Sleep(3 * time.Second) // until the new counter is fully reported
	x, err := get(t, "quiet")
	if err != nil {
		t.Fatal(err)
	}

	before, began := writes(t), time.Now()
	time.Sleep(*silence)
	elapsed, after := time.Since(began), writes(t)

	grown := map[string]int{}
	for kind, n := range after {
		if n > before[kind] {
			grown[kind] = n - before[kind]
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(grown)) {
		t.Logf("%5d writes of %s in %s", grown[kind], kind, elapsed.Round(time.Second))
	}
	const heartbeats = "xdp-operator.io xdpnodestates status"
	each := int(elapsed/v1alpha1.HeartbeatInterval(time.Second)) + 1
	if most := each * len(c.Nodes()); grown[heartbeats] > most {
		t.Errorf("%d heartbeats of %d nodes in %s, want at most %d", grown[heartbeats], len(c.Nodes()), elapsed, most)
	}
	if *silence > 2*time.Minute && grown[heartbeats] < len(c.Nodes()) {
		t.Errorf("only %d heartbeats of %d nodes in %s", grown[heartbeats], len(c.Nodes()), elapsed)
	}
	for kind, n := range grown {
		if kind != heartbeats && ours.MatchString(kind) {
			t.Errorf("%d writes of %s, want none", n, kind)
		}
	}
	now, err := get(t, "quiet")
	if err != nil {
		t.Fatal(err)
	}
	if now.ResourceVersion != x.ResourceVersion {
		t.Errorf("the XDPCounter was written: its version is %s and was %s", now.ResourceVersion, x.ResourceVersion)
	}
}

var (
	// ours lists everything that the programs of the project write, except for the lease of the controller.
	ours  = regexp.MustCompile(`^(xdp-operator\.io |events\.k8s\.io | events )`)
	total = regexp.MustCompile(`(?m)^apiserver_request_total\{(.*)\} ([0-9.e+]+)$`)
	label = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
)

// writes returns the number of write requests that the API server has served, by group, resource and subresource.
func writes(t *testing.T) map[string]int {
	t.Helper()
	clients, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	text, err := clients.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, line := range total.FindAllStringSubmatch(string(text), -1) {
		labels := map[string]string{}
		for _, l := range label.FindAllStringSubmatch(line[1], -1) {
			labels[l[1]] = l[2]
		}
		switch labels["verb"] {
		case "POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION":
		default:
			continue
		}
		n, err := strconv.ParseFloat(line[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		counts[fmt.Sprintf("%s %s %s", labels["group"], labels["resource"], labels["subresource"])] += int(n)
	}
	if len(counts) == 0 {
		t.Fatal("the API server counts no writes")
	}
	return counts
}
