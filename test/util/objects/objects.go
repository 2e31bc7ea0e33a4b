// SPDX-License-Identifier: Apache-2.0

// Package objects changes objects of an API server to which other programs write at the same time.
package objects

import (
	"context"

	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Edit reads the object of that name and namespace, calls change, which changes it, and writes the fields that differ as a
// merge patch without a resource version. Writes of other fields in the meantime neither fail it nor get lost. A list is one
// field: use it for lists that have no other writer. The object holds what the API server answered.
func Edit(ctx context.Context, c client.Client, object client.Object, change func()) error {
	if err := c.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
		return err
	}
	before := object.DeepCopyObject().(client.Object)
	change()
	return c.Patch(ctx, object, client.MergeFrom(before))
}

// EditStatus reads the object of that name and namespace, calls change, which changes its status, and updates that. A status
// consists of lists that its writer writes as a whole, so it starts again from the reading if somebody wrote in the meantime.
// Therefore change may be called more than once.
func EditStatus(ctx context.Context, c client.Client, object client.Object, change func()) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		change()
		return c.Status().Update(ctx, object)
	})
}
