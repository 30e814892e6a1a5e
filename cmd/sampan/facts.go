package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// factsName is the ConfigMap in kube-system that tells a machine that joins what it
// has to know of the cluster. Nodes may read it, administrators write it.
const factsName = "sampan-cluster"

// The facts.
const (
	factDNS      = "clusterDNS"
	factDomain   = "clusterDomain"
	factPods     = "clusterCIDR"
	factServices = "serviceCIDR"
)

// announceFacts writes the facts, if they are not written already.
func (c *cluster) announceFacts(ctx context.Context, admin client.Transport) error {
	facts := map[string]string{
		factDNS: c.dns.String(), factDomain: c.Domain, factPods: c.everywhere.String(), factServices: c.services.String(),
	}
	have, err := client.ConfigMaps.Get(ctx, admin, metav1.NamespaceSystem, factsName)
	switch {
	case apierrors.IsNotFound(err):
		_, err = client.ConfigMaps.Create(ctx, admin, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: factsName}, Data: facts,
		})
	case err == nil && !maps.Equal(have.Data, facts):
		have = have.DeepCopy()
		have.Data = facts
		_, err = client.ConfigMaps.Update(ctx, admin, have)
	}
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		c.log.Error("machines can't learn about this cluster, and so not join it", "error", err)
	}
	return nil
}

// learnFacts reads what announceFacts has written on a server.
func (c *cluster) learnFacts(ctx context.Context, self client.Transport) error {
	m, err := client.ConfigMaps.Get(ctx, self, metav1.NamespaceSystem, factsName)
	if err != nil {
		return fmt.Errorf("learn about the cluster: %w", err)
	}
	var errs []error
	c.dns, err = netip.ParseAddr(m.Data[factDNS])
	errs = append(errs, err)
	c.everywhere, err = netip.ParsePrefix(m.Data[factPods])
	errs = append(errs, err)
	c.services, err = netip.ParsePrefix(m.Data[factServices])
	errs = append(errs, err)
	if c.Domain = m.Data[factDomain]; c.Domain == "" {
		errs = append(errs, errors.New("no domain"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the cluster says wrong things about itself in ConfigMap %q: %w", factsName, err)
	}
	return nil
}
