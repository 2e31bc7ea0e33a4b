// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

// plane is a real API server with the CRDs. api is a client of it.
var (
	plane *controlplane.ControlPlane
	api   client.Client
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		var err error
		plane, err = controlplane.Start(ctx, controlplane.Options{CRDs: []string{"../../config/crd/bases"}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = plane.Stop() }()
		if api, err = client.New(plane.Config(), client.Options{Scheme: scheme.New()}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// apply creates an object of the kind with the spec in YAML, in a dry run, which includes all admission checks.
func apply(t *testing.T, kind, spec string) error {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(spec), &object.Object); err != nil {
		t.Fatalf("%v in\n%s", err, spec)
	}
	object.SetAPIVersion(v1alpha1.GroupVersion.String())
	object.SetKind(kind)
	object.SetGenerateName("test-")
	return api.Create(t.Context(), object, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
}

func TestXDPCounterValidationAccepts(t *testing.T) {
	for name, spec := range map[string]string{
		"no spec":                        `{}`,
		"an empty spec":                  `spec: {}`,
		"every field":                    `spec: {nodeSelector: {matchLabels: {pool: edge}}, interfaces: {primary: true, names: ["ens*", eth0], exclude: [ens9]}, attachMode: Native, coexistence: Dispatcher, reportInterval: 1m30s, suspend: true}`,
		"an empty nodeSelector":          `spec: {nodeSelector: {}}`,
		"matchExpressions":               `spec: {nodeSelector: {matchExpressions: [{key: pool, operator: In, values: [a, b]}, {key: example.com/x, operator: Exists}]}}`,
		"a label without a value":        `spec: {nodeSelector: {matchLabels: {node-role.kubernetes.io/control-plane: ""}}}`,
		"the primary interface":          `spec: {interfaces: {primary: true}}`,
		"every kind of glob":             `spec: {interfaces: {names: ["*", "eth?", "en[op]*", "eth[0-9]", "eth[!0]", "eth[^0]", "veth*"]}}`,
		"unusual interface names":        `spec: {interfaces: {names: ["eth0.100", "ibr10:30", "näs0", "abcdefghijklmno", "br-1a2b@x", "-", "ppp{0}"]}}`,
		"the shortest interval":          `spec: {reportInterval: 1s}`,
		"the longest interval":           `spec: {reportInterval: 1h}`,
		"an interval in milliseconds":    `spec: {reportInterval: 1500ms}`,
		"an interval with a fraction":    `spec: {reportInterval: 1.5s}`,
		"generic mode":                   `spec: {attachMode: Generic}`,
		"the maximum number of patterns": `spec: {interfaces: {names: [` + many(32) + `]}}`,
		"primary and exclude":            `spec: {interfaces: {primary: true, exclude: ["ens*"]}}`,
		"a label value of 63 characters": `spec: {nodeSelector: {matchLabels: {pool: ` + strings.Repeat("a", 63) + `}}}`,
	} {
		if err := apply(t, "XDPCounter", spec); err != nil {
			t.Errorf("%s: rejected: %v", name, err)
		}
	}
}

func many(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("eth%d", i))
	}
	return strings.Join(names, ",")
}

func TestXDPCounterValidationRejects(t *testing.T) {
	const (
		pattern   = "must be an interface name or a shell glob such as eth0, ens*, eth? or en[op]*: no white space, slash or backslash, and every [ closed by ] around a set such as [abc], [a-z] or [!a]"
		interval  = "spec.reportInterval: Invalid value: %s: must be a duration from 1s to 1h, for example 10s or 1m30s"
		nothing   = `spec.interfaces: Invalid value: selects nothing: set primary to true, or list at least one pattern in names, for example ["eth0", "ens*"]; leave interfaces out to count the primary interface`
		operator  = "spec.nodeSelector.matchExpressions: Invalid value: operator must be In, NotIn, Exists or DoesNotExist"
		values    = "spec.nodeSelector.matchExpressions: Invalid value: values must list at least one value with the operators In and NotIn, and be left out with Exists and DoesNotExist"
		wrongMode = `spec.attachMode: Unsupported value: "Offload": supported values: "Auto", "Native", "Generic"`
	)
	for name, tc := range map[string]struct{ spec, message string }{
		"an unclosed bracket":             {`spec: {interfaces: {names: [eth0, "eth["]}}`, `spec.interfaces.names[1]: Invalid value: "eth[": ` + pattern},
		"an empty bracket":                {`spec: {interfaces: {names: ["eth[]"]}}`, `spec.interfaces.names[0]: Invalid value: "eth[]": ` + pattern},
		"a range that does not end":       {`spec: {interfaces: {names: ["eth[0-]"]}}`, `spec.interfaces.names[0]: Invalid value: "eth[0-]": ` + pattern},
		"a closing bracket alone":         {`spec: {interfaces: {names: ["eth]"]}}`, `spec.interfaces.names[0]: Invalid value: "eth]": ` + pattern},
		"white space":                     {`spec: {interfaces: {names: ["eth 0"]}}`, `spec.interfaces.names[0]: Invalid value: "eth 0": ` + pattern},
		"a slash":                         {`spec: {interfaces: {names: ["net/eth0"]}}`, `spec.interfaces.names[0]: Invalid value: "net/eth0": ` + pattern},
		"a backslash":                     {`spec: {interfaces: {names: ['eth\0']}}`, `spec.interfaces.names[0]: Invalid value: "eth\\0": ` + pattern},
		"an empty name":                   {`spec: {interfaces: {names: [""]}}`, `spec.interfaces.names[0]: Invalid value: "": spec.interfaces.names[0] in body should be at least 1 chars long`},
		"a malformed exclusion":           {`spec: {interfaces: {primary: true, exclude: ["["]}}`, `spec.interfaces.exclude[0]: Invalid value: "[": ` + pattern},
		"a duplicate name":                {`spec: {interfaces: {names: [eth0, eth0]}}`, `spec.interfaces.names[1]: Duplicate value: "eth0"`},
		"an empty list of names":          {`spec: {interfaces: {names: []}}`, "spec.interfaces.names: Invalid value: 0: spec.interfaces.names in body should have at least 1 items"},
		"an empty list of exclusions":     {`spec: {interfaces: {primary: true, exclude: []}}`, "spec.interfaces.exclude: Invalid value: 0: spec.interfaces.exclude in body should have at least 1 items"},
		"too many names":                  {`spec: {interfaces: {names: [` + many(33) + `]}}`, "spec.interfaces.names: Too many: 33: must have at most 32 items"},
		"interfaces that select nothing":  {`spec: {interfaces: {}}`, nothing},
		"interfaces that only exclude":    {`spec: {interfaces: {exclude: [eth0]}}`, nothing},
		"primary false and no name":       {`spec: {interfaces: {primary: false}}`, nothing},
		"an unknown mode":                 {`spec: {attachMode: Offload}`, wrongMode},
		"an unknown coexistence":          {`spec: {coexistence: Chain}`, `spec.coexistence: Unsupported value: "Chain": supported values: "Exclusive", "Dispatcher"`},
		"a negative interval":             {`spec: {reportInterval: -5s}`, fmt.Sprintf(interval, `"-5s"`)},
		"an interval below a second":      {`spec: {reportInterval: 999ms}`, fmt.Sprintf(interval, `"999ms"`)},
		"an interval above an hour":       {`spec: {reportInterval: 61m}`, fmt.Sprintf(interval, `"61m"`)},
		"a number without a unit":         {`spec: {reportInterval: "10"}`, fmt.Sprintf(interval, `"10"`)},
		"an interval that is no duration": {`spec: {reportInterval: often}`, fmt.Sprintf(interval, `"often"`)},
		"an unknown operator":             {`spec: {nodeSelector: {matchExpressions: [{key: pool, operator: Near, values: [a]}]}}`, operator},
		"In without values":               {`spec: {nodeSelector: {matchExpressions: [{key: pool, operator: In}]}}`, values},
		"In with an empty list of values": {`spec: {nodeSelector: {matchExpressions: [{key: pool, operator: In, values: []}]}}`, values},
		"Exists with values":              {`spec: {nodeSelector: {matchExpressions: [{key: pool, operator: Exists, values: [a]}]}}`, values},
		"a misspelt field":                {`spec: {nodeSelecter: {}}`, `unknown field "spec.nodeSelecter"`},
	} {
		err := apply(t, "XDPCounter", tc.spec)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), tc.message) {
			t.Errorf("%s: rejected with\n\t%v\nwant it to contain\n\t%s", name, err, tc.message)
		}
	}
}

func TestXDPNodeStateValidation(t *testing.T) {
	const one = `{name: a, uid: u, primary: true, attachMode: Auto}`
	if err := apply(t, "XDPNodeState", `spec: {reportInterval: 10s, counters: [`+one+`]}`); err != nil {
		t.Errorf("rejected: %v", err)
	}
	for name, tc := range map[string]struct{ spec, message string }{
		"no interval":         {`spec: {counters: []}`, "spec.reportInterval: Required value"},
		"an interval of zero": {`spec: {reportInterval: 0s}`, "spec.reportInterval: Invalid value: \"0s\": must be at least 1s"},
		"no UID":              {`spec: {reportInterval: 10s, counters: [{name: a, primary: true, attachMode: Auto}]}`, "spec.counters[0].uid: Required value"},
	} {
		err := apply(t, "XDPNodeState", tc.spec)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), tc.message) {
			t.Errorf("%s: rejected with\n\t%v\nwant it to contain\n\t%s", name, err, tc.message)
		}
	}
}

// TestSwitchedOffFeaturesOfXDPNodeState writes as much as the constants allow, reads it back, and writes more.
func TestSwitchedOffFeaturesOfXDPNodeState(t *testing.T) {
	state := &v1alpha1.XDPNodeState{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	state.Spec.ReportInterval.Duration = time.Second
	if err := api.Create(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Delete(context.Background(), state); err != nil {
			t.Error(err)
		}
	})
	var off []v1alpha1.SwitchedOffFeatures
	for range v1alpha1.MaxSwitchedOffInterfaces {
		s := v1alpha1.SwitchedOffFeatures{Interface: strings.Repeat(`\x1b`, 15)}
		for range v1alpha1.MaxSwitchedOffFeatures {
			s.Features = append(s.Features, strings.Repeat("f", 32)) // ETH_GSTRING_LEN
		}
		off = append(off, s)
	}
	write := func(off []v1alpha1.SwitchedOffFeatures) error {
		state.Status.Interfaces = []v1alpha1.NodeInterface{{Name: "eth0", State: v1alpha1.InterfaceAttached, SwitchedOff: off}}
		return api.Status().Update(t.Context(), state)
	}
	if err := write(off); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(off, state.Status.Interfaces[0].SwitchedOff); diff != "" {
		t.Errorf("read back (-written +read):\n%s", diff)
	}
	few := v1alpha1.SwitchedOffFeatures{Interface: "eth0", Features: append(off[0].Features, "more")}
	for message, list := range map[string][]v1alpha1.SwitchedOffFeatures{
		"status.interfaces[0].switchedOff: Too many: 17": append(slices.Clone(off), off[0]),
		"switchedOff[0].features: Too many: 65":          {few},
	} {
		if err := write(list); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%v, want it to contain %q", err, message)
		}
	}
}

func TestXDPCounterDefaults(t *testing.T) {
	c := &v1alpha1.XDPCounter{}
	c.Name = "defaults"
	if err := api.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Delete(context.Background(), c) })
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
		t.Fatal(err)
	}
	if c.Spec.AttachMode != v1alpha1.AttachAuto || c.Spec.Coexistence != v1alpha1.CoexistenceExclusive || c.Spec.ReportInterval.Duration != 10*time.Second {
		t.Errorf("defaults are %q, %q and %v, want Auto, Exclusive and 10s", c.Spec.AttachMode, c.Spec.Coexistence, c.Spec.ReportInterval.Duration)
	}
	if len(c.Status.Conditions) != 1 || c.Status.Conditions[0].Status != metav1.ConditionUnknown || c.Status.Conditions[0].Reason != v1alpha1.ReasonPending {
		t.Errorf("the default conditions are %v, want Ready Unknown, Pending", c.Status.Conditions)
	}
}
