package main

import (
	"context"
	"crypto/tls"
	"fmt"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
)

// writeKubeconfig writes the administrator's kubeconfig, and again each time its
// certificate is renewed.
func (c *cluster) writeKubeconfig(ctx context.Context, g *errgroup.Group) error {
	admin, err := c.authority.Hold(pki.Leaf{CommonName: "sampan-admin", Organizations: []string{identity.Masters}, Client: true})
	if err != nil {
		return err
	}
	if err := c.saveKubeconfig(admin.Leaf()); err != nil {
		return err
	}
	g.Go(func() error {
		return admin.Run(ctx, c.log, func(leaf *tls.Certificate) {
			if err := c.saveKubeconfig(leaf); err != nil {
				c.log.Error("the administrator's kubeconfig could not be renewed", "error", err)
			}
		})
	})
	return nil
}

func (c *cluster) saveKubeconfig(leaf *tls.Certificate) error {
	certificate, key, err := pki.Encode(leaf)
	if err != nil {
		return err
	}
	cfg := api.NewConfig()
	cfg.Clusters["sampan"] = &api.Cluster{
		Server: fmt.Sprintf("https://127.0.0.1:%d", c.Port), CertificateAuthorityData: c.authority.PEM(),
	}
	cfg.AuthInfos["sampan-admin"] = &api.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
	cfg.Contexts["sampan"] = &api.Context{Cluster: "sampan", AuthInfo: "sampan-admin"}
	cfg.CurrentContext = "sampan"
	raw, err := clientcmd.Write(*cfg)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(c.AdminKubeconfig(), raw, 0o600); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
