package core

import (
	"fmt"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// ResourceQuota is the kind that caps what a namespace may use.
func ResourceQuota() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("ResourceQuota"),
		Resource:   "resourcequotas",
		Singular:   "resourcequota",
		Short:      []string{"quota"},
		Namespaced: true,
		Storage:    "resourcequotas",
		New:        func() kinds.Object { return &corev1.ResourceQuota{} },
		NewList:    func() runtime.Object { return &corev1.ResourceQuotaList{} },
		Strategy: kinds.Strategy{
			ReturnsDeleted: true,
			Default:        kinds.Each(defaultQuota),
			PrepareCreate:  kinds.Each(func(q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} }),
			PrepareUpdate:  kinds.Pair(func(q, old *corev1.ResourceQuota) { q.Status = old.Status }),
			Validate:       kinds.Check(validateQuota),
			ValidateUpdate: kinds.CheckUpdate(validateQuotaUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(resourceQuotaTexts(), "Name", "Request", "Limit", "Age"),
			Row:     kinds.Row(quotaRow),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *corev1.ResourceQuota) { next.Status = body.Status }, validateQuotaStatus),
		},
	}
}

func defaultQuota(q *corev1.ResourceQuota) {
	for _, list := range []corev1.ResourceList{q.Spec.Hard, q.Status.Hard, q.Status.Used} {
		roundResources(list)
	}
}

func quotaRow(q *corev1.ResourceQuota, now time.Time) []any {
	names := make([]string, 0, len(q.Status.Hard))
	for name := range q.Status.Hard {
		names = append(names, string(name))
	}
	sort.Strings(names)
	var requests, limits []string
	for _, name := range names {
		used, hard := q.Status.Used[corev1.ResourceName(name)], q.Status.Hard[corev1.ResourceName(name)]
		cell := fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String())
		if strings.HasPrefix(name, "limits.") {
			limits = append(limits, cell)
			continue
		}
		requests = append(requests, cell)
	}
	return []any{q.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), kinds.Created(q, now)}
}
