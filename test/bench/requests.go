package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

const (
	// small is the size of a measured object's one value: with its metadata, 1 KiB.
	small = 700
	// listed is how many objects a measured list has.
	listed = 10_000
	// watching is how many clients watch at the same time.
	watching = 100
)

// measureFor is how long each kind of request is measured.
var measureFor = flag.Duration("for", 3*time.Second, "how long each kind of request is measured")

// bench is an API server in this process with clients of both transports, and
// raw stores beside it.
type bench struct {
	store, raw store.Store
	local      client.Transport
	wire       client.Transport
	url        string
	cfg        *rest.Config
	close      func()
}

// requests measures the API server alone: each kind of request from a client
// over HTTPS and from one in the same process, creates beside raw puts. Server and
// clients share this process and its cores. SAMPAN_BENCH_PROFILE names a file for
// a CPU profile of it all.
func requests(ctx context.Context) (rows []row, err error) {
	if path := os.Getenv("SAMPAN_BENCH_PROFILE"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	b, err := serveBench(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	for _, clients := range []int{1, 8, 32} {
		more, err := b.singles(ctx, clients)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	for _, part := range []func(context.Context) ([]row, error){b.memory, b.lists, b.watches} {
		more, err := part(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func serveBench(ctx context.Context) (*bench, error) {
	dir, err := os.MkdirTemp("/var/tmp", "sampan-bench-requests-*")
	if err != nil {
		return nil, err
	}
	st, stop, err := rawStore(ctx)
	if err != nil {
		return nil, err
	}
	raw, stopRaw, err := rawStore(ctx)
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
	select {
	case <-s.Ready():
	case err := <-done:
		cancel()
		return nil, fmt.Errorf("the server ended: %w", err)
	}
	b := &bench{store: st, raw: raw, local: s.Local(identity.Identity{Name: "bench", Groups: []string{identity.Masters}}), url: "https://" + listener.Addr().String()}
	b.close = func() {
		cancel()
		<-done
		stop()
		stopRaw()
		_ = os.RemoveAll(dir)
	}
	leaf, err := ca.Issue(pki.Leaf{CommonName: "bench", Organizations: []string{identity.Masters}, Client: true})
	if err != nil {
		b.close()
		return nil, err
	}
	cert, private, err := pki.Encode(leaf)
	if err != nil {
		b.close()
		return nil, err
	}
	roots := ca.PEM()
	b.cfg = &rest.Config{Host: b.url, TLSClientConfig: rest.TLSClientConfig{CertData: cert, KeyData: private, CAData: roots}}
	b.wire, err = client.NewHTTP(b.cfg)
	return b, err
}

func object(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"value": strings.Repeat("x", small)}}
}

// cost is what one kind of request came to.
type cost struct {
	rate float64       // a second
	cpu  time.Duration // of this whole process, clients and store included, for one
}

func (c cost) String() string {
	return fmt.Sprintf("%.0f/s (%d µs of processor)", c.rate, c.cpu.Microseconds())
}

// singles measures requests about one object each. Rates suffer from whatever else
// the machine does; processor time hardly does.
func (b *bench) singles(ctx context.Context, clients int) ([]row, error) {
	value := []byte(strings.Repeat("x", small+300))
	puts, err := per(ctx, clients, func(ctx context.Context, i int64) error {
		_, err := b.raw.Create(ctx, fmt.Sprintf("/registry/configmaps/default/%d-%d", clients, i), value, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	several := int64(max(20, 4*clients)) // objects to update and get: few writers meet
	rows := []row{{fmt.Sprintf("raw puts, %d clients", clients), puts.String(), ""}}
	for _, way := range []struct {
		name string
		client.Transport
	}{{"HTTPS", b.wire}, {"in process", b.local}} {
		prefix := strings.ReplaceAll(strings.ToLower(way.name), " ", "")
		creates, err := per(ctx, clients, func(ctx context.Context, i int64) error {
			_, err := client.ConfigMaps.Create(ctx, way, object(fmt.Sprintf("%s-%d-%d", prefix, clients, i)))
			return err
		})
		if err != nil {
			return nil, err
		}
		updates, err := per(ctx, clients, func(ctx context.Context, i int64) error {
			o := object(fmt.Sprintf("%s-%d-%d", prefix, clients, i%several+1))
			o.Data["round"] = fmt.Sprint(i)
			_, err := client.ConfigMaps.Update(ctx, way, o)
			return err
		})
		if err != nil {
			return nil, err
		}
		gets, err := per(ctx, clients, func(ctx context.Context, i int64) error {
			_, err := client.ConfigMaps.Get(ctx, way, "default", fmt.Sprintf("%s-%d-%d", prefix, clients, i%several+1))
			return err
		})
		if err != nil {
			return nil, err
		}
		floor := ""
		if way.Transport == b.wire {
			bare, err := b.bare(ctx, clients)
			if err != nil {
				return nil, err
			}
			floor = fmt.Sprintf(", %.0f %% of a handler that does nothing: %v", gets.rate/bare.rate*100, bare)
		}
		where := fmt.Sprintf("%s, %d clients: ", way.name, clients)
		rows = append(rows,
			row{where + "creates", fmt.Sprintf("%v, %.0f %% of raw puts", creates, creates.rate/puts.rate*100), ">= 70 %"},
			row{where + "updates", fmt.Sprintf("%v, %.0f %%", updates, updates.rate/puts.rate*100), ">= 70 %"},
			row{where + "gets", gets.String() + floor, ""})
	}
	return rows, nil
}

// bare measures gets from a server with a handler that has one answer ready, by the
// same client over the same kind of connection: what HTTPS itself costs.
func (b *bench) bare(ctx context.Context, clients int) (cost, error) {
	media := "application/vnd.kubernetes.protobuf"
	var ready bytes.Buffer
	o := object("bare")
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := protobuf.NewSerializer(scheme.Scheme(), scheme.Scheme()).Encode(o, &ready); err != nil {
		return cost{}, err
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		_, _ = w.Write(ready.Bytes())
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	way, err := client.NewHTTP(&rest.Config{Host: s.URL, TLSClientConfig: rest.TLSClientConfig{CAData: roots}})
	if err != nil {
		return cost{}, err
	}
	return per(ctx, clients, func(ctx context.Context, _ int64) error {
		_, err := client.ConfigMaps.Get(ctx, way, "default", "bare")
		return err
	})
}

// per is what a kind of request costs over measureFor.
func per(ctx context.Context, clients int, do func(context.Context, int64) error) (cost, error) {
	used := spent()
	begin := time.Now()
	rate, err := rateFor(ctx, clients, *measureFor, do)
	if err != nil {
		return cost{}, err
	}
	count := rate * time.Since(begin).Seconds()
	return cost{rate, time.Duration(float64(spent()-used) / count)}, nil
}

// spent is this process's processor time so far.
func spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory measures what a stored object weighs in this process.
func (b *bench) memory(ctx context.Context) ([]row, error) {
	if _, _, err := client.ConfigMaps.List(ctx, b.local, metav1.NamespaceDefault, metav1.ListOptions{}); err != nil {
		return nil, err
	}
	before := heap()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := next.Add(1); i <= listed && failed.Load() == nil; i = next.Add(1) {
				o := object(fmt.Sprintf("l-%d", i))
				o.Namespace = "kube-public"
				if _, err := client.ConfigMaps.Create(ctx, b.local, o); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	weight := float64(heap()-before) / listed / 1024
	return []row{{"memory of a stored 1 KiB object", fmt.Sprintf("%.1f KiB of heap", weight), "<= 3 KiB"}}, nil
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// lists measures a whole list over HTTPS, without what a client does with it.
func (b *bench) lists(ctx context.Context) (rows []row, err error) {
	plain, err := rest.HTTPClientFor(b.cfg)
	if err != nil {
		return nil, err
	}
	for _, media := range []string{"application/vnd.kubernetes.protobuf", "application/json"} {
		var size, rounds int64
		var mallocs uint64
		begin, was := time.Now(), allocated()
		for time.Since(begin) < *measureFor {
			n, err := fetch(ctx, plain, b.url+"/api/v1/namespaces/kube-public/configmaps?resourceVersion=0", media)
			if err != nil {
				return nil, err
			}
			size, rounds = n, rounds+1
		}
		took := time.Since(begin) / time.Duration(rounds)
		mallocs = (allocated() - was) / uint64(rounds)
		rows = append(rows, row{
			fmt.Sprintf("list of %d, %s", listed, media),
			fmt.Sprintf("%d ms, %.0f MB/s, %d allocations (the client's too)", took.Milliseconds(), float64(size)/took.Seconds()/1e6, mallocs), "",
		})
	}
	return rows, nil
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

func fetch(ctx context.Context, c *http.Client, url, media string) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Accept", media)
	r.Header.Set("Accept-Encoding", "identity")
	answer, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("list: %s", answer.Status)
	}
	return io.Copy(io.Discard, answer.Body)
}

// watches measures how many events reach watchers over HTTPS, all on the server's
// own cores, while one client writes as fast as it can.
func (b *bench) watches(ctx context.Context) ([]row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var delivered atomic.Int64
	var all sync.WaitGroup
	for range watching {
		all.Go(func() {
			plain, err := rest.HTTPClientFor(b.cfg)
			if err != nil {
				return
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/api/v1/namespaces/kube-node-lease/configmaps?watch=1", nil)
			if err != nil {
				return
			}
			r.Header.Set("Accept", "application/vnd.kubernetes.protobuf")
			answer, err := plain.Do(r)
			if err != nil {
				return
			}
			defer answer.Body.Close()
			count(answer.Body, &delivered)
		})
	}
	time.Sleep(time.Second) // until all watch
	begin := time.Now()
	written, err := rateFor(ctx, 16, *measureFor, func(ctx context.Context, i int64) error {
		o := object(fmt.Sprintf("w-%d", i))
		o.Namespace = "kube-node-lease"
		_, err := client.ConfigMaps.Create(ctx, b.local, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	want := int64(written*measureFor.Seconds()) * watching * 99 / 100
	for delivered.Load() < want && time.Since(begin) < 10*(*measureFor) {
		time.Sleep(10 * time.Millisecond)
	}
	speed := float64(delivered.Load()) / time.Since(begin).Seconds()
	cancel()
	all.Wait()
	return []row{{fmt.Sprintf("%d watchers over HTTPS", watching), fmt.Sprintf("%.0f deliveries/s at %.0f writes/s", speed, written), ">= 100,000"}}, nil
}

// count counts the frames of a protobuf watch until it ends.
func count(from io.Reader, events *atomic.Int64) {
	head := make([]byte, 4)
	for {
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		size := int64(head[0])<<24 | int64(head[1])<<16 | int64(head[2])<<8 | int64(head[3])
		if _, err := io.CopyN(io.Discard, from, size); err != nil {
			return
		}
		events.Add(1)
	}
}
