package claim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	healthapi "k8s.io/kubelet/pkg/apis/dra-health/v1"
	healthalpha "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/backoff"
)

// wipeRetry spaces attempts to withdraw what a driver offered.
var wipeRetry = backoff.Policy{Min: time.Second, Max: 5 * time.Minute, Jitter: .2}

// dialect is a connection to a driver that knows an older version of a service: its
// messages are the same on the wire, and only the service's name differs.
type dialect struct {
	grpc.ClientConnInterface
	service, older string
}

// Invoke implements grpc.ClientConnInterface.
func (d dialect) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return d.ClientConnInterface.Invoke(ctx, strings.Replace(method, d.service, d.older, 1), args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (d dialect) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return d.ClientConnInterface.NewStream(ctx, desc, strings.Replace(method, d.service, d.older, 1), opts...)
}

// speak finds the newest version of the drivers' service that one supports; nil for none.
func speak(conn grpc.ClientConnInterface, versions []string) draapi.DRAPluginClient {
	switch {
	case slices.Contains(versions, draapi.DRAPluginService):
		return draapi.NewDRAPluginClient(conn)
	case slices.Contains(versions, drabeta.DRAPluginService):
		return draapi.NewDRAPluginClient(dialect{conn, draapi.DRAPluginService, drabeta.DRAPluginService})
	}
	return nil
}

// listen finds the newest version of the service by which a driver tells of its devices'
// health; nil for none.
func listen(conn grpc.ClientConnInterface, versions []string) healthapi.DRAResourceHealthClient {
	switch {
	case slices.Contains(versions, healthapi.DRAResourceHealthService):
		return healthapi.NewDRAResourceHealthClient(conn)
	case slices.Contains(versions, healthalpha.DRAResourceHealthService):
		return healthapi.NewDRAResourceHealthClient(dialect{conn, healthapi.DRAResourceHealthService, healthalpha.DRAResourceHealthService})
	}
	return nil
}

// attend keeps a driver's connection up, until ctx ends, and withdraws what the driver
// offered when it can't be reached for too long: pods would be sent here in vain.
func (c *Claims) attend(ctx, life context.Context, d *driver) {
	for {
		state := d.conn.GetState()
		switch state {
		case connectivity.Idle:
			c.unreached(life, d, untried)
			d.conn.Connect()
		case connectivity.Ready:
			c.reached(d)
		case connectivity.Shutdown:
			return
		case connectivity.TransientFailure:
			c.unreached(life, d, down)
		case connectivity.Connecting: // what was known before holds
		}
		if !d.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// reached lets what a driver offers stand.
func (c *Claims) reached(d *driver) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.drivers[d.name], d) {
		return // it has gone
	}
	d.reach = up
	if t := c.wipes[d.name]; t != nil {
		t.Stop()
		delete(c.wipes, d.name)
	}
}

// unreached has what a driver offers withdrawn, if that doesn't change in time.
func (c *Claims) unreached(life context.Context, d *driver, how reach) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.drivers[d.name], d) {
		d.reach = how
		c.doom(life, d.name)
	}
}

// doom has what a driver offered withdrawn in a while, unless an instance of it can be
// reached; the lock is held. A time that has been set already stands.
func (c *Claims) doom(life context.Context, name string) {
	if c.wipes[name] != nil || slices.ContainsFunc(c.drivers[name], func(d *driver) bool { return d.reach == up }) {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(wipeAfter, func() {
		c.mu.Lock()
		due := c.wipes[name] == t
		if due {
			delete(c.wipes, name)
		}
		c.mu.Unlock()
		if due {
			c.wipe(life, fields.Set{"spec.driver": name})
		}
	})
	c.wipes[name] = t
}

// Begin withdraws what drivers of this node offered before: none has registered yet, and
// some may not come back. Those that do offer it anew. It returns when that is done, or
// ctx ends.
func (c *Claims) Begin(ctx context.Context) { c.wipe(ctx, fields.Set{}) }

// wipe withdraws devices that were offered from this node, those of the selection.
func (c *Claims) wipe(ctx context.Context, which fields.Set) {
	which["spec.nodeName"] = c.cfg.NodeName
	for failures := 1; ctx.Err() == nil; failures++ {
		err := c.withdraw(ctx, which)
		if err == nil || ctx.Err() != nil {
			return
		}
		c.cfg.Log.Warn("can't withdraw the devices of DRA drivers that have gone; trying again", "which", which.String(), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(wipeRetry.After(failures)):
		}
	}
}

func (c *Claims) withdraw(ctx context.Context, which fields.Set) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, _, err := client.ResourceSlices.List(ctx, c.cfg.Transport, "", metav1.ListOptions{FieldSelector: fields.SelectorFromSet(which).String()})
	for _, s := range list {
		gone := client.ResourceSlices.Delete(ctx, c.cfg.Transport, "", s.Name, metav1.DeleteOptions{})
		if !apierrors.IsNotFound(gone) {
			err = errors.Join(err, gone)
		}
	}
	return err
}
