package checks

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// root is the top of the source tree, seen from this package.
const root = "../.."

// module is its import path.
const module = "swarming"

// A source is one Go file, whatever system it is for.
type source struct {
	path string // from the top, with slashes
	dir  string // likewise: the package, "agent/probe"
	test bool
	ast  *ast.File
}

// sources parses every Go file of the tree once.
var sources = sync.OnceValues(func() ([]source, error) {
	var all []source
	err := eachFile(func(name string, text []byte) error {
		if path.Ext(name) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, source{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), ast: f})
		return nil
	})
	return all, err
})

// eachFile calls f for every file of the tree that a person wrote: not for what
// .gitignore names, nor for binaries.
func eachFile(f func(name string, text []byte) error) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if name == ".git" || name == "dist" || d.Name() == "swarming-data" {
				return fs.SkipDir
			}
			return nil
		}
		if ext := path.Ext(name); !d.Type().IsRegular() || ext == ".test" || ext == ".out" {
			return nil
		}
		text, err := os.ReadFile(p)
		if os.IsNotExist(err) {
			return nil // another test's, gone since
		}
		if err != nil || bytes.IndexByte(text, 0) >= 0 {
			return err
		}
		return f(name, text)
	})
}

func mustSources(t *testing.T) []source {
	t.Helper()
	all, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found only %d Go files: looked in the wrong place?", len(all))
	}
	return all
}

// Exactly one file of a package says what the package is for.
func TestOnePackageComment(t *testing.T) {
	type count struct {
		files    int
		comments []string
	}
	packages := map[string]*count{}
	onlyTests := map[string]bool{}
	all := mustSources(t)
	for _, s := range all {
		if !s.test {
			onlyTests[s.dir] = false
		} else if _, known := onlyTests[s.dir]; !known {
			onlyTests[s.dir] = true
		}
	}
	for _, s := range all {
		if s.test && !onlyTests[s.dir] {
			if s.ast.Doc != nil {
				t.Errorf("%s has a package comment: it belongs into a file that is no test", s.path)
			}
			continue
		}
		c := packages[s.dir]
		if c == nil {
			c = new(count)
			packages[s.dir] = c
		}
		c.files++
		if s.ast.Doc != nil {
			c.comments = append(c.comments, s.path)
		}
	}
	for dir, c := range packages {
		if len(c.comments) != 1 {
			t.Errorf("package %s has %d package comments %v in %d files, want 1", dir, len(c.comments), c.comments, c.files)
		}
	}
}

// What runs before main runs cannot be tested, ordered or left out.
func TestNoInit(t *testing.T) {
	for _, s := range mustSources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}

// A package that is called by what it holds can only grow.
func TestPackageNames(t *testing.T) {
	for _, s := range mustSources(t) {
		switch name := path.Base(s.dir); name {
		case "util", "utils", "common", "helper", "helpers", "manager", "misc", "base":
			t.Errorf("package %s: name the idea, not %q", s.dir, name)
		}
	}
}

// The tree means the same on every machine, and says nothing unfinished.
func TestForeignText(t *testing.T) {
	// In pieces, or this file would be found.
	machine := regexp.MustCompile(`(^|[^\w.-])/(wo` + `rk|fa` + `rm|ro` + `ot)/`)
	unfinished := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	files := 0
	err := eachFile(func(name string, text []byte) error {
		files++
		if m := machine.Find(text); m != nil {
			t.Errorf("%s names a path of somebody's machine: %q", name, m)
		}
		if m := unfinished.Find(text); m != nil {
			t.Errorf("%s says %q: finish it, or open an issue", name, m)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("looked at %d files only", files)
	}
}

// Bare make prints what can be made; these are promised.
func TestMakeTargets(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"demo", "test", "build", "cross", "package", "bench", "lint", "fuzz"} {
		if !regexp.MustCompile(`(?m)^` + target + `:.* ## \S`).Match(text) {
			t.Errorf("the Makefile has no target %s with a ## line", target)
		}
	}
}

// People look there for what a new version changes for them.
func TestChangelog(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("## [Unreleased]")) {
		t.Error("CHANGELOG.md has no section Unreleased")
	}
}
