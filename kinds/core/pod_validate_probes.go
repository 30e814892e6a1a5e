package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// checkHooks checks probes and lifecycle hooks.
func (c *podCheck) checkHooks(container *corev1.Container, at *kinds.Path) {
	if l := container.Lifecycle; l != nil {
		c.checkHook(l.PostStart, at.Child("lifecycle").Child("postStart"))
		c.checkHook(l.PreStop, at.Child("lifecycle").Child("preStop"))
		if l.StopSignal != nil {
			c.checkStopSignal(*l.StopSignal, at.Child("lifecycle").Child("stopSignal"))
		}
	}
	c.checkProbe(container.LivenessProbe, true, at.Child("livenessProbe"))
	c.checkProbe(container.ReadinessProbe, false, at.Child("readinessProbe"))
	c.checkProbe(container.StartupProbe, true, at.Child("startupProbe"))
}

// handler is what a probe or a hook does.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (c *podCheck) checkHook(h *corev1.LifecycleHandler, at *kinds.Path) {
	if h != nil {
		c.checkHandler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, at)
	}
}

// checkProbe checks a probe; one that kills counts a single success as success.
func (c *podCheck) checkProbe(p *corev1.Probe, kills bool, at *kinds.Path) {
	if p == nil {
		return
	}
	c.checkHandler(handler{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, at)
	c.NonNegative(at.Child("initialDelaySeconds"), int64(p.InitialDelaySeconds))
	c.NonNegative(at.Child("timeoutSeconds"), int64(p.TimeoutSeconds))
	c.NonNegative(at.Child("periodSeconds"), int64(p.PeriodSeconds))
	c.NonNegative(at.Child("successThreshold"), int64(p.SuccessThreshold))
	c.NonNegative(at.Child("failureThreshold"), int64(p.FailureThreshold))
	grace := at.Child("terminationGracePeriodSeconds")
	if p.TerminationGracePeriodSeconds != nil && *p.TerminationGracePeriodSeconds <= 0 {
		c.Invalid(grace, *p.TerminationGracePeriodSeconds, "must be greater than 0")
	}
	if kills && p.SuccessThreshold != 1 {
		c.Invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1")
	}
	if !kills && p.TerminationGracePeriodSeconds != nil {
		c.Invalid(grace, p.TerminationGracePeriodSeconds, "must not be set for readinessProbes")
	}
}

// checkHandler wants exactly one action.
func (c *podCheck) checkHandler(h handler, at *kinds.Path) {
	found := false
	only := func(set bool, at *kinds.Path) bool {
		if set && found {
			c.Forbidden(at, "may not specify more than 1 handler type")
			return false
		}
		found = found || set
		return set
	}
	if here := at.Child("exec"); only(h.exec != nil, here) && len(h.exec.Command) == 0 {
		c.Required(here.Child("command"), "")
	}
	if here := at.Child("httpGet"); only(h.http != nil, here) {
		c.checkHTTPGet(h.http, here)
	}
	if here := at.Child("tcpSocket"); only(h.tcp != nil, here) {
		c.checkPort(h.tcp.Port, here.Child("port"))
	}
	if here := at.Child("grpc"); only(h.grpc != nil, here) {
		c.checkGRPC(h.grpc, here)
	}
	if here := at.Child("sleep"); only(h.sleep != nil, here) {
		c.checkSleep(h.sleep.Seconds, here)
	}
	if !found {
		c.Required(at, "must specify a handler type")
	}
}

func (c *podCheck) checkHTTPGet(a *corev1.HTTPGetAction, at *kinds.Path) {
	c.NonEmpty(at.Child("path"), a.Path)
	c.checkPort(a.Port, at.Child("port"))
	kinds.OneOf(&c.Faults, at.Child("scheme"), a.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for _, header := range a.HTTPHeaders {
		c.Each(at.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))
	}
	if a.Protocol == nil {
		return
	}
	kinds.OneOf(&c.Faults, at.Child("protocol"), *a.Protocol, corev1.HTTPProtocolHTTP1, corev1.HTTPProtocolHTTP2)
	if *a.Protocol != corev1.HTTPProtocolHTTP2 {
		return
	}
	switch {
	case a.Scheme != corev1.URISchemeHTTP:
		c.Invalid(at.Child("protocol"), *a.Protocol, "is only supported with HTTP (H2C)")
	case a.Host != "":
		c.Invalid(at.Child("host"), a.Host, "must be empty when `protocol` is \"HTTP2\"")
	}
}

func (c *podCheck) checkGRPC(a *corev1.GRPCAction, at *kinds.Path) {
	c.checkPort(intstr.FromInt32(a.Port), at.Child("port"))
	if a.Mode != nil {
		kinds.OneOf(&c.Faults, at.Child("mode"), *a.Mode, corev1.GRPCProbeModePlaintext, corev1.GRPCProbeModeTLS)
	}
}

func (c *podCheck) checkSleep(seconds int64, at *kinds.Path) {
	grace := c.spec.TerminationGracePeriodSeconds
	if grace != nil && (seconds < 0 || seconds > *grace) {
		c.Invalid(at, seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))
	}
}

func (c *podCheck) checkPort(port intstr.IntOrString, at *kinds.Path) {
	c.Join(validatePort(port, at))
}

// validatePort wants a port's number or name.
func validatePort(port intstr.IntOrString, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	if port.Type == intstr.Int {
		f.Each(at, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
	} else {
		f.Each(at, port.StrVal, validation.IsValidPortName(port.StrVal))
	}
	return f.List()
}

// linuxSignals are the names of the signals that have one; the real-time ones
// are SIGRTMIN+1 … SIGRTMIN+15 and SIGRTMAX-14 … SIGRTMAX-1 besides.
const linuxSignals = "SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL " +
	"SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN " +
	"SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIGRTMIN SIGRTMAX"

func (c *podCheck) checkStopSignal(signal corev1.Signal, at *kinds.Path) {
	switch {
	case c.spec.OS == nil:
		c.Forbidden(at, "may not be set for containers with empty `spec.os.name`")
	case c.spec.OS.Name == corev1.Windows:
		kinds.OneOf(&c.Faults, at, signal, corev1.SIGKILL, corev1.SIGTERM)
	case c.spec.OS.Name == corev1.Linux:
		kinds.OneOf(&c.Faults, at, signal, stopSignals()...)
	}
}

func stopSignals() []corev1.Signal {
	var signals []corev1.Signal
	for _, name := range strings.Fields(linuxSignals) {
		signals = append(signals, corev1.Signal(name))
	}
	for i := 1; i <= 15; i++ {
		signals = append(signals, corev1.Signal(fmt.Sprintf("SIGRTMIN+%d", i)))
	}
	for i := 1; i <= 14; i++ {
		signals = append(signals, corev1.Signal(fmt.Sprintf("SIGRTMAX-%d", i)))
	}
	return signals
}
