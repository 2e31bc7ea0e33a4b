// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// This file has what both reconcilers use.

const (
	fieldOwner    = client.FieldOwner("xdp-operator")
	conflictDelay = 50 * time.Millisecond
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// get returns nil without an error if the object does not exist.
func get[T client.Object](ctx context.Context, c client.Reader, name types.NamespacedName, into T) (T, error) {
	var none T
	if err := c.Get(ctx, name, into); apierrors.IsNotFound(err) {
		return none, nil
	} else if err != nil {
		return none, fmt.Errorf("get %T %s: %w", into, name.Name, err)
	}
	return into, nil
}

// requeueOnConflict returns the result of a reconcile that ended with err. A conflict means that the cache was out of date.
// It is no error: the request is retried after a short delay.
func requeueOnConflict(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	return ctrl.Result{}, err
}

// convert copies a value into a value of another type with the same JSON, as apply configurations have.
func convert(from, to any) error {
	raw, err := json.Marshal(from)
	if err != nil {
		return fmt.Errorf("convert %T: %w", from, err)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("convert %T: %w", from, err)
	}
	return nil
}
