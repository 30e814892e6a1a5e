package authn

import (
	"crypto/x509"
	"weak"
)

// trusted is whose certificates count, and which have been seen to: whoever changes
// the first forgets the second.
type trusted struct {
	clients      *x509.CertPool
	front        *FrontProxy
	known, proxy certificates
}

// Trust replaces the authorities whose client certificates count, and who is believed
// what it says in headers (nil: nobody). It holds from the next request on, on
// connections that exist, too. The arguments belong to a from now on.
func (a *Authenticator) Trust(clients *x509.CertPool, front *FrontProxy) {
	a.trusted.Store(&trusted{clients: clients, front: front,
		known: certificates{valid: map[weak.Pointer[x509.Certificate]]holder{}}, proxy: certificates{valid: map[weak.Pointer[x509.Certificate]]holder{}}})
}
