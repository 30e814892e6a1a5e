package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// needless are packages that others name as their needs, and that a container
// which installs nothing can do without.
var needless = []string{
	"dpkg", "tar", "cdebconf", "debconf", "install-info", "gawk", "mawk", "original-awk", "perl", "perl-base",
	"libdebian-installer4", "libnewt0.52", "libslang2", "libtextwrap1", "libnginx-mod-http-echo", "nginx-doc",
}

// merged are the directories that Debian has as links into /usr.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// bulk is what no spec reads of a package.
var bulk = []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bug", "etc/init.d", "etc/nginx/sites-enabled"}

// debian unpacks packages and what they depend on into root, as they come: no
// script of theirs is run. cache keeps the downloads.
func debian(ctx context.Context, cache, root string, packages []string) error {
	done := filepath.Join(root, "..", "debian.done")
	want := strings.Join(packages, " ")
	if have, err := os.ReadFile(done); err == nil && string(have) == want {
		return nil
	}
	all, err := closure(ctx, packages)
	if err != nil {
		return err
	}
	if err := fetch(ctx, cache, all); err != nil {
		return err
	}
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	for _, dir := range merged {
		if err := os.MkdirAll(filepath.Join(root, "usr", dir), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	for _, pkg := range all {
		if err := unpack(ctx, cache, root, pkg); err != nil {
			return fmt.Errorf("package %s: %w", pkg, err)
		}
	}
	for _, dir := range bulk {
		if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	if err := accounts(root); err != nil {
		return err
	}
	return os.WriteFile(done, []byte(want), 0o644)
}

// closure is packages with everything that they depend on.
func closure(ctx context.Context, packages []string) ([]string, error) {
	args := []string{"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"}
	out, err := output(ctx, "apt-cache", append(args, packages...)...)
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(out) {
		name := strings.TrimSpace(line)
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "<") || slices.Contains(needless, name) {
			continue
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// fetch downloads the packages that the cache lacks.
func fetch(ctx context.Context, cache string, packages []string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	var missing []string
	for _, pkg := range packages {
		if _, err := archive(cache, pkg); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	download := exec.CommandContext(ctx, "apt-get", append([]string{"download", "-q"}, missing...)...)
	download.Dir = cache
	if out, err := download.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download: %w\n%s", err, out)
	}
	return nil
}

// archive is a package's file in the cache.
func archive(cache, pkg string) (string, error) {
	found, err := filepath.Glob(filepath.Join(cache, pkg+"_*.deb"))
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no archive of package %q in %s", pkg, cache)
	}
	return found[0], nil
}

// unpack puts a package's files under root.
func unpack(ctx context.Context, cache, root, pkg string) error {
	file, err := archive(cache, pkg)
	if err != nil {
		return err
	}
	script := `dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"`
	if out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", file, root).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// accounts writes the files that Debian's scripts would have written.
func accounts(root string) error {
	for name, text := range map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
		"etc/group":         "root:x:0:\ntty:x:5:\nnobody:x:65534:\nnogroup:x:65533:\n",
		"etc/shadow":        "root:*:::::::\nnobody:*:::::::\n",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	} {
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]os.FileMode{"tmp": 0o777 | os.ModeSticky, "root": 0o700, "var/tmp": 0o777 | os.ModeSticky, "proc": 0o755, "sys": 0o755, "dev": 0o755, "run": 0o755} {
		path := filepath.Join(root, dir)
		if err := os.MkdirAll(path, mode); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	return nil
}
