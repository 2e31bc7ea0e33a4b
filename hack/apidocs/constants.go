// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// group is a const declaration of the API with its comment.
type group struct {
	comment   string
	constants []constant
}

type constant struct{ name, value, comment string }

// constants returns the groups of string constants that a file declares, in its order. Single declarations, and constants
// whose value is not one literal, are left out.
func constants(file string) (groups []group, err error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	for _, declared := range parsed.Decls {
		d, ok := declared.(*ast.GenDecl)
		if !ok || d.Tok != token.CONST || !d.Lparen.IsValid() {
			continue
		}
		g := group{comment: d.Doc.Text()}
		for _, spec := range d.Specs {
			s := spec.(*ast.ValueSpec)
			if len(s.Values) != 1 {
				continue
			}
			literal, ok := s.Values[0].(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				continue
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", file, s.Names[0], err)
			}
			comment := strings.TrimPrefix(s.Doc.Text()+s.Comment.Text(), s.Names[0].Name+" ")
			g.constants = append(g.constants, constant{s.Names[0].Name, value, comment})
		}
		if len(g.constants) > 0 {
			groups = append(groups, g)
		}
	}
	return groups, nil
}

func (g group) write(out *strings.Builder) {
	fmt.Fprintf(out, "\n%s\n\n| | meaning |\n|---|---|\n", cell(g.comment))
	for _, c := range g.constants {
		fmt.Fprintf(out, "| `%s` | %s |\n", c.value, cell(c.comment))
	}
}
