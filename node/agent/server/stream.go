package server

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// Exec, attach and port-forward are handed to the engine, which answers with an
// address where the stream is to be had; the client's upgraded connection is
// then joined with that one.

// flags are the stream options of a request.
type flags struct{ stdin, stdout, stderr, tty bool }

func parseFlags(q url.Values) (flags, string) {
	f := flags{stdin: yes(q, "input"), stdout: yes(q, "output"), stderr: yes(q, "error"), tty: yes(q, "tty")}
	if f.tty && f.stderr {
		// A terminal has one output.
		f.stderr = false
	}
	if !f.stdin && !f.stdout && !f.stderr {
		return f, "you must specify at least 1 of stdin, stdout, stderr"
	}
	return f, ""
}

func yes(q url.Values, name string) bool {
	b, err := strconv.ParseBool(q.Get(name))
	return err == nil && b
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	f, fault := parseFlags(r.URL.Query())
	if fault != "" {
		http.Error(w, fault, http.StatusBadRequest)
		return
	}
	c, ok := s.running(w, r)
	if !ok {
		return
	}
	got, err := s.cfg.Engine.Exec(r.Context(), &rt.ExecRequest{
		ContainerId: c.ID, Cmd: r.URL.Query()["command"], Tty: f.tty, Stdin: f.stdin, Stdout: f.stdout, Stderr: f.stderr,
	})
	s.join(w, r, got.GetUrl(), err)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	f, fault := parseFlags(r.URL.Query())
	if fault != "" {
		http.Error(w, fault, http.StatusBadRequest)
		return
	}
	c, ok := s.running(w, r)
	if !ok {
		return
	}
	got, err := s.cfg.Engine.Attach(r.Context(), &rt.AttachRequest{
		ContainerId: c.ID, Tty: f.tty, Stdin: f.stdin, Stdout: f.stdout, Stderr: f.stderr,
	})
	s.join(w, r, got.GetUrl(), err)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	box, err := s.cfg.Node.Sandbox(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	var ports []int32
	for _, p := range r.URL.Query()["port"] {
		for _, one := range strings.Split(p, ",") {
			n, err := strconv.ParseUint(one, 10, 16)
			if err != nil || n == 0 {
				http.Error(w, "invalid port "+strconv.Quote(one), http.StatusBadRequest)
				return
			}
			ports = append(ports, int32(n))
		}
	}
	got, err := s.cfg.Engine.PortForward(r.Context(), &rt.PortForwardRequest{PodSandboxId: box, Port: ports})
	s.join(w, r, got.GetUrl(), err)
}

// running finds the container that a path names and insists that it runs.
func (s *Server) running(w http.ResponseWriter, r *http.Request) (Container, bool) {
	name := r.PathValue("container")
	c, err := s.cfg.Node.Container(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), name, false)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return c, false
	}
	if !c.Running {
		http.Error(w, "container "+strconv.Quote(name)+" is not running", http.StatusBadRequest)
		return c, false
	}
	return c, true
}

// join proxies the request, upgrade and all, to the engine's address.
func (s *Server) join(w http.ResponseWriter, r *http.Request, address string, err error) {
	if err != nil {
		http.Error(w, cri.Message(err), http.StatusInternalServerError)
		return
	}
	to, err := url.Parse(address)
	if err != nil || to.Host == "" {
		http.Error(w, "the engine gave no address for the stream", http.StatusInternalServerError)
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = to
			p.Out.Host = to.Host
			// The engine knows its own one-time addresses; the caller's
			// credentials are none of its business.
			p.Out.Header.Del("Authorization")
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			s.cfg.Log.Warn("a stream to the engine broke", "err", err)
			http.Error(w, "stream to the container engine failed: "+err.Error(), http.StatusBadGateway)
		},
	}
	proxy.ServeHTTP(w, r)
}
