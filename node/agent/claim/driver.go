package claim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	healthapi "k8s.io/kubelet/pkg/apis/dra-health/v1"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/plugin"
)

// Limits of talking to drivers, upstream's where there are any.
const (
	callTimeout = 45 * time.Second
	wipeAfter   = 30 * time.Second
	healthFor   = 30 * time.Second
	healthRetry = 5 * time.Second
	maxMessage  = 16 << 20
	maxText     = 1024
)

// driver is a connection to one DRA driver.
type driver struct {
	name, endpoint string
	client         draapi.DRAPluginClient
	stop           context.CancelFunc
	conn           *grpc.ClientConn
	// reach belongs to the lock of Claims.
	reach reach
}

// reach says whether a driver can be reached.
type reach int

// Nobody knows yet; there is a connection; there can be none.
const (
	untried reach = iota
	up
	down
)

// close ends the connection and whatever goes on over it.
func (d *driver) close() {
	d.stop()
	_ = d.conn.Close() // it fails only when it is closed already
}

// driver finds a driver that is there: its newest instance, or the newest of those that
// can be reached.
func (c *Claims) driver(name string) (*driver, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.drivers[name]
	if len(list) == 0 {
		return nil, fmt.Errorf("DRA driver %s is not registered", name)
	}
	for _, d := range slices.Backward(list) {
		if d.reach != down {
			return d, nil
		}
	}
	return list[len(list)-1], nil
}

// part takes one instance of a driver out, nil when it isn't there; the lock is held.
func (c *Claims) part(info plugin.Info) *driver {
	list := c.drivers[info.Name]
	i := slices.IndexFunc(list, func(d *driver) bool { return d.endpoint == info.Endpoint })
	if i < 0 {
		return nil
	}
	d := list[i]
	if c.drivers[info.Name] = slices.Delete(list, i, i+1); len(list) == 1 {
		delete(c.drivers, info.Name)
	}
	return d
}

// Handler takes DRA drivers that register (package plugin). ctx is the life of
// connections.
func (c *Claims) Handler(ctx context.Context) plugin.Handler { return handler{c, ctx} }

type handler struct {
	c   *Claims
	ctx context.Context //nolint:containedctx // the life of connections, which outlive their registration
}

// Register implements plugin.Handler.
func (h handler) Register(_ context.Context, info plugin.Info) error {
	if speak(nil, info.Versions) == nil {
		return fmt.Errorf("none of the versions %q of DRA driver %s is supported, %s and %s are", info.Versions, info.Name, draapi.DRAPluginService, drabeta.DRAPluginService)
	}
	conn, err := grpc.NewClient("unix://"+info.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(h.c.counting(info.Name)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return fmt.Errorf("dial %q: %w", info.Endpoint, err)
	}
	ctx, cancel := context.WithCancel(h.ctx)
	d := &driver{name: info.Name, endpoint: info.Endpoint, client: speak(conn, info.Versions), stop: cancel, conn: conn}
	h.c.mu.Lock()
	if old := h.c.part(info); old != nil {
		old.close()
	}
	h.c.drivers[info.Name] = append(h.c.drivers[info.Name], d)
	h.c.mu.Unlock()
	go h.c.attend(ctx, h.ctx, d)
	if health := listen(conn, info.Versions); health != nil {
		go h.c.follow(ctx, d, health)
	}
	return nil
}

// counting counts the calls of a driver.
func (c *Claims) counting(name string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		begin := time.Now()
		err := call(ctx, method, req, reply, conn, opts...)
		c.cfg.Counts.DriverCalled(name, method, time.Since(begin), err)
		return err
	}
}

// Deregister implements plugin.Handler. What the driver offered is withdrawn
// unless it comes back soon, or another instance of it can be reached.
func (h handler) Deregister(info plugin.Info) {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	d := h.c.part(info)
	if d == nil {
		return
	}
	d.close()
	h.c.doom(h.ctx, info.Name)
}

// follow takes in what a driver says of its devices' health, for as long as it is
// there.
func (c *Claims) follow(ctx context.Context, d *driver, service healthapi.DRAResourceHealthClient) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(healthRetry)
		}
		stream, err := service.NodeWatchResources(ctx, &healthapi.NodeWatchResourcesRequest{})
		for err == nil {
			var got *healthapi.NodeWatchResourcesResponse
			if got, err = stream.Recv(); err == nil {
				c.reported(d.name, got.GetDevices())
			}
		}
		c.unknown(d)
		if status.Code(err) == codes.Unimplemented {
			return
		}
	}
}

// unknown forgets what a driver said of its devices' health, since nobody hears it any
// more, unless there is another instance of it.
func (c *Claims) unknown(d *driver) {
	c.mu.Lock()
	before := len(c.health)
	if !slices.ContainsFunc(c.drivers[d.name], func(o *driver) bool { return o != d }) {
		maps.DeleteFunc(c.health, func(at device, _ reported) bool { return at.driver == d.name })
	}
	news := len(c.health) != before
	c.mu.Unlock()
	if news {
		c.cfg.Changed()
	}
}

func (c *Claims) reported(name string, list []*healthapi.DeviceHealth) {
	c.mu.Lock()
	for _, h := range list {
		r := reported{health: corev1.ResourceHealthStatusUnknown, until: time.Now().Add(healthFor)}
		if s := h.GetHealthCheckTimeoutSeconds(); s > 0 {
			r.until = time.Now().Add(time.Duration(s) * time.Second)
		}
		switch h.GetHealth() {
		case healthapi.HealthStatus_HEALTHY:
			r.health = corev1.ResourceHealthStatusHealthy
		case healthapi.HealthStatus_UNHEALTHY:
			r.health = corev1.ResourceHealthStatusUnhealthy
		}
		if text := h.GetMessage(); text != "" {
			if len(text) > maxText {
				text = text[:maxText-3] + "..."
			}
			r.message = &text
		}
		c.health[device{name, h.GetDevice().GetPoolName(), h.GetDevice().GetDeviceName()}] = r
	}
	c.mu.Unlock()
	c.cfg.Changed()
}
