package cli

import (
	"time"

	"github.com/spf13/cobra"
)

// AccessOptions say who may come in besides the cluster's own: upstream's flags of
// the same names. All are optional.
type AccessOptions struct {
	// Authentication and Authorization are the files of an
	// AuthenticationConfiguration and an AuthorizationConfiguration.
	Authentication, Authorization string
	// TokenWebhook is the kubeconfig of a server that reviews tokens.
	TokenWebhook string
	// OIDC is one issuer of identity tokens; more of them are for Authentication.
	OIDC OIDCOptions
	// LongestToken bounds the lives of service accounts' tokens; 0 is no bound.
	LongestToken time.Duration
	// Enable and Disable name admission plugins, Admission is the file of an
	// AdmissionConfiguration.
	Enable, Disable []string
	Admission       string
	// ClientCA and RequestHeaderCA are files of further authorities of clients and of
	// front proxies, and Shown certificates for other names ("cert,key:names"). All are
	// read again when they change.
	ClientCA, RequestHeaderCA string
	RequestHeaderNames, Shown []string
}

// OIDCOptions are one issuer of identity tokens; an empty Issuer is none.
type OIDCOptions struct {
	Issuer, Client, CAFile        string
	UsernameClaim, UsernamePrefix string
	GroupsClaim, GroupsPrefix     string
}

// flags reads them.
func (a *AccessOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.Authentication, "authentication-config", "", "file of an AuthenticationConfiguration: who else issues tokens")
	f.StringVar(&a.Authorization, "authorization-config", "", "file of an AuthorizationConfiguration: who else is asked (default: Node, RBAC)")
	f.StringVar(&a.TokenWebhook, "authentication-token-webhook-config-file", "", "kubeconfig of a server that reviews tokens")
	f.DurationVar(&a.LongestToken, "service-account-max-token-expiration", 24*time.Hour, "how long a token of a service account lives at most, whatever is asked for (0: no bound)")
	f.StringSliceVar(&a.Enable, "enable-admission-plugins", nil, "admission plugins to switch on besides the default ones")
	f.StringSliceVar(&a.Disable, "disable-admission-plugins", nil, "admission plugins to switch off")
	f.StringVar(&a.Admission, "admission-control-config-file", "", "file of an AdmissionConfiguration: Pod Security defaults, limited resources")
	f.StringVar(&a.ClientCA, "client-ca-file", "", "authorities whose client certificates count besides the cluster's own")
	f.StringVar(&a.RequestHeaderCA, "requestheader-client-ca-file", "", "authorities of proxies that name users in X-Remote-User and the like")
	f.StringSliceVar(&a.RequestHeaderNames, "requestheader-allowed-names", nil, "common names that such a proxy may have (default: any)")
	f.StringArrayVar(&a.Shown, "tls-sni-cert-key", nil, "certificate and key to show to who asks for their names: cert,key or cert,key:name,*.name")
	f.StringVar(&a.OIDC.Issuer, "oidc-issuer-url", "", "issuer of identity tokens")
	f.StringVar(&a.OIDC.Client, "oidc-client-id", "", "audience that such tokens must have")
	f.StringVar(&a.OIDC.CAFile, "oidc-ca-file", "", "authority of the issuer's certificate (default: the system's)")
	f.StringVar(&a.OIDC.UsernameClaim, "oidc-username-claim", "sub", "claim that is the user's name")
	f.StringVar(&a.OIDC.UsernamePrefix, "oidc-username-prefix", "", "what precedes names from the issuer; - for nothing (default: the issuer's URL and #)")
	f.StringVar(&a.OIDC.GroupsClaim, "oidc-groups-claim", "", "claim that is the user's groups")
	f.StringVar(&a.OIDC.GroupsPrefix, "oidc-groups-prefix", "", "what precedes groups from the issuer")
}
