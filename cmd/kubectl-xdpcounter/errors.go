package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// What can go wrong, told apart by exit status.
var (
	errUsage        = errors.New("usage")
	errNoCounter    = errors.New("no such XDPCounter")
	errNotReady     = errors.New("not Ready")
	errForbidden    = errors.New("a right is missing")
	errUnknown      = errors.New("the API server does not know you")
	errNotInstalled = errors.New("xdp-operator is not installed in this cluster")
	errAway         = errors.New("the API server does not answer")
)

// statuses are the exit statuses of docs/kubectl-xdpcounter.md, each with a hint for the one who reads the error.
var statuses = []struct {
	cause  error
	status int
	hint   string
}{
	{errUsage, 2, "kubectl xdpcounter --help lists commands and flags"},
	{errNoCounter, 3, ""},
	{errNotReady, 4, ""},
	{errForbidden, 5, "the ClusterRole xdp-operator-xdpcounter-viewer has it; kubectl create clusterrolebinding binds it"},
	{errUnknown, 5, "kubectl auth whoami tells whether the credentials of the kubeconfig are good"},
	{errNotInstalled, 6, "install it: helm install xdp-operator charts/xdp-operator --namespace xdp-operator-system; or choose another cluster: --context"},
	{errAway, 7, "--context and --kubeconfig choose another cluster"},
}

// status returns the exit status: 0 without an error, 1 for one that has none of its own.
func status(err error) int {
	if err == nil {
		return 0
	}
	for _, s := range statuses {
		if errors.Is(err, s.cause) {
			return s.status
		}
	}
	return 1
}

// line returns the error in one line, "" if what was printed says it already.
func line(err error) string {
	if err == nil || errors.Is(err, errNotReady) {
		return ""
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	for _, s := range statuses {
		if errors.Is(err, s.cause) && s.hint != "" {
			return text + " (" + s.hint + ")"
		}
	}
	return text
}

// explain says in our words what the API server or the way to it has against a request for a collection.
func explain(err error, verb, resource, host string) error {
	var network net.Error
	var address *url.Error
	qualified := resource + "." + v1alpha1.GroupVersion.Group
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w: to %s %s: %w", errForbidden, verb, qualified, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: %w", errUnknown, err)
	case apierrors.IsNotFound(err): // of a collection it is the kind that is not there
		return fmt.Errorf("%w: %s does not serve %s/%s", errNotInstalled, host, qualified, v1alpha1.GroupVersion.Version)
	case errors.As(err, &address):
		return fmt.Errorf("%w: %s: %w", errAway, host, address.Err) // without the request's long query
	case errors.As(err, &network), apierrors.IsServiceUnavailable(err), apierrors.IsTimeout(err):
		return fmt.Errorf("%w: %s: %w", errAway, host, err)
	default:
		return fmt.Errorf("%s %s: %w", verb, qualified, err)
	}
}
