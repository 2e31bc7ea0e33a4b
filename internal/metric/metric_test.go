// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"errors"
	"fmt"
	"testing"

	dto "github.com/prometheus/client_model/go"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestWithReplacesInvalidUTF8(t *testing.T) {
	d := Gauge("a", "1", "A.", "1", "interface")
	for name, want := range map[string]string{
		"eth0.100":          "eth0.100",
		"über0":             "über0",
		"a\xffb":            `a\xffb`,
		"\xc3":              `\xc3`,
		"é\xc3\x28":         `é\xc3(`,
		"a replaced \uFFFD": "a replaced \uFFFD",
		"\uFFFD\xff":        "\uFFFD\\xff",
	} {
		var out dto.Metric
		if err := d.With(1, name).Write(&out); err != nil {
			t.Fatal(err)
		}
		if got := out.GetLabel()[0].GetValue(); got != want {
			t.Errorf("the label %q is served as %q, want %q", name, got, want)
		}
	}
}

func TestResult(t *testing.T) {
	of := schema.GroupResource{}
	for err, want := range map[error]string{
		nil: "success",
		fmt.Errorf("save: %w", apierrors.NewConflict(of, "a", errors.New("old"))): "conflict",
		apierrors.NewAlreadyExists(of, "a"):                                       "conflict",
		apierrors.NewNotFound(of, "a"):                                            "conflict",
		apierrors.NewForbidden(of, "a", errors.New("no")):                         "error",
		errors.New("away"):                                                        "error",
	} {
		if got := Result(err); got != want {
			t.Errorf("Result(%v) = %q, want %q", err, got, want)
		}
	}
}
