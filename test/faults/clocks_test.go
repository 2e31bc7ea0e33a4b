// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"time"
)

func clockFaults() []fault {
	var all []fault
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		direction := map[bool]string{true: "forward", false: "back"}[by > 0]
		all = append(all, fault{
			name:   fmt.Sprintf("an agent's clock jumps %s by an hour, and later is right again", direction),
			inject: func(s *faultContext) error { return s.setClock(s.node.Name, by) },
			heal:   func(s *faultContext) error { return s.setClock(s.node.Name, 0) },
		}, fault{
			name: fmt.Sprintf("the controllers' clocks jump %s by an hour, and later are right again", direction),
			inject: func(s *faultContext) error {
				for _, name := range controllerNames {
					if err := s.setClock(name, by); err != nil {
						return err
					}
				}
				return nil
			},
			heal: func(s *faultContext) error {
				for _, name := range controllerNames {
					if err := s.setClock(name, 0); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}
	return all
}
