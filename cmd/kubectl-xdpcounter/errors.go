// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/exit"
)

// The errors that have their own exit status.
var (
	errUsage        = errors.New("usage")
	errNoCounter    = errors.New("no such XDPCounter")
	errNotReady     = errors.New("not Ready")
	errForbidden    = errors.New("missing permission")
	errUnknown      = errors.New("the API server rejects the credentials")
	errNotInstalled = errors.New("xdp-operator is not installed in this cluster")
	errAway         = errors.New("the API server does not answer")
)

// statuses are the exit statuses of docs/kubectl-xdpcounter.md, with a hint for the user.
var statuses = exit.Causes{
	{Err: errUsage, Status: 2, Hint: "kubectl xdpcounter --help lists commands and flags"},
	{Err: errNoCounter, Status: 3},
	{Err: errNotReady, Status: 4},
	{Err: errForbidden, Status: 5, Hint: "the ClusterRole xdp-operator-xdpcounter-viewer has it; bind it with kubectl create clusterrolebinding"},
	{Err: errUnknown, Status: 5, Hint: "kubectl auth whoami shows whether the credentials in the kubeconfig are valid"},
	{Err: errNotInstalled, Status: 6, Hint: "install it with helm install xdp-operator charts/xdp-operator --namespace xdp-operator-system, or select another cluster with --context"},
	{Err: errAway, Status: 7, Hint: "--context and --kubeconfig select another cluster"},
}

// explain wraps the error of a list or watch request in one of the errors above.
func explain(err error, verb, resource, host string) error {
	var network net.Error
	var address *url.Error
	qualified := resource + "." + v1alpha1.GroupVersion.Group
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w to %s %s: %w", errForbidden, verb, qualified, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: %w", errUnknown, err)
	case apierrors.IsNotFound(err): // for a list or watch this means that the resource does not exist
		return fmt.Errorf("%w: %s does not serve %s/%s", errNotInstalled, host, qualified, v1alpha1.GroupVersion.Version)
	case errors.As(err, &address):
		return fmt.Errorf("%w: %s: %w", errAway, host, address.Err) // without the long query of the request
	case errors.As(err, &network), apierrors.IsServiceUnavailable(err), apierrors.IsTimeout(err):
		return fmt.Errorf("%w: %s: %w", errAway, host, err)
	default:
		return fmt.Errorf("%s %s: %w", verb, qualified, err)
	}
}
