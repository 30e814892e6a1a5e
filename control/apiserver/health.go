package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/version"
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
	"poststarthook/start-service-ip-repair-controllers",
	"poststarthook/rbac/bootstrap-roles",
	"poststarthook/scheduling/bootstrap-system-priority-classes",
	"poststarthook/priority-and-fairness-config-producer",
	"poststarthook/bootstrap-controller",
	"poststarthook/storage-readiness",
	"poststarthook/start-cluster-authentication-info-controller",
	"poststarthook/start-legacy-token-tracking-controller",
	"poststarthook/start-kube-aggregator-informers",
	"poststarthook/apiservice-registration-controller",
	"poststarthook/apiservice-status-local-available-controller",
	"poststarthook/apiservice-status-remote-available-controller",
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
func (s *Server) healthRoutes(mux *http.ServeMux) {
	fine := func(context.Context) error { return nil }
	etcd := check{"etcd", func(ctx context.Context) error {
		_, err := s.cfg.Store.Revision(ctx)
		return err
	}}
	started := finished(s.ready)
	alive := []check{{"ping", fine}, {"log", fine}, etcd}
	for _, step := range startSteps {
		done := started
		if step == registration {
			done = finished(s.remotes.Registered())
		}
		alive = append(alive, check{step, done})
	}
	if s.cfg.Encryption != nil {
		alive = append(alive, check{"kms-providers", s.cfg.Encryption.Check})
	}
	stopping := check{"shutdown", func(context.Context) error {
		select {
		case <-s.stopping:
			return fmt.Errorf("process is shutting down")
		default:
			return nil
		}
	}}
	ready := append(slices.Clone(alive), check{"etcd-readiness", etcd.run}, check{"informer-sync", started}, stopping)
	pages := map[string][]check{"/livez": alive, "/healthz": alive, "/readyz": ready}
	mux.HandleFunc("/metrics/slis", func(w http.ResponseWriter, r *http.Request) {
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
	})
	for path, checks := range pages {
		page := strings.Trim(path, "/")
		mux.Handle(path, healthHandler(page, checks, func(check string, err error) { s.metrics.healthy(page, check, err) }))
		for _, c := range checks {
			mux.Handle(path+"/"+c.name, healthHandler(c.name, []check{c}, nil))
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
		w.Header().Set("X-Content-Type-Options", "nosniff")
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

func (s *Server) serveVersion(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, version.Info{
		Major: major, Minor: minor, EmulationMajor: major, EmulationMinor: minor,
		MinCompatibilityMajor: major, MinCompatibilityMinor: "36",
		GitVersion: gitVersion, GitTreeState: "clean", GoVersion: runtime.Version(), Compiler: runtime.Compiler,
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	})
}
