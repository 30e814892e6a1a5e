// Command toolbox is the program of the stories' containers: the few commands
// that a story needs inside one, in one static program, so that no image has to
// be fetched. Called as tar it is the tar that kubectl cp talks to.
package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	args := os.Args
	if filepath.Base(args[0]) == "toolbox" {
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{"idle"}
	}
	if err := run(filepath.Base(args[0]), args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(name string, args []string) error {
	switch name {
	case "idle": // until SIGTERM
		await(syscall.SIGTERM)
	case "stubborn": // until killed
		signal.Ignore(syscall.SIGTERM)
		await(syscall.SIGUSR1)
	case "exit": // exit CODE [WORD...]: say the words and end so
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		fmt.Println(strings.Join(args[1:], " "))
		os.Exit(code)
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "count": // a line every 100 ms
		for i := 1; ; i++ {
			fmt.Println("line", i)
			time.Sleep(100 * time.Millisecond)
		}
	case "lots": // lots COUNT: so many lines
		return lots(args[0])
	case "prompt": // asks for a name, without a new line
		return prompt()
	case "said": // until a signal, and say which
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
		fmt.Println("waiting") // whoever reads it may send one
		fmt.Println("got", <-c)
		os.Exit(3)
	case "get": // get URL
		return get(args[0])
	case "try": // try URL: get it at once, or fail
		http.DefaultClient.Timeout = 2 * time.Second
		return get(args[0])
	case "cat":
		return cat(args)
	case "write": // write FILE WORD...
		return os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")+"\n"), 0o644)
	case "tty":
		return tty()
	case "serve":
		return serve(args)
	case "tar":
		return archive(args)
	default:
		return fmt.Errorf("toolbox has no %q", name)
	}
	return nil
}

func await(s os.Signal) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, s)
	<-c
}

func cat(files []string) error {
	if len(files) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// lots prints so many lines at once.
func lots(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for i := range n {
		fmt.Fprintf(out, "line %d of %d\n", i+1, n)
	}
	return out.Flush()
}

// prompt is a program that talks to a person.
func prompt() error {
	fmt.Print("your name: ")
	name, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Printf("hello, %s\n", strings.TrimSpace(name))
	return tty()
}

// get fetches a page.
func get(url string) error {
	answer, err := http.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

// tty says whether standard input is a terminal.
func tty() error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return errors.New("not a terminal")
	}
	fmt.Println("a terminal")
	return nil
}

// serve answers every request with the words, on port 8080.
func serve(words []string) error {
	return http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, strings.Join(words, " "))
	}))
}

// archive is as much of tar as kubectl cp uses: "cf - PATH" and "xf - [-C DIR]",
// with the letters m and p and the flag --no-same-permissions accepted.
func archive(args []string) error {
	letters, dir, paths := "", ".", []string{}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-C":
			i++
			dir = args[i]
		case strings.HasPrefix(a, "--"), a == "-":
		case letters == "":
			letters = strings.TrimPrefix(a, "-")
		default:
			paths = append(paths, a)
		}
	}
	switch {
	case strings.Contains(letters, "c"):
		return pack(paths)
	case strings.Contains(letters, "x"):
		return unpack(dir)
	}
	return fmt.Errorf("tar: want c or x, not %q", letters)
}

func pack(paths []string) error {
	out := tar.NewWriter(os.Stdout)
	for _, p := range paths {
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return add(out, path, d)
		})
		if err != nil {
			return err
		}
	}
	return out.Close()
}

func add(out *tar.Writer, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	header, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return err
	}
	header.Name = strings.TrimPrefix(path, "/")
	if err := out.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

func unpack(dir string) error {
	for in := tar.NewReader(os.Stdin); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, header.Name)
		if header.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			continue
		}
		content, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, content, header.FileInfo().Mode().Perm()); err != nil {
			return err
		}
	}
}
