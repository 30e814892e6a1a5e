package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// starts is how often a cluster is started from nothing.
const starts = 5

// start measures cold starts on empty data directories.
func start(ctx context.Context) ([]row, error) {
	var api, ready []time.Duration
	for range starts {
		c, err := up(ctx)
		if err != nil {
			return nil, err
		}
		api, ready = append(api, c.took["API server"]), append(ready, c.took["ready"])
		if err := c.down(ctx); err != nil {
			return nil, err
		}
	}
	return []row{
		{"cold start: API ready", spread(api), "<= 500 ms"},
		{"cold start: node Ready", spread(ready), "<= 1 s"},
	}, nil
}

// spread shows the median and the worst of several runs.
func spread(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("%d ms median, %d ms worst of %d", d[len(d)/2].Milliseconds(), d[len(d)-1].Milliseconds(), len(d))
}
