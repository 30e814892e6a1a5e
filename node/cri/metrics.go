package cri

import (
	"context"

	"google.golang.org/grpc"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Metrics are the calls about metrics in the form of cAdvisor's, for an agent that
// passes them on as they are (the feature PodAndContainerStatsFromCRI). An Engine
// without them is asked for Stats.
type Metrics interface {
	// ListMetricDescriptors names every metric that ListPodSandboxMetrics may have.
	ListMetricDescriptors(context.Context, *rt.ListMetricDescriptorsRequest) (*rt.ListMetricDescriptorsResponse, error)
	// ListPodSandboxMetrics measures the ready sandboxes and their running containers.
	ListPodSandboxMetrics(context.Context, *rt.ListPodSandboxMetricsRequest) (*rt.ListPodSandboxMetricsResponse, error)
}

// Sampler is an Engine in the same process that measures as Metrics does, but for
// fractions: the CRI has whole numbers alone, and seconds are not.
type Sampler interface {
	// Samples measures the ready sandboxes and their running containers. The labels are
	// named by Metrics' descriptors.
	Samples(context.Context) ([]Sample, error)
}

// Sample is one value of a metric.
type Sample struct {
	Name   string
	Kind   rt.MetricType
	Labels []string
	Value  float64
	// At is when it was measured, in nanoseconds since 1970; 0 for now.
	At int64
}

func (s *runtimeServer) metrics(call string) (Metrics, error) {
	m, ok := s.engine.(Metrics)
	if !ok {
		return nil, Unimplemented(call + ": this engine has no metrics, only stats")
	}
	return m, nil
}

// ListMetricDescriptors serves Metrics.
func (s *runtimeServer) ListMetricDescriptors(ctx context.Context, r *rt.ListMetricDescriptorsRequest) (*rt.ListMetricDescriptorsResponse, error) {
	m, err := s.metrics("ListMetricDescriptors")
	if err != nil {
		return nil, err
	}
	return m.ListMetricDescriptors(ctx, r)
}

// ListPodSandboxMetrics serves Metrics.
func (s *runtimeServer) ListPodSandboxMetrics(ctx context.Context, r *rt.ListPodSandboxMetricsRequest) (*rt.ListPodSandboxMetricsResponse, error) {
	m, err := s.metrics("ListPodSandboxMetrics")
	if err != nil {
		return nil, err
	}
	return m.ListPodSandboxMetrics(ctx, r)
}

// StreamPodSandboxMetrics serves Metrics in pages.
func (s *runtimeServer) StreamPodSandboxMetrics(_ *rt.StreamPodSandboxMetricsRequest, stream grpc.ServerStreamingServer[rt.StreamPodSandboxMetricsResponse]) error {
	list, err := s.ListPodSandboxMetrics(stream.Context(), &rt.ListPodSandboxMetricsRequest{})
	return pages(list.GetPodMetrics(), err, func(page []*rt.PodSandboxMetrics) error {
		return stream.Send(&rt.StreamPodSandboxMetricsResponse{PodSandboxMetrics: page})
	})
}

// ListMetricDescriptors asks the remote engine.
func (r *Remote) ListMetricDescriptors(ctx context.Context, in *rt.ListMetricDescriptorsRequest) (*rt.ListMetricDescriptorsResponse, error) {
	return r.runtime.ListMetricDescriptors(ctx, in)
}

// ListPodSandboxMetrics asks the remote engine.
func (r *Remote) ListPodSandboxMetrics(ctx context.Context, in *rt.ListPodSandboxMetricsRequest) (*rt.ListPodSandboxMetricsResponse, error) {
	return r.runtime.ListPodSandboxMetrics(ctx, in)
}
