package etcd_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/control/store/etcd"
)

// victimDir names, in the environment of a child process, the data directory on
// which it writes until it is killed.
const victimDir = "SAMPAN_TEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled creates keys as fast as it can, and tells each on standard
// output once it has been acknowledged.
func writeUntilKilled(dir string) error {
	server, err := etcd.Start(context.Background(), etcd.EmbedConfig{Dir: dir})
	if err != nil {
		return err
	}
	defer server.Close()
	var once sync.Once
	var writers sync.WaitGroup
	var out sync.Mutex
	for i := range 8 {
		writers.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("/%d/%d/%d", os.Getpid(), i, n)
				rev, writeErr := server.Store().Create(context.Background(), key, []byte(key), 0)
				if writeErr != nil {
					once.Do(func() { err = writeErr })
					return
				}
				out.Lock()
				fmt.Printf("%s %d\n", key, rev)
				out.Unlock()
			}
		})
	}
	writers.Wait()
	return err
}

// A server that is killed in the middle of its writes loses none that it has
// acknowledged.
func TestKilled(t *testing.T) {
	const rounds = 4
	dir := t.TempDir()
	acked := make(map[string]int64)
	for range rounds {
		killOne(t, dir, acked)
	}
	s := start(t, etcd.EmbedConfig{Dir: dir}).Store()
	for key, rev := range acked {
		entry, _, err := s.Get(t.Context(), key)
		if err != nil || string(entry.Value) != key || entry.Revision != rev {
			t.Fatalf("acknowledged %s at %d, found %+v, %v", key, rev, entry, err)
		}
	}
	t.Logf("%d acknowledged writes survived %d kills", len(acked), rounds)
}

// killOne lets a child write for a moment, kills it, and notes what it had told.
func killOne(t *testing.T, dir string, acked map[string]int64) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), victimDir+"="+dir)
	child.Stderr = t.Output()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var deadline *time.Timer
	defer func() {
		if deadline != nil {
			deadline.Stop()
		}
	}()
	defer func() { child.Wait() }() // its answer is that it was killed
	defer child.Process.Kill()
	told := 0
	for lines := bufio.NewScanner(out); lines.Scan(); told++ {
		var key string
		var rev int64
		// The last line may be torn by the kill: then it was not told.
		if n, _ := fmt.Sscanf(lines.Text(), "%s %d", &key, &rev); n == 2 {
			acked[key] = rev
		}
		if deadline == nil {
			deadline = time.AfterFunc(rand.N(300*time.Millisecond), func() { _ = child.Process.Kill() })
		}
	}
	if told == 0 {
		t.Fatal("the child wrote nothing")
	}
}
