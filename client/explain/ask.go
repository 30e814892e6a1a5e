package explain

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/timeline"
)

// The paths below which a server answers. All want the right to "get" the path.
const (
	DecisionPath = "/sampan/v1/decision"
	TimelinePath = "/sampan/v1/timeline"
	PlacingPath  = "/sampan/v1/placing"
)

// Pulling is the name of the mark of an image that is on its way; it has no end
// and goes when the image has come.
const Pulling = "pulling image"

// maxAnswer bounds one answer in bytes.
const maxAnswer = 4 << 20

// Server asks one API server.
type Server struct {
	// URL is the server's base, Client one that it trusts.
	URL    string
	Client *http.Client
}

// Decision is the scheduler's last decision about a pod; ok is false when it has
// none, which is so for pods of another scheduler and after a restart.
func (s Server) Decision(ctx context.Context, namespace, name string) (d Decision, ok bool, err error) {
	err = s.get(ctx, DecisionPath, url.Values{"namespace": {namespace}, "name": {name}}, &d)
	if apierrors.IsNotFound(err) {
		return d, false, nil
	}
	return d, err == nil, err
}

// Timeline is what is known of an object, by UID, in the order in which it began.
func (s Server) Timeline(ctx context.Context, uid string) (marks []timeline.Mark, err error) {
	err = s.get(ctx, TimelinePath, url.Values{"uid": {uid}}, &marks)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return marks, err
}

// Placing is how a cluster's scheduler was told to work.
type Placing struct {
	// Configuration is the text of the KubeSchedulerConfiguration that it was given;
	// "" when it was given none.
	Configuration string `json:"configuration,omitempty"`
	// Gangs says that the pods of a Workload are placed together.
	Gangs bool `json:"gangs,omitempty"`
}

// Placing is how the server's scheduler was told to work; as by default where the
// server is none of ours.
func (s Server) Placing(ctx context.Context) (p Placing, err error) {
	err = s.get(ctx, PlacingPath, nil, &p)
	if apierrors.IsNotFound(err) {
		return p, nil
	}
	return p, err
}

func (s Server) get(ctx context.Context, path string, query url.Values, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	answer, err := s.Client.Do(r)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return apierrors.NewGenericServerResponse(answer.StatusCode, "get", schema.GroupResource{}, path, string(body), 0, true)
	}
	return json.Unmarshal(body, into)
}
