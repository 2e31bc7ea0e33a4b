// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
)

// api answers reviews as its fields specify, and counts them. test/integration tests a real API server.
type api struct {
	broken  atomic.Bool
	denies  atomic.Bool
	reviews atomic.Int32
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.reviews.Add(1)
	if a.broken.Load() {
		http.Error(w, "broken", http.StatusServiceUnavailable)
		return
	}
	var review struct {
		Spec struct{ Token, User string }
	}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/tokenreviews") {
		fmt.Fprintf(w, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":%t,"user":{"username":"u-%s"}}}`,
			strings.HasPrefix(review.Spec.Token, "known"), review.Spec.Token)
		return
	}
	fmt.Fprintf(w, `{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","status":{"allowed":%t}}`,
		review.Spec.User == "u-known" && !a.denies.Load())
}

func TestReviewed(t *testing.T) {
	server := &api{}
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	config := &rest.Config{Host: listener.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	filter, err := Reviewed(config, listener.Client())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := filter(logr.Discard(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what, authorization, path string, status int, reviews int32) {
		t.Helper()
		before := server.reviews.Load()
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		request.Header.Set("Authorization", authorization)
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		if asked := server.reviews.Load() - before; response.Code != status || asked != reviews {
			t.Errorf("%s: status %d after %d reviews, want %d after %d", what, response.Code, asked, status, reviews)
		}
	}
	expect("no token", "", "/metrics", http.StatusUnauthorized, 0)
	expect("another scheme", "Basic known", "/metrics", http.StatusUnauthorized, 0)
	expect("an unknown token", "Bearer stranger", "/metrics", http.StatusUnauthorized, 1)
	expect("an unknown token, cached", "Bearer stranger", "/metrics", http.StatusUnauthorized, 0)
	expect("a forbidden user", "Bearer known-but", "/metrics", http.StatusForbidden, 2)
	expect("a forbidden user, cached", "Bearer known-but", "/metrics", http.StatusForbidden, 0)
	server.broken.Store(true)
	expect("the API server fails", "Bearer known", "/metrics", http.StatusInternalServerError, 1)
	server.broken.Store(false)
	expect("an allowed user after a failure, which is not cached", "Bearer known", "/metrics", http.StatusOK, 2)
	server.broken.Store(true)
	expect("an allowed user, cached", "Bearer known", "/metrics", http.StatusOK, 0)
	server.broken.Store(false)
	server.denies.Store(true)
	expect("an allowed user on another path, which has its own review", "Bearer known", "/debug", http.StatusForbidden, 2)
}

func TestServer(t *testing.T) {
	for name, o := range map[string]Options{"address 0": {Address: "0", Secure: true}, "the zero value": {}} {
		if got, err := o.Server(Reviewed); err != nil || got.BindAddress != "0" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := (Options{Address: ":1", Secure: true}).Server(Reviewed); err != nil || !got.SecureServing || got.FilterProvider == nil {
		t.Errorf("secure: %+v, %v", got, err)
	}
	if got, err := (Options{Address: ":1"}).Server(Reviewed); err != nil || got.SecureServing || got.FilterProvider != nil {
		t.Errorf("not secure: %+v, %v", got, err)
	}
	if _, err := (Options{Address: ":1", Secure: true, CertDir: t.TempDir()}).Server(Reviewed); err == nil {
		t.Error("no error for a directory without a certificate")
	}
}
