package main

import (
	"context"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/pace"
)

// small is the size of a measured object's one value: with its metadata, 1 KiB.
const small = 700

var (
	// measureFor is how long each kind of request is measured.
	measureFor = flag.Duration("for", 3*time.Second, "how long each kind of request is measured")
	// clientCounts are the numbers of clients, and verbs the kinds of requests.
	clientCounts = flag.String("clients", "1,8,32", "how many clients make requests at the same time")
	verbs        = flag.String("verbs", "create,bareput,update,get,bare", "the kinds of requests to measure")
)

// aims are upstream's rates at 1, 8 and 32 clients, three times for writes and
// five times for gets.
var aims = map[string]map[int]string{
	"create": {1: "645", 8: "1,722", 32: "2,190"},
	"update": {1: "717", 8: "1,800", 32: "1,782"},
	"get":    {1: "2,475", 8: "5,490", 32: "7,365"},
}

// requests measures the API server alone: each kind of request over HTTPS, where
// the server is a process of its own, and then from a client in the same process,
// both beside raw puts into the same kind of store.
func requests(ctx context.Context) (rows []row, err error) {
	raw, stop, err := rawStore(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	b, err := serveApart(ctx)
	if err != nil {
		return nil, err
	}
	more, err := b.singles(ctx, raw, way{"HTTPS", b.wire})
	b.close()
	if err != nil {
		return nil, err
	}
	rows = append(rows, more...)
	defer pace.Keep()() // as "sampan up" does
	if b, err = serveHere(ctx); err != nil {
		return nil, err
	}
	defer b.close()
	more, err = b.singles(ctx, raw, way{"in process", b.local})
	return append(rows, more...), err
}

// smallValue is made once, as what raw puts write is.
var smallValue = strings.Repeat("x", small)

func object(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"value": smallValue}}
}

// cost is what one kind of request came to.
type cost struct {
	rate         float64       // a second
	server, here time.Duration // of processor for one: the server's, and that of this process
	objects      float64       // that the server's process allocates for one
	bytes        float64
}

func (c cost) String() string {
	processor := fmt.Sprintf("%d µs of processor", c.here.Microseconds())
	if c.server != 0 {
		processor = fmt.Sprintf("%d µs of processor, its client %d", c.server.Microseconds(), c.here.Microseconds())
	}
	return fmt.Sprintf("%.0f/s (%s, %.0f allocations, %.1f KiB)", c.rate, processor, c.objects, c.bytes/1024)
}

// way is how requests reach the server.
type way struct {
	name string
	client.Transport
}

// hereOnly measures what needs no server.
var hereOnly = &bench{pid: os.Getpid(), allocated: allocatedHere}

// singles measures requests about one object each. Rates suffer from whatever else
// the machine does; processor time hardly does.
func (b *bench) singles(ctx context.Context, raw store.Store, by way) (rows []row, err error) {
	value := []byte(strings.Repeat("x", small+300))
	prefix := strings.ReplaceAll(strings.ToLower(by.name), " ", "")
	for _, text := range strings.Split(*clientCounts, ",") {
		clients, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		puts, err := hereOnly.per(ctx, b.profile("put", clients), clients, func(ctx context.Context, i int64) error {
			_, err := raw.Create(ctx, fmt.Sprintf("/registry/configmaps/%s/%d-%d", prefix, clients, i), value, 0)
			return err
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{fmt.Sprintf("raw puts, %d clients", clients), puts.String(), ""})
		measured, err := b.eachVerb(ctx, clients, by, prefix)
		if err != nil {
			return nil, err
		}
		creates := 0.0
		for _, m := range measured {
			share, aim := "", aims[m.verb][clients]
			if m.verb == "create" || m.verb == "update" {
				share = fmt.Sprintf(", %.0f %% of raw puts", m.rate/puts.rate*100)
			}
			if b.store != nil {
				aim = ""
			}
			switch {
			case m.verb == "create":
				creates = m.rate
			case m.verb == "bareput" && creates > 0:
				share = fmt.Sprintf(", %.0f %% of raw puts; creates are %.0f %% of this", m.rate/puts.rate*100, creates/m.rate*100)
			}
			rows = append(rows, row{fmt.Sprintf("%s, %d clients: %ss", by.name, clients, m.verb), m.String() + share, aim})
		}
	}
	return rows, nil
}

// measured is the cost of a verb.
type measured struct {
	verb string
	cost
}

func (b *bench) eachVerb(ctx context.Context, clients int, by way, prefix string) (out []measured, err error) {
	several := int64(max(20, 4*clients)) // objects to update and get: few writers meet
	name := func(i int64) string { return fmt.Sprintf("%s-%d-%d", prefix, clients, i) }
	for i := range several { // so that there are some, whatever is measured
		if _, err := client.ConfigMaps.Create(ctx, by, object(name(-i))); err != nil {
			return nil, err
		}
	}
	bare := by.Transport
	if b.Bare != "" {
		if bare, err = client.NewHTTP(&rest.Config{Host: b.Bare, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: b.BareCAs}}); err != nil {
			return nil, err
		}
	}
	for _, verb := range []measuredVerb{
		{"create", func(ctx context.Context, i int64) error {
			_, err := client.ConfigMaps.Create(ctx, by, object(name(i)))
			return err
		}},
		{"bareput", func(ctx context.Context, i int64) error {
			_, err := client.ConfigMaps.Create(ctx, bare, object(name(i)))
			return err
		}},
		{"update", func(ctx context.Context, i int64) error {
			o := object(name(-(i % several)))
			o.Data["round"] = fmt.Sprint(i)
			_, err := client.ConfigMaps.Update(ctx, by, o)
			return err
		}},
		{"get", func(ctx context.Context, i int64) error {
			_, err := client.ConfigMaps.Get(ctx, by, "default", name(-(i % several)))
			return err
		}},
		{"bare", func(ctx context.Context, _ int64) error {
			_, err := client.ConfigMaps.Get(ctx, bare, "default", "bare")
			return err
		}},
	} {
		if !slices.Contains(strings.Split(*verbs, ","), verb.name) || strings.HasPrefix(verb.name, "bare") && b.Bare == "" {
			continue
		}
		c, err := b.per(ctx, b.profile(verb.name, clients), clients, verb.do)
		if err != nil {
			return nil, err
		}
		out = append(out, measured{verb.name, c})
	}
	return out, nil
}

type measuredVerb struct {
	name string
	do   func(context.Context, int64) error
}

// profile is where the profiles of one kind of request begin, for a server in this
// process: "x" and "create" by 8 clients make x.create-8.cpu. "" for none.
func (b *bench) profile(verb string, clients int) string {
	if path := os.Getenv("SAMPAN_BENCH_PROFILE"); path != "" && b.store != nil {
		return fmt.Sprintf("%s.%s-%d", path, verb, clients)
	}
	return ""
}

// per is what a kind of request costs over measureFor.
func (b *bench) per(ctx context.Context, profile string, clients int, do func(context.Context, int64) error) (cost, error) {
	stop, err := profiledFrom(profile)
	if err != nil {
		return cost{}, err
	}
	c, err := b.perUnseen(ctx, clients, do)
	return c, errors.Join(err, stop())
}

func (b *bench) perUnseen(ctx context.Context, clients int, do func(context.Context, int64) error) (cost, error) {
	server, here := b.spent(), spent()
	before, err := b.allocated()
	if err != nil {
		return cost{}, err
	}
	begin := time.Now()
	rate, err := rateFor(ctx, clients, *measureFor, do)
	if err != nil {
		return cost{}, err
	}
	count := rate * time.Since(begin).Seconds()
	c := cost{rate: rate, here: time.Duration(float64(spent()-here) / count)}
	after, err := b.allocated()
	if err != nil {
		return cost{}, err
	}
	c.objects, c.bytes = float64(after.Objects-before.Objects)/count, float64(after.Bytes-before.Bytes)/count
	if b.pid != os.Getpid() {
		c.server = time.Duration(float64(b.spent()-server) / count)
	}
	return c, nil
}

// spent is this process's processor time so far.
func spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func certificateOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}
