// SPDX-License-Identifier: Apache-2.0

// Package scheme is the one place from which tests get a scheme.
package scheme

import (
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// New returns a scheme with the kinds of Kubernetes and those of this project.
func New() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}
