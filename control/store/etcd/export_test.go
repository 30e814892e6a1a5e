package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// LeaseCount is how many leases the server has.
func (s *Store) LeaseCount(ctx context.Context) (int, error) {
	resp, err := s.client.Leases(ctx)
	if err != nil {
		return 0, err
	}
	return len(resp.Leases), nil
}

// Client is the client below the store, for comparison.
func (s *Store) Client() *clientv3.Client { return s.client }

// Commit brings all that has been acknowledged into the database.
func (s *Server) Commit() { s.etcd.Backend().ForceCommit() }
