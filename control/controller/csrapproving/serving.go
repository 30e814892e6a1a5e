package csrapproving

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/kinds/certificates"
)

// enqueueOf looks again at what a node asks for: its addresses decide.
func (c *Controller) enqueueOf(n *corev1.Node) {
	for _, r := range c.requests.List() {
		if r.Spec.SignerName == certificatesv1.KubeletServingSignerName && r.Spec.Username == identity.NodePrefix+n.Name {
			c.loop.Enqueue(controller.KeyOf(r))
		}
	}
}

// serving approves a node's certificate for its own kubelet API. What it refrains
// from approving waits: for the node's addresses, or for a person.
func (c *Controller) serving(ctx context.Context, have *certificatesv1.CertificateSigningRequest) error {
	parsed, err := certificates.ParseRequest(have.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr %q: %w", have.Name, err)
	}
	if c.checks.Serving(parsed, have.Spec.Usages) != nil || have.Spec.Username != parsed.Subject.CommonName ||
		!slices.Contains(have.Spec.Groups, identity.Nodes) {
		return nil
	}
	node, ok := c.nodes.Get("", strings.TrimPrefix(have.Spec.Username, identity.NodePrefix))
	if !ok || !c.owns(node, parsed) {
		return nil
	}
	return c.write(ctx, have, "Auto approving kubelet serving certificate for the node's own names.")
}

// owns says whether all names of a request are the node's, and no other node's. A
// node may say any address of itself; so one that says another's, as that of the
// machine with the API server, must not get a certificate for it.
func (c *Controller) owns(node *corev1.Node, r *x509.CertificateRequest) bool {
	own := namesOf(node)
	for _, other := range c.nodes.List() {
		if other.Name == node.Name {
			continue
		}
		for name := range namesOf(other) {
			delete(own, name)
		}
	}
	for _, name := range r.DNSNames {
		if !own[name] {
			return false
		}
	}
	for _, ip := range r.IPAddresses {
		if ip.IsLoopback() || ip.IsUnspecified() || !own[ip.String()] {
			return false
		}
	}
	return true
}

// namesOf are the names by which a node is found: its own, and its addresses.
func namesOf(n *corev1.Node) map[string]bool {
	names := map[string]bool{n.Name: true}
	for _, a := range n.Status.Addresses {
		switch ip := net.ParseIP(a.Address); {
		case ip != nil:
			names[ip.String()] = true
		case a.Type == corev1.NodeHostName || a.Type == corev1.NodeInternalDNS:
			names[a.Address] = true
		}
	}
	delete(names, "localhost")
	return names
}
