package agent

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/metric"
)

// past is what an agent did that shows nowhere but in its metrics.
type past struct {
	passed        bool
	lastPass      time.Duration
	lastSucceeded bool
	wishes        []wish            // what came of them in the last pass
	writes        map[string]uint64 // of reports, by result
}

// wish is an interface that is wanted in a mode, and what came of it.
type wish struct {
	name, reason    string
	mode, requested v1alpha1.AttachMode
	attached        bool
}

// wishes returns those of a report, each once: two younger counters may want an interface in the same other mode. What is
// skipped is no wish that failed: its frames are counted elsewhere.
func wishes(interfaces []v1alpha1.NodeInterface) []wish {
	var list []wish
	for _, i := range interfaces {
		if i.State == v1alpha1.InterfaceDetaching || i.State == v1alpha1.InterfaceSkipped {
			continue
		}
		w := wish{i.Name, i.Reason, i.Mode, i.RequestedMode, i.State == v1alpha1.InterfaceAttached}
		if !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	return list
}

// seen keeps the past, for passes and scrapes at the same time.
type seen struct {
	mu sync.Mutex
	past
}

func (s *seen) pass(took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed, s.lastPass, s.lastSucceeded = true, took, err == nil
}

func (s *seen) interfaces(list []v1alpha1.NodeInterface) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wishes = wishes(list)
}

func (s *seen) write(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes == nil {
		s.writes = map[string]uint64{}
	}
	s.writes[metric.Result(err)]++
}

func (s *seen) get() past {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.past
	p.writes = maps.Clone(s.writes)
	return p
}
