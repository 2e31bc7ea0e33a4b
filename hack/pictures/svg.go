// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Sizes in pixels: of a character of the font, and the margin.
const (
	fontSize   = 14
	charWidth  = 8.4
	lineHeight = 19
	margin     = 14
)

var word = regexp.MustCompile(`\S+( \S+)*`) // columns are apart by two spaces or more, or else it does not matter

// draw returns a picture of a terminal in which a command was entered and has printed the text. Each word is put where it
// belongs and made as wide as it has to be, so that columns are straight in any font.
func draw(prompt, text string) string {
	rows := append([]string{prompt}, strings.Split(strings.TrimRight(text, "\n"), "\n")...)
	widest := 0
	for _, row := range rows {
		widest = max(widest, utf8.RuneCountInString(row))
	}
	width, height := 2*margin+int(float64(widest)*charWidth+1), 2*margin+len(rows)*lineHeight
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">
<!-- Written by make pictures: what this command printed. -->
<title>%[3]s</title>
<rect width="100%%" height="100%%" rx="8" fill="#161b22"/>
<g font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="%[4]d" fill="#d0d7de" xml:space="preserve">
`, width, height, html.EscapeString(prompt), fontSize)
	for i, row := range rows {
		colour := ""
		if i == 0 {
			colour = ` fill="#7ee787" font-weight="bold"`
		}
		for _, at := range word.FindAllStringIndex(row, -1) {
			x := margin + float64(utf8.RuneCountInString(row[:at[0]]))*charWidth
			w := row[at[0]:at[1]]
			fmt.Fprintf(&out, `<text x="%.1f" y="%d" textLength="%.1f" lengthAdjust="spacingAndGlyphs"%s>%s</text>`+"\n",
				x, margin+i*lineHeight+fontSize, float64(utf8.RuneCountInString(w))*charWidth, colour, html.EscapeString(w))
		}
	}
	out.WriteString("</g>\n</svg>\n")
	return out.String()
}
