package seeded

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	oneSeed  = flag.Uint64("seed", 0, "live this seed alone, and show its trace")
	allSeeds = flag.Int("seeds", 500, "how many seeds to live")
	from     = flag.Uint64("from", 1, "the first seed to live")
	first    = flag.Bool("first", false, "end with the first seed that fails")
	// share is given to a child process: "1/2" lives the second half.
	share = flag.String("share", "", "live the seeds that leave this remainder, as 1/2")
	// onlyProfile is a kind of trouble: the seeds of others are passed over.
	onlyProfile = flag.String("profile", "", "live seeds of this kind of trouble alone, as 'two leaders'")
	showTally   = flag.Bool("tally", false, "show what each component did in all lives, and how often it was cut short")
	// until is given to a child process: no life begins later, in Unix seconds.
	until = flag.Int64("until", 0, "begin no life after this time")
)

// shown is how much of a failing seed's trace is shown: its end.
const shown = 60

// shortSeeds is how many seeds go test -short lives.
const shortSeeds = 24

// longestLife is how long a life may take by the real clock; two seconds are usual.
// One that takes longer has come to a stop: somebody in it waits for what false time
// can't bring, as for a lock whose holder sleeps.
const longestLife = 3 * time.Minute

// Times before this test's deadline: no life begins in the last minutes of it, and who
// still lives in its last half minute is asked where he stands.
const (
	lastBirth = 2 * time.Minute
	lastWord  = 30 * time.Second
)

// enough is the part of the seeds that has to be lived, of a hundred, when the time is
// over before all have been.
const enough = 40

// What Go's scheduler decides within a component is not the seed's, so a seed may fail
// and not fail again. Such a life shows a fault all the same: it is told (go test -v),
// but the test fails only when there are more of them than mostRare in a process, or
// when one of secondChances lives more fails too. A mutation has no such grace.
const (
	secondChances = 2
	mostRare      = 1
)

// childEnv makes a child's garbage collector rare: a life is short, and what it
// leaves behind is collected with it.
const childEnv = "GOGC=400"

// TestSeeds lives many lives, in as many processes as there are processors: the
// names that a life makes come from generators that a process has once. A seed
// that fails is lived again by -seed.
func TestSeeds(t *testing.T) {
	if *oneSeed != 0 {
		alone(t)
		trace, wrong := live(t, *oneSeed, newKeys(t))
		t.Log("\n" + strings.Join(trace, "\n"))
		report(t, *oneSeed, nil, wrong)
		return
	}
	count := *allSeeds
	if testing.Short() {
		count = min(count, shortSeeds)
	}
	n := min(runtime.GOMAXPROCS(0), count)
	if *share == "" && n > 1 {
		split(t, n, count)
		return
	}
	liveAll(t, count)
}

// liveAll lives the seeds of this process's share, and tells how many.
func liveAll(t *testing.T, count int) {
	mine, of := uint64(0), uint64(1)
	if *share != "" {
		if _, err := fmt.Sscanf(*share, "%d/%d", &mine, &of); err != nil || of == 0 {
			t.Fatalf("-share %q: want a remainder and a divisor, as 1/2", *share)
		}
	}
	k := newKeys(t)
	lived, rare := 0, 0
	defer func() {
		k.blame(t)
		fmt.Printf(livedLine, lived)
		if *share != "" {
			fmt.Print(strings.Join(tallied(k.tally), ""))
		} else {
			tell(t, k.tally)
		}
	}()
	for n := range uint64(count) {
		seed := seedOf(n)
		if n%of != mine {
			continue
		}
		if *until != 0 && time.Now().Unix() > *until {
			return
		}
		trace, wrong := live(t, seed, k)
		lived++
		if len(wrong) > 0 && !*first && rare < mostRare && !repeats(t, seed, k) {
			rare++
			fmt.Printf("seed %d failed once in %d lives: %s\n", seed, 1+secondChances, strings.Join(wrong, "; "))
			continue
		}
		report(t, seed, trace, wrong)
		if *first && t.Failed() {
			return
		}
	}
}

// seedOf is the n-th seed to live.
func seedOf(n uint64) uint64 {
	kinds := uint64(len(profiles))
	at := slices.IndexFunc(profiles, func(p trouble) bool { return p.name == *onlyProfile })
	if at < 0 {
		return *from + n
	}
	return (*from/kinds+n)*kinds + uint64(at)
}

// repeats lives a seed that failed again, and says whether it fails again.
func repeats(t *testing.T, seed uint64, k keys) bool {
	for range secondChances {
		if _, wrong := live(t, seed, k); len(wrong) > 0 {
			return true
		}
	}
	return false
}

// livedLine is how a child tells its parent how many seeds it has lived.
const livedLine = "lived %d\n"

// split lives the seeds in n processes of this very program. They write into files, so
// that nobody waits for a pipe to be read or closed; a child that does not end is asked
// for its stacks while there is time to show them.
func split(t *testing.T, n, count int) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	last := int64(0)
	if end, ok := t.Deadline(); ok {
		last = end.Add(-lastBirth).Unix()
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-lastWord))
		defer cancel()
	}
	dir := t.TempDir()
	errs := make([]error, n)
	var running sync.WaitGroup
	for i := range n {
		args := []string{"-test.run", "^TestSeeds$", "-share", fmt.Sprintf("%d/%d", i, n), "-seeds", fmt.Sprint(count),
			"-from", fmt.Sprint(*from), fmt.Sprintf("-first=%v", *first), "-profile", *onlyProfile, "-until", fmt.Sprint(last), "-test.timeout", "0"}
		child := exec.CommandContext(ctx, self, args...)
		child.Env = append(os.Environ(), childEnv, "GOMAXPROCS=1")
		child.Cancel = func() error {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return child.Process.Signal(syscall.SIGQUIT)
			}
			return child.Process.Kill()
		}
		child.WaitDelay = lastWord / 3
		running.Go(func() {
			if errs[i] = into(output(dir, i), child); errs[i] != nil && *first {
				stop() // one is enough
			}
		})
	}
	running.Wait()
	lived, tally := 0, map[doing]*toll{}
	defer tell(t, tally)
	for i, err := range errs {
		said, rerr := os.ReadFile(output(dir, i))
		if err != nil || rerr != nil {
			t.Errorf("share %d of %d: %v\n%s", i, n, errors.Join(err, rerr), said)
		}
		for line := range strings.Lines(string(said)) {
			part := 0
			if _, err := fmt.Sscanf(line, livedLine, &part); err == nil {
				lived += part
			} else if !hearTally(line, tally) && strings.Contains(line, " failed once in ") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
	if lived < count && !t.Failed() {
		t.Logf("%d of %d seeds lived: there was no time for more", lived, count)
	}
	if lived*100 < count*enough && !t.Failed() {
		t.Errorf("only %d of %d seeds have lived in the time given", lived, count)
	}
}

// tell shows a tally, when that is wanted.
func tell(t *testing.T, tally map[doing]*toll) {
	t.Helper()
	if !*showTally {
		return
	}
	t.Log("\n" + strings.Join(tallied(tally), ""))
	sums := cuts(tally)
	for _, who := range slices.Sorted(maps.Keys(sums)) {
		t.Logf("%s: %d writes, and %d that it was cut short at", who, sums[who].done, sums[who].cut)
	}
}

func output(dir string, child int) string { return filepath.Join(dir, fmt.Sprint(child)) }

// into runs a program whose output goes into a file.
func into(name string, child *exec.Cmd) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	child.Stdout, child.Stderr = f, f
	return child.Run()
}

// watchdog ends the process if a life comes to a stop, and says where everybody
// stands. The caller stops it when the life has ended.
func watchdog(seed uint64) *time.Timer {
	return time.AfterFunc(longestLife, func() {
		fmt.Fprintf(os.Stderr, "seed %d has come to a stop: it has not ended after %v\n", seed, longestLife)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		os.Exit(2)
	})
}

func report(t *testing.T, seed uint64, trace, wrong []string) {
	t.Helper()
	if len(wrong) == 0 {
		return
	}
	what := fmt.Sprintf("seed %d (%s):\n  %s\n%s", seed, profiles[int(seed)%len(profiles)].name, strings.Join(wrong, "\n  "),
		strings.Join(trace[max(0, len(trace)-shown):], "\n"))
	if *share == "" {
		t.Error(what)
		return
	}
	fmt.Println(what) // at once: a child that is ended later has said so much
	t.Fail()
}

// alone has one thread run all goroutines of a life, as in the processes that live the
// seeds: what goes first at the same moment is then nearly always the same.
func alone(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// TestReplay lives seeds twice. A life happens again at the same moments and in the
// same order, but for what Go's scheduler decides within one component between
// two of its questions: so not every life need be the same to the last line.
func TestReplay(t *testing.T) {
	alone(t)
	k := newKeys(t)
	same := 0
	for seed := uint64(1); seed <= uint64(len(profiles)); seed++ {
		once, _ := live(t, seed, k)
		again, _ := live(t, seed, k)
		if slices.Equal(once, again) {
			same++
			continue
		}
		at := 0
		for at < min(len(once), len(again)) && once[at] == again[at] {
			at++
		}
		t.Logf("seed %d differs from line %d on, of %d and %d:\n%s\n--- again:\n%s", seed, at, len(once), len(again),
			strings.Join(around(once, at), "\n"), strings.Join(around(again, at), "\n"))
	}
	if same < len(profiles)/2 {
		t.Errorf("of %d seeds, %d happened again", len(profiles), same)
	}
}

// around are the lines of a trace around the one at which it differs.
func around(trace []string, at int) []string {
	return trace[max(0, at-3):min(at+3, len(trace))]
}
