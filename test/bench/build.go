package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Numbers of builds of each sort; the cached ones are short.
const (
	builds       = 5
	cachedBuilds = 20
)

// tenSteps are the ten instructions that are built, upon a base with a shell.
const tenSteps = `FROM localhost/base:1
ENV GREETING=hello
WORKDIR /work
COPY one .
RUN mkdir a && echo $GREETING > a/greeting
RUN cp a/greeting a/again
COPY two .
RUN cp two a/two
RUN mkdir -p deep/er/still && cp a/two deep/er/still
LABEL made=here
CMD ["/bin/sh"]
`

// build measures a build of ten steps, from nothing and with all of them in the
// cache, beside buildah.
func build(ctx context.Context) ([]row, error) {
	dir, err := os.MkdirTemp("/var/tmp", "sampan-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := buildContext(ctx, dir); err != nil {
		return nil, err
	}
	in := filepath.Join(dir, "context")
	ours := []string{binary, "build", "--data-dir", filepath.Join(dir, "sampan"), "-q"}
	commands := map[string][]string{"sampan": append(ours, "-t", "bench:1")}
	if err := (prices{}).run(ctx, "", nil, append(ours, "-t", "localhost/base:1", filepath.Join(dir, "base"))...); err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("buildah"); err == nil {
		buildah := []string{"buildah", "--root", filepath.Join(dir, "b"), "--runroot", filepath.Join(dir, "br"), "--storage-driver", "overlay",
			"bud", "-q", "--layers", "--isolation", "chroot", "--pull-never"}
		commands["buildah"] = append(buildah, "-t", "localhost/bench:1")
		if err := (prices{}).run(ctx, "", nil, append(buildah, "-t", "localhost/base:1", filepath.Join(dir, "base"))...); err != nil {
			return nil, err
		}
		defer func() { _ = exec.Command("umount", filepath.Join(dir, "b/overlay")).Run() }() // buildah leaves its bind mount
	}
	took := prices{}
	for i := range builds + cachedBuilds {
		sort, args := " uncached", []string{"--no-cache", in}
		if i >= builds {
			sort, args = " cached", []string{in}
		}
		for name, argv := range commands {
			if err := took.run(ctx, name+sort, nil, append(argv[:len(argv):len(argv)], args...)...); err != nil {
				return nil, err
			}
		}
	}
	rows := []row{
		{"sampan build of ten steps, all in the cache", took.show("sampan cached", 0), "<= 100 ms"},
		{"sampan build of ten steps, none", took.show("sampan uncached", 0), ""},
	}
	if commands["buildah"] != nil {
		rows = append(rows, row{"buildah bud, all in the cache", took.show("buildah cached", 0), ""},
			row{"… sampan's time of buildah's", took.ratio("sampan cached", "buildah cached"), ""},
			row{"buildah bud, none", took.show("buildah uncached", 0), ""},
			row{"… sampan's time of buildah's", took.ratio("sampan uncached", "buildah uncached"), "<= 1"})
	}
	return rows, nil
}

// buildContext makes the files of both builds: a base of this machine's own shell
// and what it needs, and the ten steps.
func buildContext(ctx context.Context, dir string) error {
	programs := []string{"/bin/sh", "/bin/mkdir", "/bin/cp"}
	out, err := exec.CommandContext(ctx, "ldd", programs...).Output()
	if err != nil {
		return fmt.Errorf("ldd: %w", err)
	}
	files := programs
	for _, m := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		files = append(files, m[1])
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		to := filepath.Join(dir, "base/root", f)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, raw, 0o755)); err != nil {
			return err
		}
	}
	in := filepath.Join(dir, "context")
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "base/Dockerfile"), []byte("FROM scratch\nCOPY root /\n"), 0o600), os.MkdirAll(in, 0o755),
		os.WriteFile(filepath.Join(in, "Dockerfile"), []byte(tenSteps), 0o600),
		os.WriteFile(filepath.Join(in, "one"), []byte(strings.Repeat("one\n", 1000)), 0o600),
		os.WriteFile(filepath.Join(in, "two"), []byte(strings.Repeat("two\n", 1000)), 0o600))
}
