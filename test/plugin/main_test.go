// SPDX-License-Identifier: Apache-2.0

// Package plugin tests kubectl-xdpcounter as people run it: by kubectl, against a real API server.
package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
)

const root = "../.."

// soon is how long anything may take that should happen at once; the machine may be busy.
const soon = 60 * time.Second

var (
	plane *controlplane.ControlPlane
	api   client.Client
	path  string // a folder with kubectl and the plugin
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		dir, err := os.MkdirTemp("", "plugin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		err = setUp(ctx, dir)
		if plane != nil {
			defer func() { _ = plane.Stop() }()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func setUp(ctx context.Context, dir string) (err error) {
	if plane, err = controlplane.Start(ctx, controlplane.Options{CRDs: []string{root + "/config/crd/bases"}}); err != nil {
		return err
	}
	if err := v1alpha1.AddToScheme(scheme.Scheme); err != nil {
		return err
	}
	if api, err = client.New(plane.Config(), client.Options{Scheme: scheme.Scheme}); err != nil {
		return err
	}
	path = dir
	build := exec.CommandContext(ctx, "go", "build", "-tags=faults", "-o", dir, root+"/cmd/kubectl-xdpcounter") // tests set its clock wrong
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the plugin: %w", err)
	}
	completion, err := filepath.Abs(root + "/cmd/kubectl-xdpcounter/kubectl_complete-xdpcounter")
	if err != nil {
		return err
	}
	return errors.Join(
		os.Symlink(completion, filepath.Join(dir, "kubectl_complete-xdpcounter")),
		os.Symlink(plane.Kubectl(ctx).Path, filepath.Join(dir, "kubectl")),
	)
}

// kubectl returns kubectl xdpcounter with the arguments, as the admin.
func kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return kubectlAs(ctx, plane.AdminKubeconfig(), append([]string{"xdpcounter"}, args...)...)
}

func kubectlAs(ctx context.Context, kubeconfig string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(path, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig, "HOME="+path)
	return cmd
}

// result is what a command came to.
type result struct {
	out, err string
	status   int
}

func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// expect checks the exit status, and that the output holds each text; of an error, the standard error in one line.
func (r result) expect(t *testing.T, status int, texts ...string) {
	t.Helper()
	all := r.out
	if status != 0 && status != 4 {
		all = r.err
		if lines := strings.Count(all, "\n"); lines != 1 {
			t.Errorf("the error takes %d lines:\n%s", lines, all)
		}
	}
	if r.status != status {
		t.Errorf("status %d, want %d: %s%s", r.status, status, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("does not say %q:\n%s%s", text, r.out, r.err)
		}
	}
}

// counter makes an XDPCounter with a status that has the totals, and deletes it at the end of the test.
func counter(t *testing.T, name string, totals traffic.Totals, ready metav1.Condition) *v1alpha1.XDPCounter {
	t.Helper()
	c := &v1alpha1.XDPCounter{}
	c.Name = name
	if err := api.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(api.Delete(context.Background(), c)); err != nil {
			t.Error(err)
		}
	})
	sum := totals.Sum()
	ready.Type, ready.ObservedGeneration, ready.LastTransitionTime = v1alpha1.ConditionReady, c.Generation, metav1.Now()
	protocols := v1alpha1.ProtocolsOf(totals, traffic.Rates{})
	for i := range protocols {
		packets, bits := protocols[i].Packets/10, protocols[i].Bytes*8/10
		protocols[i].PacketsPerSecond, protocols[i].BitsPerSecond = packets, bits
	}
	c.Status = v1alpha1.XDPCounterStatus{
		ObservedGeneration: c.Generation,
		Conditions:         []metav1.Condition{ready},
		Nodes:              &v1alpha1.NodeNumbers{Selected: 1, Ready: 1},
		Total:              &v1alpha1.Total{Packets: int64(sum.Packets), Bytes: int64(sum.Bytes)},
		Protocols:          protocols,
		Summary:            &v1alpha1.Summary{Nodes: "1/1", Interfaces: "1/1"},
	}
	if err := api.Status().Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// nodeState makes the XDPNodeState of a node that counts for the counter, and deletes it at the end of the test.
func nodeState(t *testing.T, name string, c *v1alpha1.XDPCounter) *v1alpha1.XDPNodeState {
	t.Helper()
	s := &v1alpha1.XDPNodeState{}
	s.Name = name
	s.Spec.ReportInterval.Duration = time.Second
	s.Spec.Counters = []v1alpha1.NodeCounter{{Name: c.Name, UID: c.UID, Generation: c.Generation}}
	if err := api.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Delete(context.Background(), s); err != nil {
			t.Error(err)
		}
	})
	return s
}

// report writes what the agent of the node reports at a time.
func report(t *testing.T, s *v1alpha1.XDPNodeState, at time.Time, totals traffic.Totals) {
	t.Helper()
	uid := s.Spec.Counters[0].UID
	reported := metav1.NewMicroTime(at)
	s.Status = v1alpha1.XDPNodeStateStatus{
		ObservedGeneration: s.Generation,
		ReportTime:         &reported,
		Agent:              &v1alpha1.AgentInfo{BootID: "boot"},
		Interfaces: []v1alpha1.NodeInterface{{
			Name: "eth0", Index: 2, Mode: v1alpha1.AttachNative, State: v1alpha1.InterfaceAttached, Map: 1,
			Counters: []types.UID{uid}, Counts: v1alpha1.CountsOf(totals),
		}},
		Accounts: []v1alpha1.CounterAccount{{UID: uid, Generation: s.Spec.Counters[0].Generation, Counts: v1alpha1.CountsOf(totals)}},
	}
	if err := api.Status().Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// some returns totals with the given number of packets in each class, of 100 bytes each.
func some(packets map[traffic.Class]uint64) (t traffic.Totals) {
	for c, n := range packets {
		t[c] = traffic.Counts{Packets: n, Bytes: 100 * n}
	}
	return t
}

var (
	tcp4 = traffic.IP(traffic.IPv4, 6)
	udp6 = traffic.IP(traffic.IPv6, 17)

	isReady = metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAllInterfacesAttached, Message: "1 interface is being counted on 1 node"}
)
