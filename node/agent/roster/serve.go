package roster

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"

	"github.com/sampan-dev/sampan/node/agent/socket"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// Socket is where the service is found below a kubelet's directory.
const Socket = "pods-api/pods-api.sock"

// Limits of the service: questions and watches at the same time, and the size of one.
const (
	maxStreams = 32
	maxMessage = 64 << 10
)

// Serve answers at the socket at path until ctx ends. It fails when it can't begin.
func (r *Roster) Serve(ctx context.Context, path string) error {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams), grpc.UnaryInterceptor(socket.Limit()))
	podsv1alpha1.RegisterPodsServer(server, &service{roster: r})
	if err := socket.Serve(ctx, path, server); err != nil {
		return fmt.Errorf("pods API: %w", err)
	}
	return nil
}

// service implements podsv1alpha1.PodsServer.
type service struct {
	podsv1alpha1.UnimplementedPodsServer

	roster *Roster
}

// errEarly is upstream's answer while not all who want pods have been heard.
var errEarly = status.Error(codes.FailedPrecondition, "Kubelet is initializing")

// ListPods tells of all pods.
func (s *service) ListPods(context.Context, *podsv1alpha1.ListPodsRequest) (out *podsv1alpha1.ListPodsResponse, err error) {
	defer func() { s.roster.counts.PodsAsked(tally.ListPods, err) }()
	pods, ok := s.roster.list()
	if !ok {
		return nil, errEarly
	}
	out = &podsv1alpha1.ListPodsResponse{}
	for _, p := range pods {
		data, err := encode(p)
		if err != nil {
			return nil, err
		}
		out.Pods = append(out.Pods, data)
	}
	return out, nil
}

// GetPod tells of one pod.
func (s *service) GetPod(_ context.Context, r *podsv1alpha1.GetPodRequest) (out *podsv1alpha1.GetPodResponse, err error) {
	defer func() { s.roster.counts.PodsAsked(tally.GetPod, err) }()
	pod, complete := s.roster.get(types.UID(r.GetPodUID()))
	switch {
	case !complete:
		return nil, errEarly
	case pod == nil:
		return nil, status.Errorf(codes.NotFound, "pod with UID %s not found", r.GetPodUID())
	}
	data, err := encode(pod)
	return &podsv1alpha1.GetPodResponse{Pod: data}, err
}

// WatchPods tells of all pods, that these were all, and then of every change.
func (s *service) WatchPods(_ *podsv1alpha1.WatchPodsRequest, stream grpc.ServerStreamingServer[podsv1alpha1.WatchPodsEvent]) (err error) {
	defer func() { s.roster.counts.PodsAsked(tally.WatchPods, err) }()
	pods, events, stop, ok := s.roster.watch()
	if !ok {
		return errEarly
	}
	defer stop()
	for _, p := range pods {
		data, err := encode(p)
		if err == nil {
			err = stream.Send(&podsv1alpha1.WatchPodsEvent{Type: podsv1alpha1.EventType_ADDED, Pod: data})
		}
		if err != nil {
			return err
		}
	}
	if err := stream.Send(&podsv1alpha1.WatchPodsEvent{Type: podsv1alpha1.EventType_INITIAL_SYNC_COMPLETE}); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return status.Error(codes.ResourceExhausted, "watch client channel closed")
			}
			if err := stream.Send(e); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func encode(pod *corev1.Pod) ([]byte, error) {
	data, err := pod.Marshal()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "failed to marshal pod: %v", err)
	}
	return data, nil
}
