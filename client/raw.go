package client

import (
	"context"
	"errors"
)

// Raw gets a path below /api or /apis, with its query, as JSON: for what has no
// Resource, as group versions that other servers answer for. Both transports can;
// one that wraps them may not, which is an error. A refusal is an API status.
func Raw(ctx context.Context, t Transport, path string) ([]byte, error) {
	r, ok := t.(interface {
		Raw(ctx context.Context, path string) ([]byte, error)
	})
	if !ok {
		return nil, errors.New("this connection gives no documents")
	}
	return r.Raw(ctx, path)
}

// RawDelete deletes what a path names, as Raw gets it.
func RawDelete(ctx context.Context, t Transport, path string) error {
	r, ok := t.(interface {
		RawDelete(ctx context.Context, path string) error
	})
	if !ok {
		return errors.New("this connection deletes nothing by its path")
	}
	return r.RawDelete(ctx, path)
}

// RawDelete implements what the function RawDelete asks for.
func (h *httpTransport) RawDelete(ctx context.Context, path string) error {
	c, err := h.client(optionsVersion)
	if err != nil {
		return err
	}
	return c.Delete().RequestURI(path).SetHeader("Accept", contentJSON).Do(ctx).Error()
}

// Raw implements what the function Raw asks for.
func (h *httpTransport) Raw(ctx context.Context, path string) ([]byte, error) {
	c, err := h.client(optionsVersion)
	if err != nil {
		return nil, err
	}
	answer := c.Get().RequestURI(path).SetHeader("Accept", contentJSON).Do(ctx)
	if err := answer.Error(); err != nil { // it reads the status that was sent, which Raw does not
		return nil, err
	}
	return answer.Raw()
}
