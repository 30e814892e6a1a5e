package client

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
)

// items takes a list apart: pointers into it, not copies. Besides a kind's own
// list type it understands metainternalversion.List, whose items are pointers
// already, so that an in-process transport can hand out what it shares.
func items[T Object](list runtime.Object) ([]T, string, error) {
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, "", fmt.Errorf("read list metadata of %T: %w", list, err)
	}
	all := make([]T, 0, meta.LenList(list))
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		item, err := typed[T](obj, nil)
		if err != nil {
			return err
		}
		all = append(all, item)
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("read items of %T: %w", list, err)
	}
	return all, m.GetResourceVersion(), nil
}
