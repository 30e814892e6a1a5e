package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/rest"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/scheme"
	table "github.com/sampan-dev/sampan/kinds/all"
)

// serving names the directory of a process that is the server of a measurement.
const serving = "SAMPAN_BENCH_SERVE"

// door is what a client of the server must know.
type door struct {
	URL, Bare          string
	Cert, Key          []byte // an administrator's
	UserCert, UserKey  []byte // of somebody who may only what roles say
	Authority, BareCAs []byte
}

// bench is an API server over an embedded etcd, in this process or in one of its
// own, and how to reach it.
type bench struct {
	door
	store store.Store      // nil when it is another process
	local client.Transport // likewise
	wire  client.Transport
	cfg   *rest.Config
	pid   int
	close func()
	// settle makes the server's process give back the memory it does not need.
	settle func() error
	// allocated is what the server's process has allocated so far.
	allocated func() (allocated, error)
}

// serveHere starts the server in this process.
func serveHere(ctx context.Context) (b *bench, err error) {
	dir, err := os.MkdirTemp("/var/tmp", "sampan-bench-requests-*")
	if err != nil {
		return nil, err
	}
	st, stop, err := rawStore(ctx)
	if err != nil {
		return nil, err
	}
	ca, err := pki.Open(dir, time.Now)
	if err != nil {
		return nil, err
	}
	key, err := pki.OpenTokenKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s, err := apiserver.New(apiserver.Config{Store: st, Kinds: table.Kinds(), Authority: ca, TokenKey: key, Listener: listener,
		AuditPath: filepath.Join(dir, "audit.log"), Advertise: netip.MustParseAddrPort("127.0.0.1:0"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b = &bench{store: st, local: s.Local(identity.Identity{Name: "bench", Groups: []string{identity.Masters}}), pid: os.Getpid(), allocated: allocatedHere}
	b.close = func() {
		cancel()
		<-done
		stop()
		_ = os.RemoveAll(dir)
	}
	select {
	case <-s.Ready():
	case err := <-done:
		cancel()
		return nil, fmt.Errorf("the server ended: %w", err)
	}
	if b.Cert, b.Key, err = certificate(ca, pki.Leaf{CommonName: "bench", Organizations: []string{identity.Masters}, Client: true}); err == nil {
		b.UserCert, b.UserKey, err = certificate(ca, pki.Leaf{CommonName: somebody, Client: true})
	}
	if err != nil {
		b.close()
		return nil, err
	}
	b.URL, b.Authority = "https://"+listener.Addr().String(), ca.PEM()
	return b, b.connect()
}

// somebody is a user without rights of his own.
const somebody = "somebody"

func certificate(ca *pki.Authority, leaf pki.Leaf) (cert, key []byte, err error) {
	issued, err := ca.Issue(leaf)
	if err != nil {
		return nil, nil, err
	}
	return pki.Encode(issued)
}

// connect makes the clients of what the door says.
func (b *bench) connect() (err error) {
	b.cfg = &rest.Config{Host: b.URL, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CertData: b.Cert, KeyData: b.Key, CAData: b.Authority}}
	b.wire, err = client.NewHTTP(b.cfg)
	return err
}

// serveApart starts the server in a process of its own, so that what it costs is
// not mixed with what its clients cost. SAMPAN_BENCH_PROFILE is where that process
// leaves its profiles: "x" becomes x.cpu, x.mutex and x.block.
func serveApart(ctx context.Context) (*bench, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), serving+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	says, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := &bench{pid: cmd.Process.Pid, close: func() { _ = leash.Close(); _ = cmd.Wait() }}
	answers := json.NewDecoder(says)
	tell := func(word byte) (a allocated, err error) {
		if _, err := leash.Write([]byte{word}); err != nil {
			return a, err
		}
		return a, answers.Decode(&a)
	}
	b.allocated = func() (allocated, error) { return tell(sayAllocated) }
	b.settle = func() error { _, err := tell(doSettle); return err }
	if err := answers.Decode(&b.door); err != nil {
		b.close()
		return nil, fmt.Errorf("the server ended: %w", err)
	}
	return b, b.connect()
}

// serve is the process of serveApart: it ends when its standard input does.
func serve(ctx context.Context) (err error) {
	b, err := serveHere(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	bare, err := bareServer(b.store)
	if err != nil {
		return err
	}
	defer bare.Close()
	b.Bare, b.BareCAs = bare.URL, certificateOf(bare)
	stop, err := profiled(os.Getenv("SAMPAN_BENCH_PROFILE"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := json.NewEncoder(os.Stdout).Encode(b.door); err != nil {
		return err
	}
	for {
		var word [1]byte
		if _, err := os.Stdin.Read(word[:]); err != nil {
			return nil //nolint:nilerr // the end of the leash
		}
		if word[0] == doSettle {
			debug.FreeOSMemory()
		}
		a, err := allocatedHere()
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(a)
		}
		if err != nil {
			return err
		}
	}
}

// What a server in a process of its own is told: to collect garbage and give back
// what was freed, or nothing. It answers with what it has allocated.
const (
	doSettle     = 'g'
	sayAllocated = 'a'
)

// allocated is what a process has allocated since its start.
type allocated struct{ Objects, Bytes uint64 }

func allocatedHere() (allocated, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return allocated{m.Mallocs, m.TotalAlloc}, nil
}

// profiled begins profiles whose files start with path; "" makes none.
func profiled(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	runtime.SetMutexProfileFraction(10)
	if os.Getenv("SAMPAN_BENCH_BLOCK") != "" {
		runtime.SetBlockProfileRate(10_000)
	}
	f, err := os.Create(path + ".cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return errors.Join(f.Close(), profilesUntilNow(path))
	}, nil
}

// profilesUntilNow leaves the profiles that count from the start of the process.
func profilesUntilNow(path string) (err error) {
	for _, name := range []string{"mutex", "block", "allocs"} {
		f, e := os.Create(path + "." + name)
		if e == nil {
			e = errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
		}
		err = errors.Join(err, e)
	}
	return err
}

// profiledFrom is profiled for a part of a process's life: what counts from its start
// is left at the beginning, too, as "x.before.mutex", for "go tool pprof -base".
func profiledFrom(path string) (stop func() error, err error) {
	if path != "" {
		if err := profilesUntilNow(path + ".before"); err != nil {
			return nil, err
		}
	}
	return profiled(path)
}

// bareServer has a handler that has one answer ready: what HTTPS itself costs. A POST it
// stores as it is, in the API server's store, and gives back: what a create costs at
// least, whoever answers it.
func bareServer(st store.Store) (*httptest.Server, error) {
	var ready bytes.Buffer
	o := object("bare")
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := protobuf.NewSerializer(scheme.Scheme(), scheme.Scheme()).Encode(o, &ready); err != nil {
		return nil, err
	}
	var puts atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, answer := make([]byte, max(0, r.ContentLength)), ready.Bytes()
		_, err := io.ReadFull(r.Body, body)
		if err == nil && r.Method == http.MethodPost {
			answer = body
			_, err = st.Create(r.Context(), fmt.Sprintf("/bare/%d", puts.Add(1)), body, 0)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
		_, _ = w.Write(answer)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	return s, nil
}

// spent is the server's processor time so far.
func (b *bench) spent() time.Duration {
	return processor("/proc/" + strconv.Itoa(b.pid))
}

// weight is the memory of the server's process, and the most it has had, in bytes.
func (b *bench) weight() (now, most int64) {
	status := "/proc/" + strconv.Itoa(b.pid) + "/status"
	now, _ = field(status, "VmRSS:")
	most, _ = field(status, "VmHWM:")
	return now << 10, most << 10
}

// transport is an HTTP client on connections of its own.
func (b *bench) transport() (*http.Client, error) { return overTLS(b.cfg) }

// asUser is the same for somebody who is no administrator.
func (b *bench) asUser() (*http.Client, error) {
	cfg := rest.CopyConfig(b.cfg)
	cfg.CertData, cfg.KeyData = b.UserCert, b.UserKey
	return overTLS(cfg)
}

func overTLS(cfg *rest.Config) (*http.Client, error) {
	tlsConfig, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}}, nil
}
