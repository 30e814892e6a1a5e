// Program images makes, with sampan build, the images that the suite's specs ask
// for, under upstream's names and tags, and saves them into one archive. No image
// registry is asked: programs come from Go modules, shells and tools from Debian's
// packages (apt-get and dpkg-deb must be there, which is to say Debian or Ubuntu).
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
)

// kitchen is where the images are made.
type kitchen struct {
	// sampan is the program that builds; data is a --data-dir for its store.
	sampan, data string
	// work has the contexts and what has been downloaded.
	work string
	// upstream is the folder of upstream's images in its module.
	upstream string
}

func main() {
	k := kitchen{}
	archive := ""
	flag.StringVar(&k.sampan, "sampan", "../../bin/sampan", "the program that builds")
	flag.StringVar(&k.work, "work", "../../bin/conformance", "directory for contexts, downloads and the store")
	flag.StringVar(&archive, "o", "../../bin/conformance/images.tar", "the archive to write")
	flag.Parse()
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := k.cook(ctx, archive); err != nil {
		log.Fatal("images: ", err)
	}
}

// cook makes all images and saves them.
func (k *kitchen) cook(ctx context.Context, archive string) (err error) {
	if k.work, err = filepath.Abs(k.work); err != nil {
		return err
	}
	k.data = filepath.Join(k.work, "store")
	module, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	if err != nil {
		return err
	}
	k.upstream = filepath.Join(module, "test", "images")
	var names []string
	for _, r := range recipes() {
		if err := k.make(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", r.names[0], err)
		}
		names = append(names, r.names...)
	}
	return run(ctx, k.sampan, append([]string{"save", "--data-dir", k.data, "-o", archive}, names...)...)
}

// make lays out an image's context and builds it.
func (k *kitchen) make(ctx context.Context, r recipe) error {
	dir := filepath.Join(k.work, "context", strings.NewReplacer("/", "_", ":", "_").Replace(r.names[0]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := k.layOut(ctx, dir, r); err != nil {
		return err
	}
	args := []string{"build", "--data-dir", k.data}
	for _, name := range r.names {
		args = append(args, "-t", name)
	}
	return run(ctx, k.sampan, append(args, dir)...)
}

func (k *kitchen) layOut(ctx context.Context, dir string, r recipe) error {
	if err := dockerfile(dir, r); err != nil {
		return err
	}
	for _, pkg := range r.programs {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "bin", programName(pkg)), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	for to, from := range r.files {
		if err := copyFile(filepath.Join(dir, to), filepath.Join(k.upstream, from)); err != nil {
			return err
		}
	}
	if len(r.packages) == 0 {
		return nil
	}
	return debian(ctx, filepath.Join(k.work, "debs"), filepath.Join(dir, "debian"), r.packages)
}

// programName is what go build would call the program of a package.
func programName(pkg string) string {
	if base := path.Base(pkg); base != "v3" {
		return base
	}
	return path.Base(path.Dir(pkg))
}

// dockerfile puts a recipe's own folder, or its line or two, into the context.
func dockerfile(dir string, r recipe) error {
	if r.folder == "" {
		return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(r.dockerfile), 0o644)
	}
	files, err := filepath.Glob(filepath.Join("images", r.folder, "*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".go") {
			continue
		}
		if err := copyFile(filepath.Join(dir, filepath.Base(f)), f); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o644)
}

// output is what a command prints on its standard output.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, args[0], err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return nil
}
