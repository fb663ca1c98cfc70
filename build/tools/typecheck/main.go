// Command typecheck type-checks the programs, their packages and all their tests
// for every platform in build/platforms.txt.
//
//	cd build/tools && go run ./typecheck
//
// It finds what a compiler would find in this project's code (what is undefined
// on Windows, what overflows on 32 bits) in seconds for each platform. go vet
// would take minutes, because it compiles the dependencies first; make cross
// does so.
package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/tools/go/packages"
)

// top is the root of the source tree, seen from where this is run.
const top = "../.."

func main() {
	platforms, err := readPlatforms(filepath.Join(top, "build/platforms.txt"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "typecheck:", err)
		os.Exit(1)
	}
	ok := true
	for _, p := range platforms {
		begin := time.Now()
		n, problems, err := p.check()
		if err != nil {
			problems = append(problems, err.Error())
		}
		for _, problem := range problems {
			fmt.Printf("%s: %s\n", p.name(), problem)
			ok = false
		}
		fmt.Printf("%-16s %d packages and tests, %.1f s\n", p.name(), n, time.Since(begin).Seconds())
	}
	if !ok {
		os.Exit(1)
	}
}

// A platform is a line of platforms.txt.
type platform struct {
	os, arch, variant string
	programs          []string
}

func readPlatforms(path string) ([]platform, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []platform
	for s := bufio.NewScanner(f); s.Scan(); {
		words := strings.Fields(s.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) < 4 {
			return nil, fmt.Errorf("%s: %q: want GOOS GOARCH VARIANT and programs", path, s.Text())
		}
		all = append(all, platform{words[0], words[1], words[2], words[3:]})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no platform", path)
	}
	return all, nil
}

func (p platform) name() string {
	name := p.os + "-" + p.arch
	if p.variant != "-" {
		name += "-" + p.variant
	}
	return name
}

// patterns leaves out what cannot exist where not both programs run: the other
// program, and build, whose tests need both.
func (p platform) patterns() []string {
	if len(p.programs) > 1 {
		return []string{"./..."}
	}
	return []string{"./shared/...", "./" + p.programs[0] + "/..."}
}

// check returns how many packages it looked at and what is wrong with them.
func (p platform) check() (n int, problems []string, err error) {
	env := append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch)
	switch p.arch {
	case "arm":
		env = append(env, "GOARM="+p.variant)
	case "mips", "mipsle":
		env = append(env, "GOMIPS="+p.variant)
	}
	// With NeedDeps, dependencies come from source instead of from the
	// compiler, and only their declarations are checked.
	found, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports |
			packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedTypesSizes,
		Dir:   top,
		Env:   env,
		Tests: true,
	}, p.patterns()...)
	if err != nil {
		return 0, nil, fmt.Errorf("load packages: %w", err)
	}
	if len(found) == 0 {
		return 0, nil, fmt.Errorf("no packages match %q", p.patterns())
	}
	seen := map[string]bool{} // a package and its tests share files
	packages.Visit(found, nil, func(pkg *packages.Package) {
		for _, e := range pkg.Errors {
			if text := e.Error(); !seen[text] {
				seen[text] = true
				problems = append(problems, text)
			}
		}
	})
	return len(found), problems, nil
}
