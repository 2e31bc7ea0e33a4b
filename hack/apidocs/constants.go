package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
)

// group is a const declaration of the API with its comment.
type group struct {
	comment   string
	constants []constant
}

type constant struct{ name, value, comment string }

// constants returns the groups of constants that a file declares, in its order, without those that are of one alone.
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
			value, err := strconv.Unquote(s.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", file, s.Names[0], err)
			}
			comment := strings.TrimPrefix(s.Doc.Text()+s.Comment.Text(), s.Names[0].Name+" ")
			g.constants = append(g.constants, constant{s.Names[0].Name, value, comment})
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// reason is the name of a reason's constant: in the API it is said without the first word.
var reason = regexp.MustCompile(`\bReason([A-Z]\w*)`)

func (g group) write(out *strings.Builder) {
	inWords := func(text string) string {
		text = cell(reason.ReplaceAllString(text, "$1"))
		return strings.ReplaceAll(text, "docs/troubleshooting.md", "[troubleshooting.md](troubleshooting.md)")
	}
	fmt.Fprintf(out, "\n%s\n\n| | meaning |\n|---|---|\n", inWords(g.comment))
	for _, c := range g.constants {
		name := "`" + c.value + "`"
		if reason.MatchString(c.name) {
			name = fmt.Sprintf("[%s](troubleshooting.md#%s)", name, strings.ToLower(c.value))
		}
		fmt.Fprintf(out, "| %s | %s |\n", name, inWords(c.comment))
	}
}
