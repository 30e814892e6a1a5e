package sampan_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// link is [text](target) of a document.
var link = regexp.MustCompile(`\[([^\]\n]+)\]\(([^)\s]+)\)`)

// A document names files that are there, and a tour functions that are in them.
func TestDocumentsNameWhatIsThere(t *testing.T) {
	links := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "bin" || d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return skip(d, err)
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(found[2], "://") || strings.HasPrefix(found[2], "#") {
				continue
			}
			links++
			target, _, _ := strings.Cut(found[2], "#")
			target = filepath.Join(filepath.Dir(path), target)
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %q leads nowhere", path, found[2])
				continue
			}
			if name, is := strings.CutPrefix(found[1], "`"); is && filepath.Ext(target) == ".go" {
				declares(t, path, target, strings.TrimSuffix(name, "`"))
			}
		}
		return nil
	})
	if err != nil || links < 100 {
		t.Errorf("%d links found, and then: %v", links, err)
	}
}

func skip(d fs.DirEntry, err error) error {
	if err == nil && d.IsDir() {
		return fs.SkipDir
	}
	return err
}

// declares says whether a file declares a name: a function, method, type, variable or
// constant, or its package. A name with a path or an extension is the file's own.
func declares(t *testing.T, document, file, name string) {
	t.Helper()
	if strings.ContainsAny(name, "/") || strings.HasSuffix(name, ".go") {
		return
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := regexp.QuoteMeta(name[strings.LastIndexAny(name, ". ")+1:])
	if !regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |var |const |\t|package )` + last + `\b`).Match(source) {
		t.Errorf("%s: %q does not declare %q", document, file, name)
	}
}
