package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/speak"
)

// The version that this server speaks.
const (
	major      = "1"
	minor      = "37"
	gitVersion = "v1.37.1+sampan"
)

// healthWait bounds one check: a store that does not answer is not healthy.
const healthWait = 2 * time.Second

// startSteps are upstream's names of what a server has done when it is ready. Here
// they are steps of one start, so all of them are done at once, but registration,
// which goes on beside the first requests.
var startSteps = []string{
	"poststarthook/start-apiserver-admission-initializer",
	"poststarthook/generic-apiserver-start-informers",
	"poststarthook/priority-and-fairness-config-consumer",
	"poststarthook/priority-and-fairness-filter",
	"poststarthook/storage-object-count-tracker-hook",
	"poststarthook/start-apiextensions-informers",
	"poststarthook/start-apiextensions-controllers",
	"poststarthook/crd-informer-synced",
	"poststarthook/start-system-namespaces-controller",
	"poststarthook/start-cluster-authentication-info-controller",
	"poststarthook/start-kube-apiserver-identity-lease-controller",
	"poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
	"poststarthook/storage-readiness",
	"poststarthook/start-legacy-token-tracking-controller",
	"poststarthook/start-service-ip-repair-controllers",
	"poststarthook/rbac/bootstrap-roles",
	"poststarthook/scheduling/bootstrap-system-priority-classes",
	"poststarthook/priority-and-fairness-config-producer",
	"poststarthook/bootstrap-controller",
	"poststarthook/start-kubernetes-service-cidr-controller",
	"poststarthook/aggregator-reload-proxy-client-cert",
	"poststarthook/start-kube-aggregator-informers",
	"poststarthook/apiservice-status-local-available-controller",
	"poststarthook/apiservice-status-remote-available-controller",
	"poststarthook/apiservice-registration-controller",
	"poststarthook/apiservice-discovery-controller",
	"poststarthook/kube-apiserver-autoregistration",
	registration,
	"poststarthook/apiservice-openapi-controller",
	"poststarthook/apiservice-openapiv3-controller",
}

// registration is done once every built-in group version has its APIService.
const registration = "autoregister-completion"

// check is one named thing that must be well.
type check struct {
	name string
	run  func(ctx context.Context) error
}

// healthRoutes serves /livez, /readyz and /healthz, each check below its path,
// and all of them at once.
func (s *Server) healthRoutes(mux *listing) {
	fine := func(context.Context) error { return nil }
	etcd := check{"etcd", bounded(func(ctx context.Context) error { return store.Check(ctx, s.cfg.Store) })}
	started := finished(s.ready)
	var steps []check
	for _, step := range startSteps {
		done := started
		if step == registration {
			done = finished(s.remotes.Registered())
		}
		steps = append(steps, check{step, done})
	}
	if s.cfg.Encryption != nil {
		steps = append(steps, check{"kms-providers", bounded(s.cfg.Encryption.Check)})
	}
	stopping := check{"shutdown", func(context.Context) error {
		select {
		case <-s.stopping:
			return fmt.Errorf("process is shutting down")
		default:
			return nil
		}
	}}
	first := []check{{"ping", fine}, {"log", fine}, etcd}
	alive := slices.Concat(first, steps)
	ready := slices.Concat(first, []check{{"etcd-readiness", etcd.run}, {"informer-sync", started}}, steps, []check{stopping})
	pages := map[string][]check{"/livez": alive, "/healthz": alive, "/readyz": ready}
	mux.Handle("/metrics/slis", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthWait)
		defer cancel()
		found := map[string]error{} // the pages share most of their checks
		for _, c := range ready {
			found[c.name] = c.run(ctx)
		}
		for path, checks := range pages { // who asks for the levels need not ask for the health as well
			for _, c := range checks {
				s.metrics.healthy(strings.Trim(path, "/"), c.name, found[c.name])
			}
		}
		s.metrics.slis.ServeHTTP(w, r)
	}))
	for path, checks := range pages {
		page := strings.Trim(path, "/")
		mux.Handle(path, healthHandler(page, checks, func(check string, err error) { s.metrics.healthy(page, check, err) }))
		for _, c := range checks {
			mux.Handle(path+"/"+c.name, healthHandler(c.name, []check{c}, nil))
		}
	}
}

// bounded asks run for whoever wants to know, and waits no longer than the context says,
// also when run does: what stands still with its disk hears of no deadline. Until it comes
// back it is not asked again, so that one goroutine waits for it, however many ask.
func bounded(run func(context.Context) error) func(context.Context) error {
	var asking singleflight.Group
	return func(ctx context.Context) error {
		answer := asking.DoChan("", func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthWait)
			defer cancel()
			return nil, run(ctx)
		})
		select {
		case found := <-answer:
			return found.Err
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
	}
}

// finished is well once done is closed.
func finished(done <-chan struct{}) func(context.Context) error {
	return func(context.Context) error {
		select {
		case <-done:
			return nil
		default:
			return errors.New("not finished")
		}
	}
}

// healthHandler serves a page of checks; found, if not nil, is told of each.
func healthHandler(name string, checks []check, found func(check string, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthWait)
		defer cancel()
		excluded := r.URL.Query()["exclude"]
		var report strings.Builder
		failed := false
		for _, c := range checks {
			if i := slices.Index(excluded, c.name); i >= 0 {
				excluded = slices.Delete(excluded, i, i+1)
				fmt.Fprintf(&report, "[+]%s excluded: ok\n", c.name)
				continue
			}
			err := c.run(ctx)
			if found != nil {
				found(c.name, err)
			}
			if err != nil {
				failed = true
				fmt.Fprintf(&report, "[-]%s failed: reason withheld\n", c.name)
				continue
			}
			fmt.Fprintf(&report, "[+]%s ok\n", c.name)
		}
		if len(excluded) > 0 {
			fmt.Fprintf(&report, "warn: some health checks cannot be excluded: no matches for %s\n", quoted(excluded))
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if found != nil { // upstream's single checks leave it out
			w.Header().Set("X-Content-Type-Options", "nosniff")
		}
		_, verbose := r.URL.Query()["verbose"]
		switch {
		case failed:
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, "%s%s check failed\n", report.String(), name)
		case verbose:
			fmt.Fprintf(w, "%s%s check passed\n", report.String(), name)
		default:
			fmt.Fprint(w, "ok")
		}
	})
}

// quoted names, in upstream's form.
func quoted(names []string) string {
	all := make([]string, 0, len(names))
	for _, n := range names {
		all = append(all, strconv.Quote(n))
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

func (s *Server) serveVersion(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, r, apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false))
		return
	}
	if accept := r.Header.Get("Accept"); accept != "" && !speak.Named(accept, speak.JSON) {
		refuse(w, r, speak.NotProduced(speak.JSON))
		return
	}
	commit, state, date := built()
	writeJSON(w, http.StatusOK, version.Info{
		Major: major, Minor: minor, EmulationMajor: major, EmulationMinor: minor,
		MinCompatibilityMajor: major, MinCompatibilityMinor: "36",
		GitVersion: gitVersion, GitCommit: commit, GitTreeState: state, BuildDate: date,
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	})
}

// built is what the program was built of, as far as the compiler wrote it down: the
// commit, whether there was more than that, and when. A time that nobody knows is
// upstream's, which programs can read.
func built() (commit, state, date string) {
	state, date = "clean", "1970-01-01T00:00:00Z"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", state, date
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			date = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				state = "dirty"
			}
		}
	}
	return commit, state, date
}
