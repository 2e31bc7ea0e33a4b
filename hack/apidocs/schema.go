// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// schema is what the page tells of a field: of JSON schema, what controller-gen writes.
type schema struct {
	Description string            `json:"description"`
	Type        string            `json:"type"`
	Format      string            `json:"format"`
	Default     json.RawMessage   `json:"default"`
	Enum        []string          `json:"enum"`
	Pattern     string            `json:"pattern"`
	Minimum     *int64            `json:"minimum"`
	Maximum     *int64            `json:"maximum"`
	MinLength   *int64            `json:"minLength"`
	MaxLength   *int64            `json:"maxLength"`
	MinItems    *int64            `json:"minItems"`
	MaxItems    *int64            `json:"maxItems"`
	Items       *schema           `json:"items"`
	Values      *schema           `json:"additionalProperties"`
	Properties  map[string]schema `json:"properties"`
	Required    []string          `json:"required"`
	ListType    string            `json:"x-kubernetes-list-type"`
	MapKeys     []string          `json:"x-kubernetes-list-map-keys"`
	Rules       []struct {
		Message string `json:"message"`
	} `json:"x-kubernetes-validations"`
}

// write writes a row for the field, and then one for each below it, by name.
func (s schema) write(out *strings.Builder, path string, required bool) {
	rules := s.rules()
	if required {
		rules = append([]string{"**required**"}, rules...)
	}
	fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", path, s.kind(), strings.Join(rules, "; "), cell(s.Description))
	below := s
	if s.Items != nil {
		path, below = path+"[]", *s.Items
	}
	for _, name := range slices.Sorted(maps.Keys(below.Properties)) {
		below.Properties[name].write(out, path+"."+name, slices.Contains(below.Required, name))
	}
}

// kind returns the type in words, for example list of string, map of string or int64.
func (s schema) kind() string {
	switch {
	case s.Items != nil:
		return "list of " + s.Items.kind()
	case s.Values != nil:
		return "map of " + s.Values.kind()
	case s.Format == "date-time":
		return "time, RFC 3339"
	case s.Type == "integer":
		return s.Format
	default:
		return s.Type
	}
}

// rules returns the default and what the API server refuses, in words; of a list also what holds for each item.
func (s schema) rules() (list []string) {
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if s.Default != nil {
		add("*default* `%s`", strings.Trim(string(s.Default), `"`))
	}
	if len(s.Enum) > 0 {
		add("`%s`", strings.Join(s.Enum, "`, `"))
	}
	switch s.ListType {
	case "map":
		add("one for each %s", strings.Join(s.MapKeys, " and "))
	case "set":
		add("none twice")
	}
	for _, r := range []struct {
		from, to *int64
		of       string
	}{{s.Minimum, s.Maximum, ""}, {s.MinLength, s.MaxLength, " characters"}, {s.MinItems, s.MaxItems, " items"}} {
		switch {
		case r.from != nil && r.to != nil:
			add("%d to %d%s", *r.from, *r.to, r.of)
		case r.from != nil:
			add("at least %d%s", *r.from, r.of)
		case r.to != nil:
			add("at most %d%s", *r.to, r.of)
		}
	}
	if s.Pattern != "" {
		add("matches `%s`", strings.ReplaceAll(s.Pattern, "|", `\|`))
	}
	for _, r := range s.Rules {
		add("%s", cell(r.Message))
	}
	if s.Items != nil {
		if each := s.Items.rules(); len(each) > 0 {
			add("each: %s", strings.Join(each, ", "))
		}
	}
	return list
}
