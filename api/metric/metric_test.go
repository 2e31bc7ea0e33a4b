package metric

import (
	"errors"
	"fmt"
	"testing"

	dto "github.com/prometheus/client_model/go"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestLabelsThatPrometheusWouldRefuse(t *testing.T) {
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
			t.Errorf("%q is served as %q, want %q", name, got, want)
		}
	}
}

func TestResult(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{}, "a", errors.New("old"))
	for want, err := range map[string]error{"success": nil, "conflict": fmt.Errorf("save: %w", conflict), "error": errors.New("away")} {
		if got := Result(err); got != want {
			t.Errorf("%v is a %s, want %s", err, got, want)
		}
	}
}
