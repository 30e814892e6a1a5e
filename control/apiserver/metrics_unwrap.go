package apiserver

import "github.com/sampan-dev/sampan/control/store"

// Unwrap is the store that is measured: see store.RevisionNow.
func (t *timedStore) Unwrap() store.Store { return t.Store }
