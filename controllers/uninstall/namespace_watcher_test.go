// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

// namespaceReader returns the answers one after another. After the last one it returns a namespace that is being deleted.
type namespaceReader struct {
	client.Reader
	answers []error
}

func (l *namespaceReader) Get(_ context.Context, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	if len(l.answers) == 0 {
		object.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1, 0)})
		return nil
	}
	err := l.answers[0]
	l.answers = l.answers[1:]
	return err
}

func TestNamespaceWatcher(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("namespaces"), "ns", errors.New("no such role"))
	away := errors.New("away")
	const (
		hidden  = `"level"=0 "msg"="No permission to see whether the namespace is being deleted" "namespace"="ns"`
		deleted = `"level"=0 "msg"="The namespace is being deleted"`
		waits   = `"level"=0 "msg"="Waiting for the agents to save their counts and detach" "timeout"="1s"`
		adds    = `"level"=0 "msg"="Adding the counts of the nodes to the totals" "nodes"=0 "stillAttached"=0`
		done    = `"level"=0 "msg"="The uninstallation is complete" "stillAttached"=""`
	)
	for name, tc := range map[string]struct {
		answers []error
		list    error // of the API server, when it is asked for node states
		want    []string
	}{
		"the namespace is being deleted":  {nil, nil, []string{deleted, waits, adds, done}},
		"the namespace is deleted later":  {[]error{nil, nil, nil}, nil, []string{deleted, waits, adds, done}},
		"the API server was unreachable":  {[]error{away, nil}, nil, []string{deleted, waits, adds, done}},
		"the permission was granted late": {[]error{forbidden, forbidden, nil}, nil, []string{hidden, deleted, waits, adds, done}},
		"node states cannot be listed": {nil, away, []string{
			deleted, waits, `"msg"="The uninstallation is not complete" "error"="wait for the agents: list node states: away" "stillAttached"=""`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := fake.NewClientBuilder().WithScheme(scheme.New()).WithInterceptorFuncs(interceptor.Funcs{
					List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
						return errors.Join(tc.list, c.List(ctx, list, options...))
					},
				}).Build()
				var lines []string
				log := funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{})
				ctx, cancel := context.WithTimeout(ctrl.LoggerInto(t.Context(), log), time.Minute)
				defer cancel()
				watcher := &NamespaceWatcher{Live: &namespaceReader{answers: tc.answers}, Namespace: "ns", Uninstaller: &Uninstaller{Client: &DrainClient{Client: cluster}, Timeout: time.Second}}
				if err := watcher.Start(ctx); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(tc.want, lines); diff != "" {
					t.Errorf("in the log (-want +got):\n%s", diff)
				}
			})
		})
	}
}
