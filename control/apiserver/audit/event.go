package audit

import (
	"encoding/json"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// apiVersion is what events and policies are written in.
const apiVersion = "audit.k8s.io/v1"

// Level says how much of a request is written down; each has all of the former.
type Level string

// The levels, in order.
const (
	None            Level = "None"
	Metadata        Level = "Metadata"
	Request         Level = "Request"
	RequestResponse Level = "RequestResponse"
)

func (l Level) rank() int {
	switch l {
	case Metadata:
		return 1
	case Request:
		return 2
	case RequestResponse:
		return 3
	}
	return 0
}

// AtLeast says whether l has all that other has.
func (l Level) AtLeast(other Level) bool { return l.rank() >= other.rank() }

// Stage is where on its way a request is.
type Stage string

// The stages.
const (
	RequestReceived  Stage = "RequestReceived"
	ResponseStarted  Stage = "ResponseStarted"
	ResponseComplete Stage = "ResponseComplete"
	Panicked         Stage = "Panic"
)

// Event is one event of audit.k8s.io/v1.
type Event struct {
	Kind           string                     `json:"kind"`
	APIVersion     string                     `json:"apiVersion"`
	Level          Level                      `json:"level"`
	AuditID        string                     `json:"auditID,omitempty"`
	Stage          Stage                      `json:"stage"`
	RequestURI     string                     `json:"requestURI,omitempty"`
	Verb           string                     `json:"verb"`
	User           authenticationv1.UserInfo  `json:"user"`
	Impersonated   *authenticationv1.UserInfo `json:"impersonatedUser,omitempty"`
	Authentication *Authentication            `json:"authenticationMetadata,omitempty"`
	SourceIPs      []string                   `json:"sourceIPs,omitempty"`
	UserAgent      string                     `json:"userAgent,omitempty"`
	Object         *Object                    `json:"objectRef,omitempty"`
	ResponseStatus *metav1.Status             `json:"responseStatus,omitempty"`
	RequestObject  json.RawMessage            `json:"requestObject,omitempty"`
	ResponseObject json.RawMessage            `json:"responseObject,omitempty"`
	Received       metav1.MicroTime           `json:"requestReceivedTimestamp"`
	Reached        metav1.MicroTime           `json:"stageTimestamp"`
	Annotations    map[string]string          `json:"annotations,omitempty"`
}

// Authentication says how it was found out who makes a request.
type Authentication struct {
	// ImpersonationConstraint is the verb of the constrained impersonation.
	ImpersonationConstraint string `json:"impersonationConstraint,omitempty"`
}

// Object names what a request is about.
type Object struct {
	Resource    string `json:"resource,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name,omitempty"`
	APIGroup    string `json:"apiGroup,omitempty"`
	APIVersion  string `json:"apiVersion,omitempty"`
	Subresource string `json:"subresource,omitempty"`
}

// eventList is what a webhook gets.
type eventList struct {
	Kind       string            `json:"kind"`
	APIVersion string            `json:"apiVersion"`
	Metadata   struct{}          `json:"metadata"`
	Items      []json.RawMessage `json:"items"`
}
