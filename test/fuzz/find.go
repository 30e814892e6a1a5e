package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// found is a package with fuzz targets.
type found struct {
	folder  string
	targets []string
}

var declared = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// find looks for fuzz targets below folders, whose names, such as
// "node/dns:FuzzPacket", match. Folders that start with a dot, and other modules, are
// left out.
func find(folders []string, match *regexp.Regexp) ([]found, error) {
	targets := map[string][]string{}
	for _, root := range folders {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if e.IsDir() {
				if foreign(path, e.Name()) {
					return filepath.SkipDir
				}
				return nil
			}
			if !strings.HasSuffix(path, "_test.go") {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			folder := filepath.Dir(path)
			for _, m := range declared.FindAllSubmatch(text, -1) {
				if name := string(m[1]); match.MatchString(folder + ":" + name) {
					targets[folder] = append(targets[folder], name)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("no target below %s matches %q", strings.Join(folders, ", "), match)
	}
	var all []found
	for _, folder := range slices.Sorted(maps.Keys(targets)) {
		slices.Sort(targets[folder])
		all = append(all, found{folder, slices.Compact(targets[folder])})
	}
	return all, nil
}

func foreign(path, name string) bool {
	if path == "." {
		return false
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil || strings.HasPrefix(name, ".") && name != ".."
}
