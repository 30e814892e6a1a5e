package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// A table of many objects is put together of encodings that the cache shares, as
// lists are: a row's cells, and what it carries of its object. Cells tell ages, so
// they are good for the second in which they were made: nothing that they show is
// finer.

const (
	formRow  = "row"
	formMeta = "metadata/"
)

// rowHead begins a row that is not the first, and rowTail ends the last.
const (
	rowHead = `},{"cells":`
	rowNext = len(`},`)
)

// tableList encodes a page as a table.
func (c *call) tableList(p *page, f form, now time.Time) ([][]byte, error) {
	head, err := c.tableHead(p, f)
	if err != nil {
		return nil, err
	}
	if len(p.items) == 0 {
		return [][]byte{head, []byte("]}\n")}, nil
	}
	items, err := c.ordered(p.items)
	if err != nil {
		return nil, err
	}
	pieces := make([][]byte, 1, 2*len(items)+2)
	pieces[0] = head
	for i, it := range items {
		cells, err := c.rowBytes(it, now)
		if err != nil {
			return nil, err
		}
		carried, err := c.carriedBytes(it, f)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			cells = cells[rowNext:]
		}
		pieces = append(pieces, cells, carried)
	}
	return append(pieces, []byte("}]}\n")), nil
}

// ordered are the items in the order in which the kind's tables show them.
func (c *call) ordered(items []item) ([]item, error) {
	order := c.kind.Table.Order
	if order == nil {
		return items, nil
	}
	objects := make(map[item]kinds.Object, len(items))
	for _, it := range items {
		obj := it.object(c.collection)
		if obj == nil {
			_, err := it.entry.Decode()
			return nil, err
		}
		objects[it] = obj
	}
	return slices.SortedStableFunc(slices.Values(items), func(a, b item) int { return order(objects[a], objects[b]) }), nil
}

// tableHead is all of a table's JSON before its rows.
func (c *call) tableHead(p *page, f form) ([]byte, error) {
	meta, err := json.Marshal(p.meta())
	if err != nil {
		return nil, fmt.Errorf("encode list metadata: %w", err)
	}
	columns, err := json.Marshal(c.columns())
	if err != nil {
		return nil, fmt.Errorf("encode columns: %w", err)
	}
	return fmt.Appendf(nil, `{"kind":"Table","apiVersion":%q,"metadata":%s,"columnDefinitions":%s,"rows":[`,
		metaVersion(f.version), meta, columns), nil
}

// rowBytes is the beginning of an item's row: its cells in JSON, shared.
func (c *collection) rowBytes(it item, now time.Time) ([]byte, error) {
	second := now.Truncate(time.Second)
	return it.entry.EncodedAt(c.formName(formRow), second.Unix(), func(stored runtime.Object) ([]byte, error) {
		obj, err := c.shown(stored)
		if err != nil {
			return nil, err
		}
		return appendCells([]byte(rowHead), c.cells(obj, second))
	})
}

// appendCells appends the cells of a row, and the name of what follows them.
func appendCells(to []byte, cells []any) ([]byte, error) {
	to = append(to, '[')
	for i, cell := range cells {
		if i > 0 {
			to = append(to, ',')
		}
		switch v := cell.(type) {
		case string:
			if plainText(v) {
				to = append(append(append(to, '"'), v...), '"')
				continue
			}
		case int64:
			to = strconv.AppendInt(to, v, 10)
			continue
		}
		data, err := json.Marshal(cell)
		if err != nil {
			return nil, fmt.Errorf("encode a cell: %w", err)
		}
		to = append(to, data...)
	}
	return append(to, `],"object":`...), nil
}

// plainText says that a string is its own JSON, but for the quotes.
func plainText(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case b < ' ' || b >= 0x7f:
			return false
		case b == '"' || b == '\\' || b == '<' || b == '>' || b == '&':
			return false
		}
	}
	return true
}

// carriedBytes is what an item's row carries of its object, in JSON, shared.
func (c *collection) carriedBytes(it item, f form) ([]byte, error) {
	switch f.include {
	case metav1.IncludeNone:
		return []byte("null"), nil
	case metav1.IncludeObject:
		data, err := c.itemBytes(it, mediaJSON, false)
		if err != nil {
			return nil, err
		}
		return data[0], nil
	}
	return c.metaBytes(it, mediaJSON, f.version)
}

// metaList encodes the metadata of a page's objects. Where there are none, upstream's
// slice is nil here, unlike everywhere else.
func (c *call) metaList(p *page, f form) ([][]byte, error) {
	of := metaVersion(f.version).WithKind("PartialObjectMetadataList")
	encoded := func(it item) ([]byte, error) { return c.metaBytes(it, f.media, f.version) }
	switch f.media {
	case mediaProtobuf:
		return protoPieces(of, p, encoded)
	case mediaCBOR:
		pieces, err := cborPieces(of, p, encoded)
		if err == nil && len(p.items) == 0 {
			pieces[0][len(pieces[0])-1] = cborNull
		}
		return pieces, err
	}
	head, err := jsonHead(of, p.meta())
	if err != nil {
		return nil, err
	}
	if len(p.items) == 0 {
		return [][]byte{bytes.TrimSuffix(head, []byte("[")), []byte("null}\n")}, nil
	}
	pieces := make([][]byte, 0, 2*len(p.items)+2)
	pieces = append(pieces, head)
	for i, it := range p.items {
		data, err := encoded(it)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			pieces = append(pieces, comma)
		}
		pieces = append(pieces, data)
	}
	return append(pieces, []byte("]}\n")), nil
}

// metaBytes is an item's metadata as it stands in a list, shared: in protobuf a
// message without envelope, in CBOR without tag.
func (c *collection) metaBytes(it item, m mediaType, version string) ([]byte, error) {
	name := c.formName(formMeta + version + m.String())
	return it.entry.Encoded(name, func(stored runtime.Object) ([]byte, error) {
		obj, err := c.shown(stored)
		if err != nil {
			return nil, err
		}
		part := partial(obj, version)
		switch m {
		case mediaProtobuf:
			return part.Marshal()
		case mediaCBOR:
			data, err := c.server.codec.cbor.Encode(part)
			if err != nil {
				return nil, err
			}
			return data[len(cborTag):], nil
		}
		return json.Marshal(part)
	})
}
