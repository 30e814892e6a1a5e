package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// record is what the state directory remembers of an attachment.
type record struct {
	Attachment
	IPs []netip.Addr `json:"ips"`
	// Conflist is the CNI network list that attached the pod; the same one
	// must detach it. Empty: the bridge did.
	Conflist []byte `json:"conflist,omitempty"`
	// Leaving says that traffic no longer gets there, and only the kernel's slow
	// part of the detachment is left to do.
	Leaving bool `json:"leaving,omitempty"`
}

// records are all attachments on file.
func (n *Net) records() ([]record, error) {
	entries, err := os.ReadDir(n.recordIn)
	if err != nil {
		return nil, fmt.Errorf("list network attachments: %w", err)
	}
	var out []record
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !validID.MatchString(id) {
			continue
		}
		rec := record{Attachment: Attachment{ID: id}}
		if err := atomicfile.ReadJSON(n.recordPath(id), &rec); err != nil {
			n.log.Warn("network record is unreadable", "sandbox", id, "error", err)
			rec = record{Attachment: Attachment{ID: id}}
		}
		out = append(out, rec)
	}
	return out, nil
}

// save is not synced: after a reboot no attachment lives anyway.
func (n *Net) save(rec record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(n.recordPath(rec.ID), data, 0o600)
}

func (n *Net) recordPath(id string) string { return filepath.Join(n.recordIn, id+".json") }
