// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// faults returns all faults. Those of the control plane are spread over the list, because clients wait longer after each
// failure within two minutes.
func faults() []fault {
	return spread(controlPlaneFaults(), slices.Concat(agentFaults(), pinFaults(), hookFaults(), interfaceFaults(),
		controllerFaults(), nodeFaults(), clockFaults(), rightsFaults(), stateFaults()))
}

// spread inserts the faults of one list evenly into a longer list.
func spread(few, many []fault) []fault {
	var all []fault
	for i, f := range few {
		from, to := i*len(many)/len(few), (i+1)*len(many)/len(few)
		all = append(append(all, f), many[from:to]...)
	}
	return all
}

func TestFaults(t *testing.T) {
	t.Logf("seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	pattern, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	rows := &rows{}
	var passed []fault // the random sequence uses only faults that have passed alone
	for _, f := range faults() {
		if !pattern.MatchString(f.name) {
			continue
		}
		if mistakes := rows.add(t, f, happen(t, random, f)); mistakes == "" {
			passed = append(passed, f)
		}
	}
	if len(rows.list) == 0 {
		t.Fatalf("no fault has a name that matches %q", *only)
	}
	for i := range w.size.faults {
		if len(passed) == 0 {
			break
		}
		f := passed[random.IntN(len(passed))]
		if mistakes := rows.add(t, f, happen(t, random, f)); mistakes != "" {
			t.Logf("number %d of the random sequence of seed %d", i+1, *seed)
		}
	}
	text := rows.markdown(t)
	fmt.Print(text)
	if *table != "" {
		if err := os.WriteFile(*table, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// outcome is the outcome of one fault.
type outcome struct {
	result
	took     time.Duration
	mistakes string
}

// happen injects a fault on a random node, and checks the accounting. After a failure it resets the accounting.
func happen(t *testing.T, random *rand.Rand, f fault) (o outcome) {
	t.Helper()
	begin := time.Now()
	sender := w.senders[random.IntN(len(w.senders))]
	s := &faultContext{testEnv: w, ctx: context.Background(), random: random, node: sender.node, sender: sender}
	before := map[string]traffic.Totals{}
	for _, x := range w.senders {
		before[x.node.Name] = x.total()
	}
	err := s.play(f)
	if err != nil {
		s.rescue(f)
	} else {
		o.result, err = w.settle(s, before)
	}
	for _, mistake := range w.watched.take() {
		err = errors.Join(err, errors.New(mistake))
	}
	o.took = time.Since(begin)
	if err == nil {
		return o
	}
	o.mistakes = strings.TrimSpace(err.Error())
	t.Errorf("%s (on %s): %v", f.name, s.node.Name, err)
	if err := w.recover(s.ctx); err != nil {
		t.Fatalf("cannot reset the accounting: %v", err)
	}
	w.watched.take()
	return o
}
