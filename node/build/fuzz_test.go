package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/internal/frugal"
)

// Whatever a Dockerfile says, reading it costs in proportion, and what is wrong with
// it is told with a line that it has.
func FuzzDockerfile(f *testing.F) {
	for _, text := range []string{
		"FROM scratch\nCOPY a /\n", "# escape=`\n# check=skip=all;error=true\nFROM a AS b\nRUN <<A <<-\"B\"\nx\nA\n\ty\n\tB\n",
		"ARG X=${Y:-$Z}\nFROM ${X#a}${X%%b}${X/c/d}${X:?no}\nONBUILD ADD --checksum=sha256:0 --chmod=u=rwX,go= http://x /y\n",
		"FROM a\nRUN --mount=type=cache,id=x,sharing=locked,target=/y,mode=0777 --network=none --security=insecure [\"a\", \"b\"]\n",
		"FROM a\nHEALTHCHECK --start-interval=5s --retries=3 CMD x\nSHELL [\"a\"]\nEXPOSE 80-90/udp\nLABEL \"a b\"='c' d=\\\n# no\n e\n",
		"FROM --platform=$BUILDPLATFORM a\nCOPY <<-EOF\n", "FROM a\nENV a=\"${b", "\xef\xbb\xbfFROM a\r\nUSER ${x:+y}\r\n", "FROM a\nCOPY [", "\\", "ONBUILD ONBUILD FROM x",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		frugal.Run(t, len(raw), func() {
			_, err := parse("Dockerfile", raw, "", func(Warning) {})
			var failure *Failure
			if !errors.As(err, &failure) {
				return
			}
			if lines := strings.Count(string(raw), "\n") + 1; failure.Line < 0 || failure.End < failure.Line || failure.Line > lines+1 {
				t.Errorf("wrong from line %d to %d, of %d: %v", failure.Line, failure.End, lines, err)
			}
			_, _ = failure.Excerpt(), failure.Error()
		})
	})
}

// Whatever a .dockerignore says, the context is read at the same cost, and nothing but
// the context.
func FuzzIgnore(f *testing.F) {
	dir := f.TempDir()
	for _, name := range []string{"a/b/c.txt", "d.md", ".git/x"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700), os.WriteFile(filepath.Join(dir, name), nil, 0o600)); err != nil {
			f.Fatal(err)
		}
	}
	for _, text := range []string{"*\n!a/**/*.txt\n", "**/**/**/x\n", "[a-\n", "# no\n\n  ../x  \n!\n", "\xef\xbb\xbfa/\r\n", "a\\\n", "[^a-c]?{}()+.$^|\n", "!/\n./././a\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		name := filepath.Join(t.TempDir(), "D")
		if err := os.WriteFile(name+".dockerignore", raw, 0o600); err != nil {
			t.Fatal(err)
		}
		frugal.Run(t, len(raw), func() {
			c, err := openContext(dir, name)
			if err != nil {
				return
			}
			defer c.Close()
			found, err := c.walk(".", nil)
			if err == nil && len(found) > 8 {
				t.Errorf("%d files of 3, with their directories", len(found))
			}
		})
	})
}
