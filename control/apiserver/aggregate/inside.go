package aggregate

import (
	"bytes"
	"context"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// The place of what is inside: that which upstream's add-ons take.
const insideRank = 100

// newInside is a remote that is none: it shows and answers what h does. Its
// APIService is stored nowhere, so that anybody may make one of that name, whose
// server then takes over.
func newInside(owner *Aggregator, gv schema.GroupVersion, h http.Handler) *remote {
	r := &remote{owner: owner, gv: gv, host: "inside", inside: h, wake: make(chan struct{}, 1), stop: func() {}}
	r.service.Store(&apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group},
		Spec: apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: insideRank, VersionPriority: insideRank,
			Service: &apiregistrationv1.ServiceReference{Namespace: metav1.NamespaceSystem, Name: "inside", Port: new(int32(443))}},
	})
	r.refresh(context.Background()) // no wire, no waiting
	return r
}

// answering is who answers for the group version of an APIService's name, nil
// when the generic handler does. The caller holds mu.
func (a *Aggregator) answering(name string) *remote {
	if r := a.remotes[name]; r != nil {
		return r
	}
	if _, taken := a.all[name]; taken {
		return nil
	}
	return a.inside[name]
}

// AnswersInside says whether a part of this process answers for a group version now,
// as Config.Inside has it.
func (a *Aggregator) AnswersInside(gv schema.GroupVersion) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := gv.Version + "." + gv.Group
	return a.inside[name] != nil && a.answering(name) == a.inside[name]
}

// ask takes a request to the handler inside.
func (r *remote) ask(req *http.Request) *http.Response {
	seen := &recorder{header: http.Header{}, code: http.StatusOK}
	r.inside.ServeHTTP(seen, req)
	return &http.Response{StatusCode: seen.code, Header: seen.header, Body: io.NopCloser(bytes.NewReader(seen.body.Bytes())), Request: req}
}
