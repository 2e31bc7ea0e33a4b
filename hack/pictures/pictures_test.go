// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"os/exec"
	"strings"
	"testing"
)

func TestStanding(t *testing.T) {
	for name, c := range map[string]struct{ printed, want string }{
		"a command that prints once":    {"a\r\nb\r\n", "a\nb\n"},
		"the last table of several":     {"a\r\nb\r\n\x1b[2A\r\x1b[Jc\r\nd\r\n\x1b[2A\r\x1b[Je\r\n", "e\n"},
		"a command that prints nothing": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := standing(c.printed); got != c.want {
				t.Errorf("%q, not %q", got, c.want)
			}
		})
	}
}

func TestShow(t *testing.T) {
	for name, c := range map[string]struct {
		script, want string
		fails        bool
	}{
		"a command in a terminal":     {script: "test -t 0 && test -t 1 && stty size", want: "40 110\n"},
		"a counter that is not Ready": {script: "echo because; exit 4", want: "because\n"},
		"a command that fails":        {script: "echo no >&2; exit 1", want: "no\n", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := show(exec.CommandContext(t.Context(), "sh", "-c", c.script), 0)
			if text != c.want || (err != nil) != c.fails {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
}

func TestDraw(t *testing.T) {
	picture := draw("$ a <b>", "NAME  N\n▁█é  1\n\n")
	var read struct {
		Width  int    `xml:"width,attr"`
		Height int    `xml:"height,attr"`
		Title  string `xml:"title"`
		Texts  []struct {
			X     string `xml:"x,attr"`
			Width string `xml:"textLength,attr"`
			Text  string `xml:",chardata"`
		} `xml:"g>text"`
	}
	if err := xml.Unmarshal([]byte(picture), &read); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, text := range read.Texts {
		texts = append(texts, text.Text+"@"+text.X+"+"+text.Width)
	}
	want := "$ a <b>@14.0+58.8 NAME@14.0+33.6 N@64.4+8.4 ▁█é@14.0+25.2 1@56.0+8.4"
	if got := strings.Join(texts, " "); got != want {
		t.Errorf("%s\nnot %s", got, want)
	}
	if read.Title != "$ a <b>" || read.Width != 87 || read.Height != 2*margin+3*lineHeight {
		t.Errorf("%q, %d by %d", read.Title, read.Width, read.Height)
	}
}
