// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	testclock "k8s.io/utils/clock/testing"
)

func TestServerClock(t *testing.T) {
	local := testclock.NewFakePassiveClock(noon)
	s := &serverClock{local: local}
	date := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil // not the one of net/http
		if date != "" {
			w.Header().Set("Date", date)
		}
	}))
	defer server.Close()
	client := &http.Client{Transport: s.wrap(http.DefaultTransport)}
	get := func() {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, want time.Time) {
		t.Helper()
		if got := s.Now(); !got.Equal(want) {
			t.Errorf("%s: it is %v, want %v", what, got, want)
		}
	}
	expect("before the first response", noon)
	get()
	expect("after a response without a date", noon)
	remote := noon.Add(-2 * time.Hour)
	date = remote.Format(http.TimeFormat)
	get()
	expect("after a response", remote)
	local.SetTime(noon.Add(time.Minute))
	expect("a minute later", remote.Add(time.Minute))
	if got := s.Since(remote); got != time.Minute {
		t.Errorf("%v since the response, want 1m0s", got)
	}
	date = "yesterday"
	get()
	expect("after a response with a date that is none", remote.Add(time.Minute))
	date = remote.Add(90 * time.Second).Format(http.TimeFormat)
	get()
	expect("after a later response", remote.Add(90*time.Second))

	server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := client.Do(request); err == nil {
		_ = response.Body.Close()
		t.Error("no error, although the server is closed")
	}
}
