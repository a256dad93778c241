package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// splitFunc takes a line of input apart into a record's key and value. A nil key is no key. The results may share memory with the line.
type splitFunc func(line []byte) (key, value []byte, err error)

// keyOptions are the ways to find a key in a line; at most one may be set.
type keyOptions struct {
	jsonField string
	separator string
	regex     string
}

// newSplitFunc returns the function for the option that is set.
func newSplitFunc(o keyOptions) (splitFunc, error) {
	var names []string
	for _, f := range []struct{ name, value string }{
		{"--key-json", o.jsonField}, {"--key-separator", o.separator}, {"--key-regex", o.regex},
	} {
		if f.value != "" {
			names = append(names, f.name)
		}
	}
	if len(names) > 1 {
		return nil, usageErrorf("%s exclude one another: choose one", strings.Join(names, " and "))
	}
	switch {
	case o.jsonField != "":
		return splitByJSON(o.jsonField)
	case o.separator != "":
		return splitBySeparator(o.separator)
	case o.regex != "":
		return splitByRegex(o.regex)
	}
	return func(line []byte) ([]byte, []byte, error) { return nil, line, nil }, nil
}

// splitByJSON takes the key from a field of a JSON object, nested fields joined by dots. The value is the whole line. The key of a
// string is its text, of a number or boolean its literal.
func splitByJSON(field string) (splitFunc, error) {
	path := strings.Split(field, ".")
	if contains(path, "") {
		return nil, usageErrorf("--key-json %q: an empty field name", field)
	}
	return func(line []byte) ([]byte, []byte, error) {
		raw := json.RawMessage(line)
		for i, name := range path {
			var object map[string]json.RawMessage
			if err := json.Unmarshal(raw, &object); err != nil {
				return nil, nil, jsonError(err, path[:i])
			}
			next, ok := object[name]
			if !ok {
				return nil, nil, fmt.Errorf("no field %q", strings.Join(path[:i+1], "."))
			}
			raw = next
		}
		key, err := scalarKey(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("field %q: %w", field, err)
		}
		return key, line, nil
	}, nil
}

func jsonError(err error, at []string) error {
	where := "line"
	if len(at) > 0 {
		where = fmt.Sprintf("field %q", strings.Join(at, "."))
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%s is not valid JSON: %w (at byte %d)", where, err, syntax.Offset)
	}
	return fmt.Errorf("%s is not a JSON object", where)
}

func scalarKey(raw json.RawMessage) ([]byte, error) {
	switch raw[0] {
	case '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, err
		}
		return []byte(s), nil
	case '{', '[':
		return nil, errors.New("an object or array cannot be a key")
	case 'n':
		return nil, errors.New("null cannot be a key")
	}
	return bytes.Clone(raw), nil
}

func splitBySeparator(sep string) (splitFunc, error) {
	s, err := unescape(sep)
	if err != nil {
		return nil, usageErrorf("--key-separator: %v", err)
	}
	return func(line []byte) ([]byte, []byte, error) {
		key, value, ok := bytes.Cut(line, []byte(s))
		if !ok {
			return nil, nil, fmt.Errorf("no separator %q", s)
		}
		return key[:len(key):len(key)], value, nil
	}, nil
}

// splitByRegex takes the first group of the expression for the key, or the whole match if it has no group. The value is the whole line.
func splitByRegex(expr string) (splitFunc, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, usageErrorf("--key-regex: %v", err)
	}
	return func(line []byte) ([]byte, []byte, error) {
		m := re.FindSubmatchIndex(line)
		if m == nil {
			return nil, nil, fmt.Errorf("does not match %q", expr)
		}
		from, to := m[0], m[1]
		if len(m) > 2 {
			from, to = m[2], m[3]
		}
		if from < 0 {
			return nil, nil, fmt.Errorf("the group of %q matched nothing", expr)
		}
		return line[from:to:to], line, nil
	}, nil
}
