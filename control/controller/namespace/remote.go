package namespace

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/client"
)

// services are the registrations of groups that other servers answer for.
var services = client.Resource[*apiregistrationv1.APIService]{
	GroupVersionResource: apiregistrationv1.SchemeGroupVersion.WithResource("apiservices"), Kind: "APIService",
}

// maxPages bounds the pages of one list of another server: it may go on for ever.
const maxPages = 10_000

// remoteKind is a kind that another server keeps.
type remoteKind struct {
	schema.GroupVersionResource
	verbs []string
}

func (k remoteKind) can(verb string) bool { return slices.Contains(k.verbs, verb) }

// path is where a namespace's objects of the kind are.
func (k remoteKind) path(namespace string) string {
	return fmt.Sprintf("/apis/%s/%s/namespaces/%s/%s", k.Group, k.Version, namespace, k.Resource)
}

// discovery is what other servers keep, as far as they say.
type discovery struct {
	kinds  []remoteKind
	failed map[schema.GroupVersion]error
}

// discover asks the servers of aggregated groups what they keep in namespaces. One
// that does not answer leaves a failure, and the rest goes on. Of a resource that
// several versions show, one is enough.
func (c *Controller) discover(ctx context.Context) discovery {
	found := discovery{failed: map[schema.GroupVersion]error{}}
	all, _, err := services.List(ctx, c.transport, "", metav1.ListOptions{})
	if err != nil {
		if !gone(err) {
			found.failed[services.GroupVersionResource.GroupVersion()] = err
		}
		return found
	}
	seen := map[schema.GroupResource]bool{}
	for _, s := range all {
		if s.Spec.Service == nil {
			continue
		}
		gv := schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}
		kinds, err := c.keptBy(ctx, s, gv)
		if err != nil {
			found.failed[gv] = err
			continue
		}
		for _, k := range kinds {
			if !seen[k.GroupResource()] {
				seen[k.GroupResource()] = true
				found.kinds = append(found.kinds, k)
			}
		}
	}
	return found
}

// keptBy is what one server keeps in namespaces, and lets be deleted.
func (c *Controller) keptBy(ctx context.Context, s *apiregistrationv1.APIService, gv schema.GroupVersion) (kinds []remoteKind, err error) {
	available := slices.ContainsFunc(s.Status.Conditions, func(cond apiregistrationv1.APIServiceCondition) bool {
		return cond.Type == apiregistrationv1.Available && cond.Status == apiregistrationv1.ConditionTrue
	})
	if !available {
		return nil, fmt.Errorf("stale GroupVersion discovery: %v", gv)
	}
	raw, err := client.Raw(ctx, c.transport, "/apis/"+gv.String())
	if err != nil {
		return nil, err
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("decode the resources of %s: %w", gv, err)
	}
	for _, r := range list.APIResources {
		if r.Namespaced && slices.Contains(r.Verbs, "delete") && !strings.Contains(r.Name, "/") {
			kinds = append(kinds, remoteKind{gv.WithResource(r.Name), r.Verbs})
		}
	}
	return kinds, nil
}

// undiscovered is the failure of discovery in upstream's words; nil for none.
func (r *remains) undiscovered() error {
	if len(r.failed) == 0 {
		return nil
	}
	var all []string
	for gv, err := range r.failed {
		all = append(all, fmt.Sprintf("%s: %v", gv, err))
	}
	slices.Sort(all)
	return fmt.Errorf("unable to retrieve the complete list of server APIs: %s", strings.Join(all, ", "))
}

// emptyRemote deletes what another server keeps of a kind, and counts what stays.
func (r *remains) emptyRemote(ctx context.Context, t client.Transport, kind remoteKind, namespace string) {
	path := kind.path(namespace)
	fail := func(verb string, err error) {
		if err != nil && !gone(err) {
			r.errs = append(r.errs, fmt.Errorf("%s %s: %w", verb, kind.GroupResource(), err))
		}
	}
	together := kind.can("deletecollection")
	if together {
		err := client.RawDelete(ctx, t, path+"?propagationPolicy=Background")
		if together = !apierrors.IsMethodNotSupported(err); together && err != nil {
			fail("delete", err)
			return
		}
	}
	if !kind.can("list") {
		return
	}
	if !together {
		err := eachRemote(ctx, t, path, func(m *metav1.PartialObjectMetadata) error {
			err := client.RawDelete(ctx, t, path+"/"+m.Name+"?propagationPolicy=Background")
			if gone(err) {
				return nil
			}
			return err
		})
		if err != nil {
			fail("delete", err)
			return
		}
	}
	fail("list", eachRemote(ctx, t, path, func(m *metav1.PartialObjectMetadata) error {
		return r.count(kind.GroupVersionResource, m)
	}))
}

// eachRemote goes through a list, page by page.
func eachRemote(ctx context.Context, t client.Transport, path string, do func(m *metav1.PartialObjectMetadata) error) error {
	next := ""
	for range maxPages {
		raw, err := client.Raw(ctx, t, fmt.Sprintf("%s?limit=%d%s", path, pageSize, next))
		if err != nil {
			return err
		}
		var page metav1.PartialObjectMetadataList
		if err := json.Unmarshal(raw, &page); err != nil {
			return fmt.Errorf("decode %q: %w", path, err)
		}
		for i := range page.Items {
			if err := do(&page.Items[i]); err != nil {
				return err
			}
		}
		if page.Continue == "" {
			return nil
		}
		next = "&continue=" + page.Continue
	}
	return fmt.Errorf("list %q: more than %d pages", path, maxPages)
}
