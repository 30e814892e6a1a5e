package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrBelow says that a group is not below another.
var ErrBelow = errors.New("bad sub cgroup path")

// JoinBelow is Join for groups below this one, which must be there. Each of where is a
// path for all controllers, or with cgroup v1 some of them, a colon and the path for
// those; the others keep the group itself.
func (g *Group) JoinBelow(where []string) (dir string, tasks []string, err error) {
	paths, err := below(g.m.GetPaths(), where)
	if err != nil {
		return "", nil, fmt.Errorf("cgroup %q: %w", g.path, err)
	}
	for key, path := range paths {
		if _, err := os.Stat(path); err != nil {
			return "", nil, fmt.Errorf("error adding pid to cgroups: %w", err) // runc's words
		}
		if key == unifiedKey {
			dir = path
		} else {
			tasks = append(tasks, filepath.Join(path, "tasks"))
		}
	}
	if dir == "" { // that of a hierarchy beside v1's
		dir, _ = g.Join()
	}
	slices.Sort(tasks)
	return dir, slices.Compact(tasks), nil
}

// below completes the directories of a group by what is wanted below it. The unified
// hierarchy beside those of v1 is not meant by a path for all: nobody has limits there.
func below(paths map[string]string, where []string) (map[string]string, error) {
	out := map[string]string{}
	for key, path := range paths {
		if path != "" && (key != unifiedKey || len(paths) == 1) {
			out[key] = path
		}
	}
	for _, w := range where {
		keys, sub, some := strings.Cut(w, ":")
		if !some {
			keys, sub = "", w
		}
		if sub = strings.TrimLeft(sub, "/"); sub != "" && !filepath.IsLocal(sub) {
			return nil, fmt.Errorf("%w: %q", ErrBelow, w)
		}
		for key := range out {
			if !some {
				out[key] = filepath.Join(paths[key], sub)
			}
		}
		for key := range strings.SplitSeq(keys, ",") {
			if !some {
				break
			}
			if key == unifiedKey || out[key] == "" {
				return nil, fmt.Errorf("unknown controller %q in %q", key, w)
			}
			out[key] = filepath.Join(paths[key], sub)
		}
	}
	return out, nil
}
