// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
)

var picture = flag.String("picture", "", "Draw the dashboard's main panels into this `file`, as its extension says: svg or png.")

// mainPanels lists the titles of the panels that are drawn, by row.
var mainPanels = [][]string{
	{"Packets per protocol", "Bits per protocol"},
	{"Top nodes", "Interfaces per mode"},
	{"Time per packet", "Memory of the agents"},
}

// draw draws the main panels with the data of Prometheus over the whole run.
func draw(t *testing.T, p *server, file string) {
	t.Helper()
	all := panels(t)
	plots := make([][]*plot.Plot, len(mainPanels))
	for row, titles := range mainPanels {
		for _, title := range titles {
			at := slices.IndexFunc(all, func(p panel) bool { return p.Title == title })
			if at < 0 {
				t.Fatalf("the dashboard has no panel %q", title)
			}
			plots[row] = append(plots[row], plotOf(t, p, all[at]))
		}
	}
	canvas, err := vgdraw.NewFormattedCanvas(11*vg.Inch, 10*vg.Inch, strings.TrimPrefix(filepath.Ext(file), "."))
	if err != nil {
		t.Fatal(err)
	}
	tiles := vgdraw.Tiles{Rows: len(plots), Cols: len(plots[0]), PadX: vg.Inch / 4, PadY: vg.Inch / 4, PadTop: 8, PadBottom: 8, PadLeft: 8, PadRight: 8}
	for row, canvases := range plot.Align(plots, tiles, vgdraw.New(canvas)) {
		for column, c := range canvases {
			plots[row][column].Draw(c)
		}
	}
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	if _, err := canvas.WriteTo(out); err != nil {
		t.Fatal(err)
	}
}

// units maps a unit of the dashboard to a factor and the unit after multiplication.
var units = map[string]struct {
	factor float64
	name   string
}{
	"pps": {1e-3, "thousand packets per second"}, "bps": {1e-6, "Mbit/s"}, "short": {1, "interfaces"}, "s": {1e9, "ns"}, "bytes": {1.0 / (1 << 20), "MiB"},
}

func plotOf(t *testing.T, s *server, panel panel) *plot.Plot {
	t.Helper()
	drawn := plot.New()
	drawn.Title.Text = panel.Title
	drawn.X.Label.Text = "seconds"
	unit, ok := units[panel.FieldConfig.Defaults.Unit]
	if !ok {
		t.Fatalf("panel %q has the unit %s, which is not in units", panel.Title, panel.FieldConfig.Defaults.Unit)
	}
	drawn.Y.Label.Text = unit.name
	drawn.Y.Min = 0
	drawn.Add(plotter.NewGrid())
	drawn.Legend.Top, drawn.Legend.Left = true, true
	number := 0
	for _, target := range panel.Targets {
		for _, series := range s.since(t, target.Expr) {
			for i, points := range unbroken(s, series, unit.factor) {
				line, err := plotter.NewLine(points)
				if err != nil {
					t.Fatal(err)
				}
				line.Color, line.Width = plotutil.Color(number), vg.Points(1.5)
				line.Dashes = plotutil.Dashes(number / 7)
				drawn.Add(line)
				if i == 0 {
					drawn.Legend.Add(legend(target.LegendFormat, series.Metric), line)
				}
			}
			number++
		}
	}
	drawn.Y.Max *= 1 + 0.12*float64(number) // room for the legend
	return drawn
}

// unbroken returns the points of a series, split at gaps.
func unbroken(s *server, series *model.SampleStream, factor float64) (lines []plotter.XYs) {
	last := math.Inf(-1)
	for _, v := range series.Values {
		at, value := v.Timestamp.Time().Sub(s.began).Seconds(), float64(v.Value)*factor
		if math.IsNaN(value) || math.IsInf(value, 0) {
			continue
		}
		if at-last > 1.5 {
			lines = append(lines, nil)
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], plotter.XY{X: at, Y: value})
		last = at
	}
	return lines
}

var label = regexp.MustCompile(`\{\{(\w+)\}\}`)

func legend(format string, labels model.Metric) string {
	words := strings.Fields(label.ReplaceAllStringFunc(format, func(l string) string {
		return string(labels[model.LabelName(strings.Trim(l, "{}"))])
	}))
	return strings.Join(slices.Compact(words), " ") // "ARP ARP" is one
}
