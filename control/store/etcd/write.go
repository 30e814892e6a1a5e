package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sampan-dev/sampan/control/store"
)

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (int64, error) {
	if len(value) > store.MaxValue {
		return 0, fmt.Errorf("create %q with %d bytes: %w", key, len(value), store.ErrTooLarge)
	}
	if err := s.enter(ctx); err != nil {
		return 0, fmt.Errorf("create %q: %w", key, err)
	}
	resp, err := s.put(ctx, key, value, 0, ttl)
	if err != nil {
		return 0, fmt.Errorf("create %q: %w", key, s.kind(ctx, err))
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("create %q: %w", key, store.ErrExists)
	}
	return resp.Header.GetRevision(), nil
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, key string, value []byte, expected int64, ttl time.Duration) (int64, error) {
	if len(value) > store.MaxValue {
		return 0, fmt.Errorf("update %q with %d bytes: %w", key, len(value), store.ErrTooLarge)
	}
	if err := s.enter(ctx); err != nil {
		return 0, fmt.Errorf("update %q: %w", key, err)
	}
	if expected <= 0 {
		// etcd would take revision 0 for "does not exist" and create the key.
		return 0, fmt.Errorf("update %q: expected revision %d: %w", key, expected, store.ErrConflict)
	}
	resp, err := s.put(ctx, key, value, expected, ttl)
	if err != nil {
		return 0, fmt.Errorf("update %q: %w", key, s.kind(ctx, err))
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("update %q: %w", key, refusal(resp, expected))
	}
	return resp.Header.GetRevision(), nil
}

// put writes value if the key is at revision expected (0: does not exist).
func (s *Store) put(ctx context.Context, key string, value []byte, expected int64, ttl time.Duration) (*pb.TxnResponse, error) {
	for attempt := 1; ; attempt++ {
		lease, err := s.leases.get(ctx, ttl)
		if err != nil {
			return nil, err
		}
		resp, err := s.swap(ctx, s.prefix+key, value, expected, lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) && attempt == 1 {
			s.leases.drop(lease) // it ran out under us, as after a long pause
			continue
		}
		return resp, err
	}
}

// swap writes value if the key is at revision expected. To a member in this process
// it says so as that wants it; etcd's client would put it together from parts that it
// copies, and the value too.
func (s *Store) swap(ctx context.Context, key string, value []byte, expected int64, lease clientv3.LeaseID) (*pb.TxnResponse, error) {
	if s.here != nil {
		if key == "" {
			return nil, rpctypes.ErrEmptyKey
		}
		return s.here.swap(swapping([]byte(key), value, expected, lease))
	}
	var opts []clientv3.OpOption
	if lease != clientv3.NoLease {
		opts = append(opts, clientv3.WithLease(lease))
	}
	txn := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", expected)).
		Then(clientv3.OpPut(key, uncopied(value), opts...))
	if expected != 0 {
		txn = txn.Else(clientv3.OpGet(key, clientv3.WithKeysOnly()))
	}
	resp, err := txn.Commit()
	return (*pb.TxnResponse)(resp), err
}

// swapping is swap as etcd's server is asked for it. Neither key nor value is kept.
func swapping(key, value []byte, expected int64, lease clientv3.LeaseID) *pb.TxnRequest {
	s := &swapRequest{
		revision: pb.Compare_ModRevision{ModRevision: expected},
		compare:  pb.Compare{Result: pb.Compare_EQUAL, Target: pb.Compare_MOD, Key: key},
		write:    pb.PutRequest{Key: key, Value: value, Lease: int64(lease)},
	}
	s.compare.TargetUnion = &s.revision
	s.compares[0] = &s.compare
	s.put.RequestPut = &s.write
	s.then.Request = &s.put
	s.success[0] = &s.then
	s.txn.Compare, s.txn.Success = s.compares[:], s.success[:]
	if expected != 0 {
		s.txn.Failure = []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: key, KeysOnly: true},
		}}}
	}
	return &s.txn
}

// swapRequest is a transaction with all that is in it but the read that tells why it
// was refused, in one piece of memory instead of nine.
type swapRequest struct {
	txn      pb.TxnRequest
	compares [1]*pb.Compare
	compare  pb.Compare
	revision pb.Compare_ModRevision
	success  [1]*pb.RequestOp
	then     pb.RequestOp
	put      pb.RequestOp_RequestPut
	write    pb.PutRequest
}

// uncopied is b as a string: a value for etcd's client, which copies it, or a key of
// etcd's. Nobody changes what is written, or was read.
func uncopied(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, expected int64) (int64, error) {
	if err := s.enter(ctx); err != nil {
		return 0, fmt.Errorf("delete %q: %w", key, err)
	}
	if expected == 0 {
		return s.deleteAny(ctx, key)
	}
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(s.prefix+key), "=", expected)).
		Then(clientv3.OpDelete(s.prefix + key)).
		Else(clientv3.OpGet(s.prefix+key, clientv3.WithKeysOnly())).
		Commit()
	if err != nil {
		return 0, fmt.Errorf("delete %q: %w", key, s.kind(ctx, err))
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("delete %q: %w", key, refusal((*pb.TxnResponse)(resp), expected))
	}
	return resp.Header.GetRevision(), nil
}

func (s *Store) deleteAny(ctx context.Context, key string) (int64, error) {
	resp, err := s.client.Delete(ctx, s.prefix+key)
	if err != nil {
		return 0, fmt.Errorf("delete %q: %w", key, s.kind(ctx, err))
	}
	if resp.Deleted == 0 {
		return 0, fmt.Errorf("delete %q: %w", key, store.ErrNotFound)
	}
	return resp.Header.GetRevision(), nil
}

// refusal says why a compare-and-swap did not happen, from what its Else read.
func refusal(resp *pb.TxnResponse, expected int64) error {
	found := resp.Responses[0].GetResponseRange().GetKvs()
	if len(found) == 0 {
		return store.ErrNotFound
	}
	return fmt.Errorf("at revision %d, expected %d: %w", found[0].ModRevision, expected, store.ErrConflict)
}
