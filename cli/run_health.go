package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// healthPeriodAnnotation is how long a container may be unwell after its start
// before ps calls it so.
const healthPeriodAnnotation = "sampan.dev/health-start-period"

// Docker's numbers, where nobody says others.
const (
	healthInterval = 30 * time.Second
	healthTimeout  = 30 * time.Second
	healthRetries  = 3
)

// healthFlags say how a container is asked whether it is well. It is shown, and
// decides whether services lead to it; nobody restarts it for that, as in docker.
type healthFlags struct {
	command                        string
	interval, timeout, startPeriod time.Duration
	retries                        int32
	none                           bool
}

func healthFlagsOf(cmd *cobra.Command, h *healthFlags) {
	flags := cmd.Flags()
	flags.StringVar(&h.command, "health-cmd", "", "shell command that succeeds while it is well (default: the image's HEALTHCHECK)")
	flags.DurationVar(&h.interval, "health-interval", 0, "time between two of them, in whole seconds (default 30s)")
	flags.DurationVar(&h.timeout, "health-timeout", 0, "time that one may take, in whole seconds (default 30s)")
	flags.DurationVar(&h.startPeriod, "health-start-period", 0, "time from its start in which failures are no sign (default 0s)")
	flags.Int32Var(&h.retries, "health-retries", 0, "failures in a row until it is unhealthy (default 3)")
	flags.BoolVar(&h.none, "no-healthcheck", false, "ask nothing, whatever the image says")
}

// check refuses what a probe can't be.
func (h healthFlags) check() error {
	for name, d := range map[string]time.Duration{"interval": h.interval, "timeout": h.timeout, "start-period": h.startPeriod} {
		if d < 0 || d%time.Second != 0 {
			return fmt.Errorf("--health-%s=%s: want whole seconds", name, d)
		}
	}
	if h.retries < 0 {
		return fmt.Errorf("--health-retries=%d: want a number of failures", h.retries)
	}
	if h.none && (h.command != "" || h.said()) {
		return errors.New("--no-healthcheck and --health-* exclude each other")
	}
	return nil
}

// said: something beside the command.
func (h healthFlags) said() bool { return h.interval+h.timeout+h.startPeriod != 0 || h.retries != 0 }

// alone refuses words about a command that isn't there.
func (h healthFlags) alone() error {
	if h.said() && h.command == "" {
		return errors.New("--health-* without --health-cmd: no HEALTHCHECK of the image is known")
	}
	return nil
}

// health reads --health-cmd; the image's HEALTHCHECK comes later, when it is here.
func (b *podBuilder) health() error {
	h := b.flags.health
	if err := h.check(); err != nil || h.command == "" {
		return err
	}
	setHealth(b.pod, b.c, h, []string{"/bin/sh", "-c", h.command})
	return nil
}

// setHealth makes a check the container's readiness probe.
func setHealth(pod *corev1.Pod, c *corev1.Container, h healthFlags, command []string) {
	for i, word := range command {
		command[i] = literal(word)
	}
	p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}, PeriodSeconds: seconds(h.interval, healthInterval),
		TimeoutSeconds: seconds(h.timeout, healthTimeout), FailureThreshold: h.retries}
	if p.FailureThreshold == 0 {
		p.FailureThreshold = healthRetries
	}
	c.ReadinessProbe = p
	if h.startPeriod > 0 {
		pod.Annotations[healthPeriodAnnotation] = h.startPeriod.String()
	}
}

// seconds are whole ones, at least one.
func seconds(d, otherwise time.Duration) int32 {
	if d == 0 {
		d = otherwise
	}
	return int32(min((d+time.Second-1)/time.Second, 1<<30)) //nolint:gosec // bounded
}

// healthConfig is an image's HEALTHCHECK, which the OCI's config has no field for.
type healthConfig struct {
	Config struct {
		Healthcheck struct {
			Test                           []string
			Interval, Timeout, StartPeriod time.Duration
			Retries                        int32
		}
	} `json:"config"`
}

// imageHealth has the container checked as the image says, with what flags say
// otherwise.
func (r *running) imageHealth(store *image.Store, img image.Image) error {
	h, c := r.flags.health, &r.pod.Spec.Containers[0]
	if h.none || c.ReadinessProbe != nil {
		return nil
	}
	raw, err := store.RawConfig(img)
	if err != nil {
		return err
	}
	var own healthConfig
	if err := json.Unmarshal(raw, &own); err != nil {
		return fmt.Errorf("HEALTHCHECK of %s: %w", r.image, err)
	}
	is := own.Config.Healthcheck
	command := testCommand(is.Test)
	if command == nil {
		return h.alone()
	}
	for mine, its := range map[*time.Duration]time.Duration{&h.interval: is.Interval, &h.timeout: is.Timeout, &h.startPeriod: is.StartPeriod} {
		if *mine == 0 {
			*mine = max(its, 0)
		}
	}
	if h.retries == 0 {
		h.retries = max(is.Retries, 0)
	}
	setHealth(r.pod, c, h, command)
	return nil
}

// testCommand is what a HEALTHCHECK runs, nil for nothing.
func testCommand(test []string) []string {
	if len(test) < 2 {
		return nil
	}
	switch test[0] {
	case "CMD":
		return append([]string{}, test[1:]...)
	case "CMD-SHELL":
		return []string{"/bin/sh", "-c", test[1]}
	}
	return nil
}

// The states of docker's health.
const (
	healthy        = "healthy"
	unhealthy      = "unhealthy"
	healthStarting = "starting"
	healthNone     = "none"
)

// healthOf is how a container that runs is.
func healthOf(p *corev1.Pod, now time.Time) string {
	probe := p.Spec.Containers[0].ReadinessProbe
	if probe == nil || len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].State.Running == nil {
		return healthNone
	}
	s := p.Status.ContainerStatuses[0]
	if s.Ready {
		return healthy
	}
	begun := s.State.Running.StartedAt.Time
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.ContainersReady && c.LastTransitionTime.After(begun.Add(time.Second)) {
			return unhealthy // it was well before
		}
	}
	period, _ := time.ParseDuration(p.Annotations[healthPeriodAnnotation]) // none is 0
	tries := time.Duration(probe.FailureThreshold) * time.Duration(probe.PeriodSeconds) * time.Second
	if now.Before(begun.Add(period + tries)) {
		return healthStarting
	}
	return unhealthy
}

// healthWords are docker's behind how long a container is up.
func healthWords(p *corev1.Pod) string {
	switch h := healthOf(p, time.Now()); h {
	case healthNone:
		return ""
	case healthStarting:
		return " (health: starting)"
	default:
		return " (" + h + ")"
	}
}
