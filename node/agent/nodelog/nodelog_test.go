package nodelog

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// script stands for journalctl: it knows two units, and says what it is asked.
const script = `#!/bin/sh
case "$1" in
--field) echo kubelet.service; echo x@1.service; exit 0;;
esac
for a in "$@"; do echo "<$a>"; done
echo complaint >&2
exit 1
`

func logs(t *testing.T) Logs {
	t.Helper()
	outside, dir := t.TempDir(), t.TempDir()
	put := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(outside, "secret"), "secret", 0o600)
	put(filepath.Join(outside, "journalctl"), script, 0o700)
	put(filepath.Join(dir, "syslog"), "of syslog", 0o600)
	put(filepath.Join(dir, "cron.log"), "of cron", 0o600)
	put(filepath.Join(dir, "web", "web.log"), "of web", 0o600)
	for link, to := range map[string]string{"out": filepath.Join(outside, "secret"), "up": "../" + filepath.Base(outside) + "/secret", "dir": outside} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("syslog", filepath.Join(dir, "same")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Logs{Dir: dir, Journal: filepath.Join(outside, "journalctl")}
}

// TestAnswers: what is answered to what is asked.
func TestAnswers(t *testing.T) {
	l := logs(t)
	const usual = "<--utc>\n<--no-pager>\n<--output=short-precise>\n"
	cases := []struct {
		ask  string
		code int
		want string
	}{
		{"/", 200, `<a href="syslog">`},
		{"/syslog", 200, "of syslog"},
		{"/pipe", 500, ""}, {"/out", 500, ""}, {"/dir/secret", 500, ""}, {"/../" + "secret", 404, ""},
		{"/?query=kubelet", 200, usual + "<--unit=kubelet>\ncomplaint\n"},
		{"/?query=x@1.service", 200, usual + "<--unit=x@1.service>\n"},
		{"/?query=kubelet&query=x@1&tailLines=5&boot=-1&pattern=a.*b", 200,
			usual + "<--pager-end>\n<--lines=5>\n<--unit=kubelet>\n<--unit=x@1>\n<--grep=a.*b>\n<--boot=-1>\n"},
		{"/?query=kubelet&sinceTime=2026-01-02T03:04:05%2B02:00&untilTime=2026-01-02T03:04:05Z", 200,
			usual + "<--since=2026-01-02 01:04:05 UTC>\n<--until=2026-01-02 03:04:05 UTC>\n<--unit=kubelet>\n"},
		{"/?query=kube", 200, "\nlog not found for kube\n"}, // which upstream takes for kubelet
		{"/?query=syslog", 200, "of syslog"},
		{"/?query=same", 200, "of syslog"},
		{"/?query=cron&query=web", 200, "of cronof web"},
		{"/?query=cron&tailLines=1", 200, "options present and query resolved to log files for [cron]"},
		{"/?query=nothing", 200, "log not found for nothing"},
		{"/?query=out", 200, "error getting log for out: "},
		{"/?query=up", 200, "error getting log for up: "},
		{"/?query=pipe", 200, "error getting log for pipe: is no file"},
		{"/?query=/syslog", 200, "of syslog"},
		{"/?query=web/web.log", 200, "of web"},
		{`/?query=\web\web.log`, 200, "of web"},
		{"/?query=/web/", 200, `<a href="web.log">`},
		{"/?query=/pipe", 406, "is no file"},
		{"/?query=/out", 406, "path escapes from parent"},
		{"/?query=/dir/secret", 406, "path escapes from parent"},
		{"/?query=../secret", 406, "path escapes from parent"},
		{"/?query=/none", 406, "no such file"},
		{"/?query=/syslog&tailLines=1", 406, "cannot specify file with options"},
		{"/?query=/syslog&query=/web/web.log", 406, "cannot specify more than one file"},
		{"/?query=/syslog&query=cron", 406, "cannot specify a file and service"},
		{"/?query=a&query=b&query=c&query=d&query=e", 406, "must have at most 4 items"},
		{"/?query=" + strings.Repeat("a", 257), 406, "length must be less than 256"},
		{"/?query=a%20b", 406, "input contains unsupported characters"},
		{"/?query=$(id)", 406, "input contains unsupported characters"},
		{"/?query=..", 406, "is no service"},
		{"/?query=a&boot=1", 406, "must be less than 1"},
		{"/?query=a&tailLines=100001", 406, "must be between 0 and 100000"},
		{"/?query=a&pattern=(", 406, "missing closing )"},
		{"/?query=a&sinceTime=2026-01-02T03:04:05Z&untilTime=2025-01-02T03:04:05Z", 406, "must be after `sinceTime`"},
		{"/?tailLines=1", 406, "cannot be empty with options"},
		{"/syslog?query=cron", 406, "path not allowed in query mode"},
		{"/?query=", 400, "may not be empty"},
		{"/?query=a&boot=x", 400, "boot: Invalid value"},
		{"/?query=a&tailLines=x", 400, "tailLines: Invalid value"},
		{"/?query=a&sinceTime=yesterday", 400, "invalid time format"},
		{"/?unknown=1", 200, `<a href="syslog">`},
	}
	for _, c := range cases {
		path, query, _ := strings.Cut(c.ask, "?")
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.URL = &url.URL{Path: path, RawQuery: query}
		w := httptest.NewRecorder()
		l.ServeHTTP(w, r)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) || strings.Contains(w.Body.String(), "secret") && !strings.Contains(c.ask, "secret") {
			t.Errorf("%s: %d %q, want %d %q", c.ask, w.Code, w.Body, c.code, c.want)
		}
		if strings.TrimSpace(w.Body.String()) == "secret" {
			t.Errorf("%s shows what is outside", c.ask)
		}
	}
}

// TestNoJournal: without the program every service has files.
func TestNoJournal(t *testing.T) {
	l := logs(t)
	l.Journal = filepath.Join(l.Dir, "none")
	r := httptest.NewRequest(http.MethodGet, "/?query=kubelet&query=cron", http.NoBody)
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	l.ServeHTTP(w, r)
	packed, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(packed)
	if want := "\nlog not found for kubelet\nof cron"; err != nil || string(text) != want {
		t.Errorf("answered %q %v, want %q", text, err, want)
	}
}
