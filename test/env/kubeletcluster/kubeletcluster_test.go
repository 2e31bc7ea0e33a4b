// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	wait "github.com/xdp-operator/xdp-operator/test/util/eventually"
)

const root = "../../.."

// box is the sandbox that the tests run in.
var box *sandbox.Sandbox

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	var err error
	if box, err = Enter(root, sandbox.Options{}, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// eventually calls check until it returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	wait.Succeed(t, time.Minute, check)
}

func TestNodesComeRunPodsAndGo(t *testing.T) {
	c, err := Start(t.Context(), box, Options{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	cgroup, dir := c.state.cgroup, c.Dir()
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.AddNodes(t.Context(), "n1", "n2"); err != nil {
		t.Fatal(err)
	}
	n1, n2 := c.Nodes()[0], c.Nodes()[1]

	pods := c.client.CoreV1().Pods(metav1.NamespaceDefault)
	// A pod on n2, by the scheduler: the node's name is a label, as everywhere.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pause"}, Spec: corev1.PodSpec{
		NodeSelector: map[string]string{corev1.LabelHostname: "n2"},
		Containers: []corev1.Container{{Name: "pause", Image: pauseImage, ImagePullPolicy: corev1.PullNever,
			SecurityContext: &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}}},
	}}
	eventually(t, func() error {
		_, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
		return err
	})
	running := func() error {
		p, err := pods.Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(p.Status.ContainerStatuses) == 0 || !p.Status.ContainerStatuses[0].Ready {
			return fmt.Errorf("the pod is %s: %+v", p.Status.Phase, p.Status.ContainerStatuses)
		}
		pod = p
		return nil
	}
	eventually(t, running)
	if !strings.HasPrefix(pod.Status.PodIP, "10.244.2.") {
		t.Errorf("the pod's address is %s, not one of n2's", pod.Status.PodIP)
	}

	run := func(n *Node, args ...string) string {
		t.Helper()
		out, err := n.Command(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v on %s: %v: %s", args, n.Name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if name := run(n1, "hostname"); name != "n1" {
		t.Errorf("n1 is called %s", name)
	}
	// The API server by its Service, which kube-proxy makes.
	eventually(t, func() error {
		return n1.Command(t.Context(), "bash", "-c", "exec 3<>/dev/tcp/"+serviceAddress+"/443").Run()
	})
	boot := run(n2, "cat", bootIDFile)

	if err := n2.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if err := n2.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := run(n2, "cat", bootIDFile); again == boot {
		t.Errorf("n2 has been off and on, its boot ID is still %s", boot)
	}
	eventually(t, func() error {
		if err := running(); err != nil {
			return err
		}
		if pod.Status.ContainerStatuses[0].RestartCount == 0 {
			return errors.New("the pod has not been started again")
		}
		return nil
	})

	if err := n2.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := n2.DeleteObject(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Helm(t.Context(), "list").CombinedOutput(); err != nil {
		t.Errorf("helm list: %v: %s", err, out)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(cgroupRoot + "/*/" + cgroup); left != nil {
		t.Errorf("control groups are left: %v", left)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left", dir)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left (%v):\n%s", err, mounts)
	}
}

func TestSweepRemovesWhatIsNobodys(t *testing.T) {
	t.Setenv("XDP_OPERATOR_CACHE", t.TempDir())
	live, err := newState()
	if err != nil {
		t.Fatal(err)
	}
	dead, err := newState()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := live.remove(); err != nil {
			t.Error(err)
		}
	}()
	for _, s := range []*state{live, dead} {
		if err := makeCgroup(s.cgroup + "/n1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := dead.lock.Close(); err != nil { // as the kernel does when its process is killed
		t.Fatal(err)
	}
	if err := errors.Join(AwaitEnd(dead.dir), Sweep()); err != nil {
		t.Fatal(err)
	}
	groups, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[*state]bool{live: true, dead: false} {
		_, dirErr := os.Stat(s.dir)
		_, groupErr := os.Stat(filepath.Join(groups[0].dir, s.cgroup, "n1"))
		if (dirErr == nil) != want || (groupErr == nil) != want {
			t.Errorf("alive: %v, folder: %v, control group: %v", want, dirErr, groupErr)
		}
	}
}

func TestStartOutsideOfEnterSaysSo(t *testing.T) {
	t.Setenv(programsVariable, "")
	if _, err := Start(context.Background(), box, Options{}); err == nil || !strings.Contains(err.Error(), "kubeletcluster.Enter") {
		t.Errorf("got %v", err)
	}
}
