package apiserver

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"os"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// Each server of a cluster has a lease in kube-system that says so (KEP-1965): whoever
// wants to know how many there are counts them.

// The lease's label, and what it is in the leases of such servers.
const (
	leaseLabel  = "apiserver.kubernetes.io/identity"
	leaseServer = "kube-apiserver"
	// leaseAddress is the annotation that says where other servers reach it.
	leaseAddress = "kubernetes.io/peer-advertise-address"
)

// leaseSeconds is upstream's for how long a server counts that says nothing. Upstream
// says it every ten seconds, which nobody needs: three times in that hour will do.
const (
	leaseSeconds = 60 * 60
	leaseEvery   = leaseSeconds * time.Second / 3
)

var leasesResource = coordinationv1.SchemeGroupVersion.WithResource("leases")

// keepLease says that this server is there, and removes the leases of those that are no
// more, until ctx ends.
func (s *Server) keepLease(ctx context.Context) error {
	if !s.served(leasesResource) {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	name := leaseName(host)
	holder := name + "_" + string(uuid.NewUUID())
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		now := metav1.NewMicroTime(s.cfg.Now())
		if err := s.ensure(ctx, ownLease(name, host, holder, s.cfg.Advertise.String(), now)); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("renew the server's own lease", "lease", name, "err", err)
		}
		if err := s.dropLeases(ctx, now.Time); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("remove the leases of servers that are no more", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leaseName is upstream's for a server on a host: sixteen bytes of a hash, in letters and
// digits, of the host's name and of what it is, each with its length before it.
func leaseName(host string) string {
	var data []byte
	for _, part := range []string{host, leaseServer} {
		data = append(binary.BigEndian.AppendUint16(data, uint16(len(part))), part...) //nolint:gosec // names of hosts are short
	}
	sum := sha256.Sum256(data)
	return "apiserver-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// ownLease is the lease as it has to be now.
func ownLease(name, host, holder, address string, now metav1.MicroTime) wanted {
	fresh := func(l *coordinationv1.Lease) {
		l.Labels = map[string]string{leaseLabel: leaseServer, corev1.LabelHostname: host}
		l.Annotations = map[string]string{leaseAddress: address}
		l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &holder, new(int32(leaseSeconds)), &now
	}
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name}}
	fresh(l)
	return want(leasesResource, l, func(have kinds.Object) bool {
		fresh(have.(*coordinationv1.Lease))
		return true
	})
}

// dropLeases removes those that have run out.
func (s *Server) dropLeases(ctx context.Context, now time.Time) error {
	list, err := s.own.List(ctx, target.Of(leasesResource, metav1.NamespaceSystem), metav1.ListOptions{LabelSelector: leaseLabel + "=" + leaseServer})
	if err != nil {
		return err
	}
	return meta.EachListItem(list, func(obj runtime.Object) error {
		l := obj.(*coordinationv1.Lease)
		if !runOut(l, now) {
			return nil
		}
		return s.own.Delete(ctx, target.Of(leasesResource, l.Namespace).Object(l.Name), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &l.UID, ResourceVersion: &l.ResourceVersion}})
	})
}

// runOut says that a lease counts no more, as one does that never said since when.
func runOut(l *coordinationv1.Lease, now time.Time) bool {
	if l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
		return true
	}
	return now.After(l.Spec.RenewTime.Add(time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second))
}
