// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// With E2E_EXISTING_CLUSTER=1 the tests run against the cluster of the kubeconfig, with kubectl and helm of the PATH:
//
//	E2E_IMAGE     the image, as REPOSITORY:TAG, which the nodes have or can pull
//	E2E_TRAFFIC   a shell command that sends at least 100 packets to the primary interface of the node $NODE, which has the
//	              address $ADDRESS; by default the test itself sends them to that address by UDP
//
// What needs access to the nodes' kernels, to their power or to a wire of their own is left out. There, what is counted is at
// least what was sent, and no total ever gets less.
const (
	existingVariable = "E2E_EXISTING_CLUSTER"
	imageVariable    = "E2E_IMAGE"
	trafficVariable  = "E2E_TRAFFIC"
)

// existing is the cluster that was there before; nil if the tests run one of their own.
var existing *existingCluster

type existingCluster struct {
	repository, tag string
	traffic         string           // a command; may be empty
	highest         map[string]int64 // packets by counter, as last seen
}

// Kubectl returns a kubectl for the caller to run.
func (e *existingCluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "kubectl", args...)
}

// Helm returns a helm for the caller to run.
func (e *existingCluster) Helm(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "helm", args...)
}

// useExisting makes the tests use the cluster of the kubeconfig.
func useExisting(ctx context.Context) error {
	repository, tag, found := cutLast(os.Getenv(imageVariable), ":")
	if !found {
		return fmt.Errorf("%s has to be the image that is tested, as REPOSITORY:TAG", imageVariable)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	if api, err = newClient(config); err != nil {
		return err
	}
	existing = &existingCluster{repository: repository, tag: tag, traffic: os.Getenv(trafficVariable), highest: map[string]int64{}}
	tools = existing
	// The tests remove what they find of the operator, its kinds included.
	var foreign []string
	if err := api.List(ctx, &v1alpha1.XDPCounterList{}); err == nil {
		foreign = append(foreign, "the kind XDPCounter")
	}
	err = api.Get(ctx, types.NamespacedName{Name: namespace}, &corev1.Namespace{})
	if err == nil {
		foreign = append(foreign, "the namespace "+namespace)
	}
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if len(foreign) > 0 {
		return fmt.Errorf("the operator is or was installed in this cluster; remove first: %s", strings.Join(foreign, ", "))
	}
	return nil
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// settings returns the arguments of helm that select the image. With the second build the agents are rolled out, as they are
// when the image is another one.
func (e *existingCluster) settings(build string) []string {
	args := []string{"--set=image.repository=" + e.repository, "--set=image.tag=" + e.tag}
	if build == newer {
		args = append(args, "--set=agent.podAnnotations.build="+build, "--set=manager.podAnnotations.build="+build)
	}
	return args
}

// nodes returns the nodes of the cluster with their internal addresses.
func (e *existingCluster) nodes(ctx context.Context) (map[string]string, error) {
	var list corev1.NodeList
	if err := api.List(ctx, &list); err != nil {
		return nil, err
	}
	addresses := map[string]string{}
	for _, n := range list.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP && addresses[n.Name] == "" {
				addresses[n.Name] = a.Address
			}
		}
	}
	return addresses, nil
}

// packets is how many packets are sent to a node at a time.
const packets = 100

// send sends packets to a node.
func (e *existingCluster) send(ctx context.Context, node, address string) error {
	if e.traffic != "" {
		cmd := exec.CommandContext(ctx, "sh", "-c", e.traffic)
		cmd.Env = append(os.Environ(), "NODE="+node, "ADDRESS="+address)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", trafficVariable, err, out)
		}
		return nil
	}
	const discard = "9" // RFC 863
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", net.JoinHostPort(address, discard))
	if err != nil {
		return err
	}
	defer conn.Close()
	for sent := 0; sent < packets; {
		switch _, err := conn.Write([]byte("counted")); {
		case err == nil:
			sent++
		case !errors.Is(err, syscall.ECONNREFUSED): // instead of sending: the node has answered that nobody listens
			return err
		}
	}
	return nil
}

// expectTotals checks that no total is less than before. If agents run, it sends packets to all nodes and waits until each
// has counted them.
func (e *existingCluster) expectTotals(t *testing.T) {
	t.Helper()
	err := api.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: "xdp-operator-agent"}, &appsv1.DaemonSet{})
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	if !apierrors.IsNotFound(err) {
		nodes, err := e.nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, address := range nodes {
			before, err := e.share(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.send(t.Context(), name, address); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				now, err := e.share(t.Context(), name)
				if err == nil && now < before+packets {
					err = fmt.Errorf("%d packets were sent to %s, and its share has grown from %d to %d", packets, name, before, now)
				}
				return err
			})
		}
	}
	for _, name := range []string{"all-nodes", "quick"} {
		eventually(t, func() error {
			x, err := get(t.Context(), name)
			if err != nil {
				return err
			}
			if x.Status.Total == nil {
				return errors.New("there is no total")
			}
			if now := x.Status.Total.Packets; now < e.highest[name] {
				return fmt.Errorf("counter %s has %d packets after %d", name, now, e.highest[name])
			}
			e.highest[name] = x.Status.Total.Packets
			return nil
		})
	}
	t.Logf("counted: %v packets", e.highest)
}

// share returns how many packets the counter quick has from a node.
func (e *existingCluster) share(ctx context.Context, node string) (n int64, err error) {
	x, err := get(ctx, "quick")
	if err != nil {
		return 0, err
	}
	s, err := state(ctx, node)
	if err != nil {
		return 0, err
	}
	for _, account := range s.Status.Accounts {
		if account.UID == x.UID {
			totals := v1alpha1.TotalsOf(account.Counts)
			return int64(totals.Sum().Packets), nil
		}
	}
	return 0, fmt.Errorf("counter quick has no account on %s", node)
}
