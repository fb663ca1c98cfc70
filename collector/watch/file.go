package watch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"swarming/shared/wire"
)

// MaxFile is the longest watch file that is read, in bytes.
const MaxFile = 1 << 20

// A FileError is a mistake in a watch file.
type FileError struct {
	File string
	Line int // from 1; 0 if the mistake is nowhere in particular
	Msg  string
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Msg
	}
	return e.File + ":" + strconv.Itoa(e.Line) + ": " + e.Msg
}

// ReadFile reads the watch file of that name; see [Parse].
func ReadFile(name string) (wire.Watch, error) {
	data, err := readLimited(name)
	if err != nil {
		return wire.Watch{}, err
	}
	return Parse(name, data)
}

func readLimited(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read watch file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read watch file: %w", err)
	}
	if len(data) > MaxFile {
		return nil, &FileError{File: name, Msg: fmt.Sprintf("is longer than %d bytes, the most that is read", MaxFile)}
	}
	return data, nil
}

// Parse reads what a watch file named file holds. Its mistakes are [*FileError]s
// and quote the input. There are two formats.
//
// Plain: names, one or more a line, and comments from # to the end of the line.
//
// YAML (and so JSON): a mapping with one key, targets, whose value is a list of
// names and of mappings with the wire's field names:
//
//	targets:
//	  - example.com
//	  - target: dns
//	    host: 192.0.2.53
//	    interval: 30s
//
// A file without any target is a mistake, as it may be half written; a list
// that stops the swarm is written "targets: []". So are a name that occurs
// twice, an unknown key and a list longer than [wire.MaxWatch] when encoded.
func Parse(file string, data []byte) (wire.Watch, error) {
	p := parser{file: file, lines: make(map[wire.TargetID]int)}
	err := p.parse(bytes.TrimPrefix(data, []byte("\ufeff")))
	if err == nil {
		err = p.checkSize()
	}
	if err != nil {
		return wire.Watch{}, err
	}
	return p.watch(), nil
}

// ParseArgs reads a list given as words: one target's name each. No words are a
// list that stops the swarm.
func ParseArgs(args []string) (wire.Watch, error) {
	p := parser{file: "targets", lines: make(map[wire.TargetID]int)}
	for _, arg := range args {
		if err := p.add(0, wire.Target{Target: wire.TargetID(arg)}); err != nil {
			return wire.Watch{}, errors.New(err.(*FileError).Msg)
		}
	}
	if err := p.checkSize(); err != nil {
		return wire.Watch{}, err
	}
	return p.watch(), nil
}

// A parser collects a list's targets.
type parser struct {
	file    string
	targets []wire.Target
	lines   map[wire.TargetID]int
}

func (p *parser) fail(line int, format string, args ...any) error {
	return &FileError{p.file, line, fmt.Sprintf(format, args...)}
}

func (p *parser) watch() wire.Watch {
	return wire.Watch{V: wire.Version, Targets: p.targets}
}

// isYAML matches the first line with content of a YAML or JSON document. No
// name of the plain format does: "fe80::1" has no space after its colon.
var isYAML = regexp.MustCompile(`^([{\[%]|---|- |["'\w]+\s*:(\s|$))`)

func (p *parser) parse(data []byte) error {
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			if isYAML.MatchString(line) {
				return p.parseYAML(data)
			}
			return p.parsePlain(string(data))
		}
	}
	return p.fail(0, "has no targets; a list that stops the swarm is written %q", "targets: []")
}

func (p *parser) parsePlain(data string) error {
	n := 0
	for line := range strings.Lines(data) {
		n++
		line, _, _ = strings.Cut(line, "#")
		for _, word := range strings.Fields(line) {
			if err := p.add(n, wire.Target{Target: wire.TargetID(word)}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *parser) add(line int, t wire.Target) error {
	if err := t.Check(); err != nil {
		return p.fail(line, "%v", err)
	}
	if first, ok := p.lines[t.Target]; ok {
		if first == 0 {
			return p.fail(line, "target %q occurs twice", t.Target)
		}
		return p.fail(line, "target %q occurs twice, first in line %d", t.Target, first)
	}
	if len(p.targets) == wire.MaxTargets {
		return p.fail(line, "more than %d targets", wire.MaxTargets)
	}
	p.lines[t.Target] = line
	p.targets = append(p.targets, t)
	return nil
}

func (p *parser) checkSize() error {
	w := p.watch()
	w.Rev, w.By = wire.MaxSeq, strings.Repeat("n", wire.MaxName)
	if n := len(w.Encode()); n > wire.MaxWatch {
		return p.fail(0, "list of %d targets takes %d bytes on the wire: want at most %d, which is what agents accept; use fewer targets or shorter names", len(p.targets), n, wire.MaxWatch)
	}
	return nil
}

// yamlLine finds the line number in an error of the YAML library, which has no
// other way of giving it.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

func (p *parser) parseYAML(data []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		m := yamlLine.FindStringSubmatch(err.Error())
		line, _ := strconv.Atoi(m[1])
		return p.fail(line, "%s", strings.TrimPrefix(err.Error(), m[0]))
	}
	if err := dec.Decode(new(yaml.Node)); err != io.EOF {
		return p.fail(0, "holds more than one YAML document: want one")
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return p.fail(top.Line, "want a mapping with the key %q at the top", "targets")
	}
	found := false
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, val := top.Content[i], top.Content[i+1]
		switch key.Value {
		case "targets":
			if found {
				return p.fail(key.Line, "key %q occurs twice", "targets")
			}
			found = true
			if err := p.yamlTargets(val); err != nil {
				return err
			}
		case "v", "rev", "by":
			return p.fail(key.Line, "key %q is made by the collector: remove it", key.Value)
		default:
			return p.fail(key.Line, "unknown key %.40q: want %q", key.Value, "targets")
		}
	}
	if !found {
		return p.fail(top.Line, "no key %q", "targets")
	}
	return nil
}

func (p *parser) yamlTargets(list *yaml.Node) error {
	if list.Kind != yaml.SequenceNode {
		return p.fail(list.Line, "targets is %.40q: want a list; one that stops the swarm is written %q", list.Value, "targets: []")
	}
	for _, n := range list.Content {
		t, err := p.yamlTarget(n)
		if err == nil {
			err = p.add(n.Line, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) yamlTarget(n *yaml.Node) (t wire.Target, err error) {
	switch n.Kind {
	case yaml.ScalarNode:
		return wire.Target{Target: wire.TargetID(n.Value)}, nil
	case yaml.MappingNode:
	default:
		return t, p.fail(n.Line, "want a target's name or a mapping like %q", "target: example.com")
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if seen[key.Value] {
			return t, p.fail(key.Line, "key %q occurs twice", key.Value)
		}
		seen[key.Value] = true
		if err := setField(&t, key.Value, val); err != nil {
			return t, p.fail(val.Line, "%v", err)
		}
	}
	return t, nil
}

func setField(t *wire.Target, key string, val *yaml.Node) error {
	if key == "needs" {
		return setNeeds(t, val)
	}
	if val.Kind != yaml.ScalarNode {
		return fmt.Errorf("%.40q: want one value", key)
	}
	switch key {
	case "target":
		t.Target = wire.TargetID(val.Value)
	case "host":
		t.Host = val.Value
	case "probe":
		t.Probe = val.Value
	case "family":
		t.Family = wire.Family(val.Value)
	case "count":
		n, err := strconv.Atoi(val.Value)
		if err != nil || n < 1 || n > wire.MaxPackets {
			return fmt.Errorf("count %.40q: want 1 to %d", val.Value, wire.MaxPackets)
		}
		t.Count = n
	case "interval":
		return setDuration(&t.Interval, key, val)
	case "gap":
		return setDuration(&t.Gap, key, val)
	case "timeout":
		return setDuration(&t.Timeout, key, val)
	default:
		return fmt.Errorf("unknown key %.40q: want target, host, probe, interval, count, gap, timeout, family or needs", key)
	}
	return nil
}

func setDuration(d *wire.Duration, key string, val *yaml.Node) error {
	read := d.UnmarshalText
	if tag := val.ShortTag(); tag == "!!int" || tag == "!!float" {
		read = d.UnmarshalJSON // seconds
	}
	if err := read([]byte(val.Value)); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func setNeeds(t *wire.Target, val *yaml.Node) error {
	if val.Kind != yaml.SequenceNode {
		return fmt.Errorf("needs is %.40q: want a list of words", val.Value)
	}
	for _, word := range val.Content {
		t.Needs = append(t.Needs, word.Value)
	}
	return nil
}
