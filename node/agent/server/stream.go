package server

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/translate"
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
		refuse(w, fault, http.StatusBadRequest)
		return
	}
	as, err := parseAs(r)
	if err != nil {
		refuse(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, ok := s.running(w, r)
	if !ok {
		return
	}
	got, err := cri.ExecAs(r.Context(), s.cfg.Engine, &rt.ExecRequest{
		ContainerId: c.ID, Cmd: r.URL.Query()["command"], Tty: f.tty, Stdin: f.stdin, Stdout: f.stdout, Stderr: f.stderr,
	}, as)
	s.stream(w, r, stream{got.GetUrl(), f}, err)
}

// What exec's command has of its own is said in words of ours, which only somebody
// who may use the node's API can say: the API server passes on none that a client
// of a pod's exec says, so that leave to run a command in a pod is no leave to be
// another user there. Variables are in a header, a JSON list in base64, since
// requests' addresses are kept in audit logs; env in the address says that the
// header, which the API server does pass on, is to be heeded.
const (
	userWord    = "user"
	workdirWord = "workdir"
	envWord     = "env"
	detachWord  = "detach"
	envHeader   = "Sampan-Exec-Env"
)

func parseAs(r *http.Request) (cri.As, error) {
	q := r.URL.Query()
	as := cri.As{User: q.Get(userWord), Cwd: q.Get(workdirWord), Detach: yes(q, detachWord)}
	if !yes(q, envWord) {
		return as, nil
	}
	raw, err := base64.StdEncoding.DecodeString(r.Header.Get(envHeader))
	if err == nil {
		err = json.Unmarshal(raw, &as.Env)
	}
	if err != nil {
		return as, fmt.Errorf("%s: want a JSON list in base64: %w", envHeader, err)
	}
	return as, nil
}

// runHeader is a word of ours: which run of a container is to be joined, by how often it
// was restarted before that. A client that has heard of a run too late would be given
// another one's output.
const runHeader = "Sampan-Attach-Run"

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	f, fault := parseFlags(r.URL.Query())
	if fault != "" {
		refuse(w, fault, http.StatusBadRequest)
		return
	}
	c, ok := s.running(w, r)
	if !ok {
		return
	}
	if run := r.Header.Get(runHeader); run != "" && run != strconv.Itoa(int(c.Attempt)) {
		refuse(w, fmt.Sprintf("run %q of container %q has ended: this is run %d", run, r.PathValue("container"), c.Attempt), http.StatusBadRequest)
		return
	}
	got, err := s.cfg.Engine.Attach(r.Context(), &rt.AttachRequest{
		ContainerId: c.ID, Tty: f.tty, Stdin: f.stdin, Stdout: f.stdout, Stderr: f.stderr,
	})
	s.stream(w, r, stream{got.GetUrl(), f}, err)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	box, err := s.cfg.Node.Sandbox(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		refuse(w, err.Error(), http.StatusNotFound)
		return
	}
	var ports []int32
	for _, p := range r.URL.Query()["port"] {
		for _, one := range strings.Split(p, ",") {
			n, err := strconv.ParseUint(one, 10, 16)
			if err != nil || n == 0 {
				refuse(w, "invalid port "+strconv.Quote(one), http.StatusBadRequest)
				return
			}
			ports = append(ports, int32(n))
		}
	}
	got, err := s.cfg.Engine.PortForward(r.Context(), &rt.PortForwardRequest{PodSandboxId: box, Port: ports})
	s.stream(w, r, stream{address: got.GetUrl()}, err)
}

// reasons are the API's words for the codes that a refused stream may have.
var reasons = map[int]metav1.StatusReason{
	http.StatusBadRequest: metav1.StatusReasonBadRequest, http.StatusNotFound: metav1.StatusReasonNotFound, http.StatusInternalServerError: metav1.StatusReasonInternalError,
}

// refuse answers whoever wants a stream in the API's form: clients of upgrades read text
// as YAML first, and of one with a colon nothing would be left.
func refuse(w http.ResponseWriter, text string, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// Who has gone need not be told.
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Message: text, Reason: reasons[code], Code: int32(code), //nolint:gosec // an HTTP code
	})
}

// running finds the container that a path names and insists that it runs.
func (s *Server) running(w http.ResponseWriter, r *http.Request) (Container, bool) {
	name := r.PathValue("container")
	c, err := s.cfg.Node.Container(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), name, false)
	if err != nil {
		refuse(w, err.Error(), http.StatusNotFound)
		return c, false
	}
	if !c.Running {
		refuse(w, "container "+strconv.Quote(name)+" is not running", http.StatusBadRequest)
		return c, false
	}
	return c, true
}

// stream is where an engine has a stream to be had, and what of an exec or attach it is.
type stream struct {
	address string
	flags   flags
}

// stream joins the client's connection with the engine's. WebSockets of protocols that
// engines don't speak are translated, where this isn't left to API servers.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, st stream, err error) {
	if err != nil {
		code := http.StatusInternalServerError
		if cri.IsUnimplemented(err) {
			code = http.StatusNotImplemented
		}
		refuse(w, cri.Message(err), code)
		return
	}
	to, err := url.Parse(st.address)
	if err != nil || to.Host == "" {
		refuse(w, "the engine gave no address for the stream", http.StatusInternalServerError)
		return
	}
	if exec := translate.Exec(r); s.cfg.Translated && (exec || translate.Forward(r)) {
		remote := translate.Remote{Name: "the container engine", URL: to, Transport: &http.Transport{DisableKeepAlives: true}}
		if exec {
			f := st.flags
			err = translate.ServeExec(w, r, remote, translate.Wants{Stdin: f.stdin, Stdout: f.stdout, Stderr: f.stderr, TTY: f.tty})
		} else {
			err = translate.ServeForward(w, r, remote)
		}
		if err != nil {
			s.broke(w, r, err)
		}
		return
	}
	s.join(w, r, to)
}

// broke tells that the engine's stream could not be had.
func (s *Server) broke(w http.ResponseWriter, _ *http.Request, err error) {
	s.cfg.Log.Warn("a stream to the engine broke", "err", err)
	refuse(w, "stream to the container engine failed: "+err.Error(), http.StatusBadGateway)
}

// join proxies the request, upgrade and all, to the engine's address.
func (s *Server) join(w http.ResponseWriter, r *http.Request, to *url.URL) {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = to
			p.Out.Host = to.Host
			// The engine knows its own one-time addresses; the caller's
			// credentials are none of its business.
			p.Out.Header.Del("Authorization")
			p.Out.Header.Del(envHeader)
		},
		FlushInterval: -1,
		ErrorHandler:  s.broke,
	}
	proxy.ServeHTTP(w, r)
}
