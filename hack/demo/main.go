// SPDX-License-Identifier: Apache-2.0

// Command demo shows the main job on real parts: a control plane, three nodes that are network namespaces, the real
// controller and agents, and real frames of several protocols, whose totals it then reads from kubectl and compares
// with what was sent. Its exit status is 0 only if they are equal.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	"github.com/xdp-operator/xdp-operator/test/util/bulk"
	"github.com/xdp-operator/xdp-operator/test/util/eventually"
)

const (
	counterName = "all-nodes" // of the sample
	sample      = "config/samples/xdp-operator_v1alpha1_xdpcounter.yaml"
	trafficTime = 8 * time.Second
)

func main() {
	keep := flag.Bool("keep", false, "Leave everything up and tell how to use it.")
	down := flag.Bool("down", false, "End what -keep left up, and do nothing else.")
	wrong := flag.Bool("wrong", false, "Expect one packet more than is sent, to show that the check can fail.")
	flag.Parse()
	if err := run(*keep, *down, *wrong); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(keep, down, wrong bool) error {
	home, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	home = filepath.Join(home, "xdp-operator", "demo")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	pidFile := filepath.Join(home, "pid")
	if down {
		return sandbox.Kill(pidFile)
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, sample)); err != nil {
		return fmt.Errorf("run it from the top folder of the clone: %w", err)
	}
	o := sandbox.Options{Outside: func() error { return netnscluster.Prepare(context.Background(), root, true, os.Stderr) }}
	if keep {
		o.PIDFile, o.LogFile = pidFile, filepath.Join(home, "log")
	}
	if pid, err := sandbox.Running(pidFile); err == nil && pid != 0 && keep {
		return errors.New("a demo is up already: end it with make demo-down")
	}
	box, err := sandbox.Enter(o)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctrl.SetLogger(logr.Discard())
	d := &demo{root: root, out: os.Stdout, began: time.Now()}
	err = d.play(ctx, box, home, keep, wrong)
	if ctx.Err() != nil {
		err = errors.New("interrupted; everything is taken down again")
	}
	return errors.Join(err, d.cleanUp())
}

// demo is one run of the demo.
type demo struct {
	root    string
	out     io.Writer
	began   time.Time
	dir     string
	cluster *netnscluster.Cluster

	connections []*bulk.Connection
}

func (d *demo) cleanUp() error {
	for _, c := range d.connections {
		_ = c.Close() // some may have no network any more
	}
	if d.cluster == nil {
		return nil
	}
	return errors.Join(d.cluster.Stop(), os.RemoveAll(d.dir))
}

// step says what comes next and how long the demo has run.
func (d *demo) step(format string, args ...any) {
	fmt.Fprintf(d.out, "\n%5.1fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) play(ctx context.Context, box *sandbox.Sandbox, home string, keep, wrong bool) (err error) {
	if d.dir, err = os.MkdirTemp("", "xdp-operator-demo-"); err != nil {
		return err
	}
	d.step("Starting etcd and kube-apiserver")
	if d.cluster, err = netnscluster.Start(ctx, box, netnscluster.Options{Root: d.root, Dir: d.dir, WithoutControllers: true}); err != nil {
		return err
	}
	d.step("Starting the controller and three nodes with an agent each")
	if _, err := d.cluster.StartController(ctx, "controller", "--status-interval=1s"); err != nil {
		return err
	}
	for _, name := range []string{"node-a", "node-b", "node-c"} {
		n, err := d.cluster.AddNode(ctx, name, map[string]string{"kubernetes.io/hostname": name})
		if err != nil {
			return err
		}
		if err := n.StartAgent(ctx); err != nil {
			return err
		}
	}
	if err := d.bulkNodes(); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "-f", sample, "-f", bulkCounters},
		{"wait", "--for=condition=Ready", "--timeout=60s", "xdpcounters", "--all"},
		{"patch", "xdpcounter", counterName, "--type=merge", `--patch={"spec":{"reportInterval":"1s"}}`},
	} {
		if err := d.kubectl(ctx, args...); err != nil {
			return err
		}
	}

	d.step("Sending frames of %d kinds to each node for %v, and %d MiB by TCP to two of them", len(kinds()), trafficTime, bulkSize>>20)
	sent, err := d.watchWhile(ctx, func() (sent traffic, err error) {
		flows, err := d.sendBulk(ctx)
		if err != nil {
			return sent, err
		}
		sent, err = d.send(ctx, trafficTime)
		sent.flows = flows
		return sent, err
	})
	if err != nil {
		return err
	}
	if wrong {
		sent.expectOneMore()
	}
	d.step("Comparing what the API says with what was sent")
	report, mismatch := d.compare(ctx, sent)
	for _, args := range [][]string{
		{"get", "xdpcounters", "--output=wide"},
		{"get", "xdpnodestates"},
	} {
		if err := d.kubectl(ctx, args...); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "\n%s", report)
	if mismatch != nil {
		return mismatch
	}
	d.step("Every frame that was sent is counted, on each node and in the cluster")
	if !keep {
		return d.takeDown(ctx)
	}
	if err := d.explain(home); err != nil {
		return err
	}
	if err := box.Ready(); err != nil {
		return err
	}
	_, err = d.send(ctx, 0)
	return err
}

// takeDown deletes the counter and makes sure that nothing is left on the nodes.
func (d *demo) takeDown(ctx context.Context) error {
	if err := d.kubectl(ctx, "delete", "xdpcounters", "--all"); err != nil {
		return err
	}
	err := eventually.Check(ctx, 10*time.Second, func() error {
		var left []string
		for _, n := range d.cluster.Nodes() {
			more, err := n.Leftovers()
			if err != nil {
				return err
			}
			left = append(left, more...)
		}
		if len(left) > 0 {
			return fmt.Errorf("left on the nodes: %s", strings.Join(left, ", "))
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.step("Nothing is left on the nodes: no program, no link, no pin")
	fmt.Fprint(d.out, "\nmake demo KEEP=1 leaves the cluster up to look around. README.md says how to install xdp-operator.\n")
	return nil
}

// kubectl runs kubectl as a user would, showing the command and its output.
func (d *demo) kubectl(ctx context.Context, args ...string) error {
	fmt.Fprintf(d.out, "\n$ kubectl %s\n", strings.Join(quoted(args), " "))
	cmd := d.command(ctx, args...)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kubectl %s: %w", args[0], err)
	}
	return nil
}

func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := d.cluster.Kubectl(ctx, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.root, d.out, os.Stderr
	return cmd
}

func quoted(args []string) []string {
	var list []string
	for _, a := range args {
		if strings.ContainsAny(a, `{"`) {
			a = "'" + a + "'"
		}
		list = append(list, a)
	}
	return list
}

// watchWhile shows the live table of kubectl while fn runs, and a little longer.
func (d *demo) watchWhile(ctx context.Context, fn func() (traffic, error)) (traffic, error) {
	const args = "get xdpcounters --watch"
	fmt.Fprintf(d.out, "\n$ kubectl %s\n", args)
	watch := d.command(ctx, strings.Fields(args)...)
	if err := watch.Start(); err != nil {
		return traffic{}, fmt.Errorf("kubectl %s: %w", args, err)
	}
	sent, err := fn()
	time.Sleep(2 * time.Second)
	_ = watch.Process.Kill()
	_ = watch.Wait()
	return sent, err
}

// explain writes a kubectl for the user and says how to use what is left up.
func (d *demo) explain(home string) error {
	kubectl := filepath.Join(home, "kubectl")
	inside := d.cluster.Kubectl(context.Background())
	script := fmt.Sprintf("#!/bin/sh\n# kubectl in the demo that is up\nexec nsenter --target \"$(cut -d' ' -f1 %s)\" --mount --net --pid --wd=\"$PWD\" -- %s \"$@\"\n",
		filepath.Join(home, "pid"), strings.Join(inside.Args, " "))
	if err := os.WriteFile(kubectl, []byte(script), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", kubectl, err)
	}
	fmt.Fprintf(d.out, `
The demo stays up, and its frames go on. Look around, from this folder or any other:

  %[1]s get xdpcounters --watch
  %[1]s describe xdpcounter %[2]s
  %[1]s get xdpnodestates -o yaml
  %[1]s explain xdpcounter.spec

End it with: make demo-down
`, kubectl, counterName)
	return nil
}
