// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// lease is the name of the lease that the active controller holds.
var lease = types.NamespacedName{Namespace: netnscluster.Namespace, Name: "xdp-operator-controller"}

func controllerFaults() []fault {
	return []fault{
		{
			name:   "both controllers are killed one after the other, so that the one that leads is, and started again",
			inject: func(s *faultContext) error { return s.replaceControllers(syscall.SIGKILL) },
		},
		{
			name:   "both controllers are terminated one after the other, so that the one that leads is, and started again",
			inject: func(s *faultContext) error { return s.replaceControllers(syscall.SIGTERM) },
		},
		{
			name: "both controllers are away, and come back",
			inject: func(s *faultContext) error {
				for _, name := range controllerNames {
					if err := s.stopController(name, syscall.SIGKILL); err != nil {
						return err
					}
				}
				s.meanwhile()
				return nil
			},
			heal: func(s *faultContext) error {
				for _, name := range controllerNames {
					if err := s.startController(name); err != nil {
						return err
					}
				}
				return s.led()
			},
		},
	}
}

// replaceControllers stops each controller, and starts it again when another one holds the lease.
func (s *faultContext) replaceControllers(signal syscall.Signal) error {
	for _, name := range controllerNames {
		s.moment()
		if err := s.stopController(name, signal); err != nil {
			return err
		}
		if err := errors.Join(s.led(), s.startController(name)); err != nil {
			return err
		}
	}
	return nil
}

// led waits until a controller leads that lives: one that renews the lease. In the small run the lease of one that
// was killed is taken from it, since it would last for 15 s.
func (s *faultContext) led() error {
	var first *coordinationv1.Lease
	begin := time.Now()
	return s.eventually(func() error {
		l := &coordinationv1.Lease{}
		if err := s.Client.Get(s.ctx, lease, l); err != nil {
			return err
		}
		if first == nil {
			first = l
		}
		holder := ptr.Deref(l.Spec.HolderIdentity, "")
		if holder != "" && !l.Spec.RenewTime.Equal(first.Spec.RenewTime) {
			return nil
		}
		const silence = 3 * time.Second // the lease is renewed every 2 s
		if !*large && holder != "" && time.Since(begin) > silence {
			l.Spec.HolderIdentity = new("")
			if err := s.Client.Update(s.ctx, l); ignoreConflict(err) != nil {
				return err
			}
		}
		return fmt.Errorf("no controller is active; the lease is held by %q", holder)
	})
}

func ignoreConflict(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}
