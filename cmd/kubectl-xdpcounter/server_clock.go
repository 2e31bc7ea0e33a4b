// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// serverClock is the clock of the API server: the Date header of its latest response, plus the time since the response, by the
// local clock. The times in the metadata of objects are of the same clock, so ages are right even if the local clock or that
// of a node is wrong. It may be a second slow, because the header has whole seconds. Before the first response it is the local
// clock.
//
// Source: RFC 9110, section 6.6.1: a server that has a clock sends the header, and proxies do not change it.
type serverClock struct {
	local clock.PassiveClock

	mu   sync.Mutex
	date time.Time // zero before the first response
	at   time.Time // when that response was received, by the local clock
}

// Now implements clock.PassiveClock.
func (s *serverClock) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.date.IsZero() {
		return s.local.Now()
	}
	return s.date.Add(s.local.Since(s.at))
}

// Since implements clock.PassiveClock.
func (s *serverClock) Since(t time.Time) time.Duration { return s.Now().Sub(t) }

// wrap returns a transport that reads the header of each response of next.
func (s *serverClock) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err != nil {
			return nil, err
		}
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			s.mu.Lock()
			s.date, s.at = date, s.local.Now()
			s.mu.Unlock()
		}
		return response, nil
	})
}

// roundTripper implements http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }
