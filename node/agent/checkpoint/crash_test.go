package checkpoint

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// crashFile names, in the environment of a process that is to be killed, the file
// that it writes.
const crashFile = "SAMPAN_TEST_CHECKPOINT"

// record is large enough for a write to be cut in two.
type record struct {
	N    int
	Fill string
}

func TestMain(m *testing.M) {
	path := os.Getenv(crashFile)
	if path == "" {
		os.Exit(m.Run())
	}
	fill := strings.Repeat("x", 256<<10)
	for n := 1; ; n++ {
		if err := Save(path, record{n, fill}); err != nil {
			panic(err)
		}
		// What was saved is told only now: it must be there whatever comes.
		if _, err := os.Stdout.WriteString("saved\n"); err != nil {
			panic(err)
		}
	}
}

// A process that is killed while it writes leaves what it wrote last, or the one
// before it, whole.
func TestKilledWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for round := range 12 {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), os.Args[0])
		c.Env = append(os.Environ(), crashFile+"="+path)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		told, lines := 0, bufio.NewScanner(out)
		for told <= round%4 && lines.Scan() {
			told++
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			told++
		}
		_ = c.Wait()
		var got record
		found, err := Load(path, &got)
		if err != nil || !found || len(got.Fill) != 256<<10 || (got.N != told && got.N != told+1) {
			t.Errorf("round %d: number %d of %d, found %v, %v", round, got.N, told, found, err)
		}
	}
}
