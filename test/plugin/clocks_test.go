// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// laterServer returns the address of the API server as it is some time later: the Date header says so, and all objects are as they
// are now.
func laterServer(t *testing.T, by time.Duration) string {
	t.Helper()
	address, err := url.Parse(plane.Config().Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(plane.Config())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(address)
	proxy.Transport = transport
	proxy.ModifyResponse = func(r *http.Response) error {
		date, err := http.ParseTime(r.Header.Get("Date"))
		if err != nil {
			return err
		}
		r.Header.Set("Date", date.Add(by).UTC().Format(http.TimeFormat))
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL
}

// Neither the clock of the node nor that of the machine on which kubectl runs decides whether an agent is late, and how old its
// report is.
func TestWrongClocks(t *testing.T) {
	totals := some(map[traffic.Class]uint64{tcp4: 100})
	c := counter(t, "workers", totals, isReady)
	for name, skew := range map[string]time.Duration{"ahead": 2 * time.Hour, "behind": -90 * time.Second} {
		s := nodeState(t, name, c)
		report(t, s, time.Now().Add(skew), totals)
		next := metav1.NewTime(v1alpha1.NextReportTime(s.Status.ReportTime.Time, time.Second, s.Status.Accounts))
		s.Status.NextReportTime = &next
		if err := api.Status().Update(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if stored := s.ReportStoredAt(); stored.Before(time.Now().Add(-soon)) || stored.After(time.Now()) {
			t.Errorf("the API server has stored the report of %s at %v, want just now", name, stored)
		}
		if reported := s.ReportStoredAt(); c.Status.LastReportTime == nil || c.Status.LastReportTime.Time.Before(reported) {
			c.Status.LastReportTime = &metav1.Time{Time: reported} // as the controller does
		}
	}
	if err := api.Status().Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	offset := filepath.Join(t.TempDir(), "offset")
	for _, local := range []string{"0s", "2h", "-3h"} {
		if err := os.WriteFile(offset, []byte(local), 0o600); err != nil {
			t.Fatal(err)
		}
		do := func(args ...string) result {
			t.Helper()
			cmd := kubectl(t.Context(), args...)
			cmd.Env = append(cmd.Env, "XDP_OPERATOR_CLOCK_OFFSET="+offset)
			return run(t, cmd)
		}
		t.Run("the local clock is wrong by "+local, func(t *testing.T) {
			do("why", "workers").expect(t, 0, "└─ 2 nodes are ready")
			expectAge(t, do("top", "workers", "--once").out, 0, soon)
			server := "--server=" + laterServer(t, 10*time.Minute)
			do("why", "workers", server).expect(t, 0, "├─ ahead  AgentNotReporting\n", "└─ behind  AgentNotReporting\n", ", 10m")
			expectAge(t, do("top", "workers", "--once", server).out, 10*time.Minute-time.Second, 10*time.Minute+soon)
		})
	}
	for want, args := range map[float64][]string{0: nil, -1: {"--server=" + laterServer(t, 10*time.Minute)}} {
		for _, row := range once(t, append(args, "workers", "--by=node")...).Counters[0].Rows {
			if row.rate() != want {
				t.Errorf("%q: the rate of %s is %v, want %v (-1: none, because its agent is late)", args, row.Node, row.rate(), want)
			}
		}
	}

	// Without the time of the API server, the plugin repeats what the controller says.
	unknown := &v1alpha1.XDPNodeState{}
	if err := api.Get(t.Context(), client.ObjectKey{Name: "behind"}, unknown); err != nil {
		t.Fatal(err)
	}
	unknown.ManagedFields = []metav1.ManagedFieldsEntry{{}} // removes all of them
	if err := api.Update(context.WithoutCancel(t.Context()), unknown); err != nil {
		t.Fatal(err)
	}
	run(t, kubectl(t.Context(), "why", "workers", "--server="+laterServer(t, 10*time.Minute))).expect(t, 0, "├─ ahead  AgentNotReporting\n", "└─ 1 node is ready")
	c.Status.Failures = []v1alpha1.Failure{{
		Node: "behind", Reason: v1alpha1.ReasonAgentNotReporting,
		Message: v1alpha1.FailureMessage(v1alpha1.ReasonAgentNotReporting, "its agent is late for the controller", ""),
	}}
	if err := api.Status().Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	run(t, kubectl(t.Context(), "why", "workers")).expect(t, 0, "├─ behind  AgentNotReporting\n│     its agent is late for the controller\n", "└─ 1 node is ready")
}

var reportedAgo = regexp.MustCompile(`  reported (\S+) ago\n`)

// expectAge compares the age of the latest report in the output of top.
func expectAge(t *testing.T, out string, least, most time.Duration) {
	t.Helper()
	found := reportedAgo.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no age in:\n%s", out)
	}
	if age, err := time.ParseDuration(found[1]); err != nil || age < least || age > most {
		t.Errorf("the report is %s old, want %v to %v", found[1], least, most)
	}
}
