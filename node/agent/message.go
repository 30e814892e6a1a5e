package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

// Limits of termination messages: upstream's.
const (
	maxMessage      = 4096
	maxMessageTail  = 2048
	maxMessageLines = 80
)

// terminationMessage is what a container left to be said: the contents of its
// termination file, or else, when it failed and asked for that, the end of its
// log.
func terminationMessage(c *actual.Container) string {
	if c.TerminationFile != "" {
		text, err := head(c.TerminationFile, maxMessage)
		if err == nil && text != "" {
			return text
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Sprintf("Error on reading termination log %s: %v", c.TerminationFile, err)
		}
	}
	if !c.FallbackToLogs || c.ExitCode == 0 || c.LogPath == "" {
		return ""
	}
	text, err := tail(c.LogPath)
	if err != nil {
		return fmt.Sprintf("Error on reading termination message from logs: %v", err)
	}
	return text
}

// head reads the beginning of a file that a container wrote. It follows no
// link, and opens nothing but a file: the container could have put a pipe there.
func head(path string, limit int64) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%q is not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return string(data), err
}

// tail reads the last lines of a CRI log without their time stamps.
func tail(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	// Twice the size leaves room for the stamps.
	const window = 4 * maxMessageTail
	if _, err := f.Seek(max(info.Size()-window, 0), io.SeekStart); err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(f, window))
	if err != nil {
		return "", err
	}
	lines := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	if info.Size() > window {
		lines = lines[1:]
	}
	var out []string
	for _, line := range lines[max(len(lines)-maxMessageLines, 0):] {
		out = append(out, plainLine(line))
	}
	text := strings.Join(out, "")
	return text[max(len(text)-maxMessageTail, 0):], nil
}

// plainLine is a CRI log line's text: after "time stream tag ". A partial line
// goes on in the next.
func plainLine(line []byte) string {
	parts := bytes.SplitN(line, []byte(" "), 4)
	if len(parts) < 4 {
		return string(line)
	}
	if bytes.HasPrefix(parts[2], []byte("P")) {
		return string(parts[3])
	}
	return string(parts[3]) + "\n"
}
