package build

import (
	"fmt"
	"os"
	"path"
)

// checksum stands for everything that the copy reads.
func (c copying) checksum() (string, error) {
	var parts []string
	for _, it := range c.items {
		if it.content != nil {
			parts = append(parts, it.to, *it.content)
			continue
		}
		sum, err := checksum(it.sources)
		if err != nil {
			return "", err
		}
		parts = append(parts, it.to, sum)
	}
	return digestOf(parts...), nil
}

// write puts the files into the layer.
func (c copying) write(w *layerWriter) error {
	for _, dir := range c.parents {
		if err := w.parent(dir, c.owner); err != nil {
			return err
		}
	}
	for _, it := range c.items {
		if err := c.writeItem(w, it); err != nil {
			return err
		}
	}
	return nil
}

func (c copying) writeItem(w *layerWriter, it item) error {
	for _, a := range it.above {
		if w.made[entryName(a.to)] {
			continue
		}
		if err := c.one(w, a.source, a.to, c.owner); err != nil {
			return err
		}
	}
	if it.content != nil {
		if err := c.under.replaceable(it.to, false); err != nil {
			return err
		}
		return w.file(it.to, []byte(*it.content), c.owner)
	}
	if it.archive {
		if err := w.unpack(it.sources[0], it.to, c); err != nil {
			return fmt.Errorf("%q: %w", it.sources[0].path, err)
		}
		return nil
	}
	own := c.owner
	own.links = map[inode]string{}
	if it.mode != 0 && own.mode == nil {
		own.mode = func(os.FileMode, bool) os.FileMode { return it.mode }
	}
	for _, s := range it.sources {
		to := path.Join(it.to, s.below)
		if s.info.IsDir() && (to == "/" || w.made[entryName(to)] || it.merged && s.below == "") {
			continue
		}
		if err := c.one(w, s, to, own); err != nil {
			return err
		}
	}
	return nil
}

// one writes one file, unless what is there is of another kind.
func (c copying) one(w *layerWriter, s source, to string, o owner) error {
	if err := c.under.replaceable(to, s.info.IsDir()); err != nil {
		return err
	}
	if err := w.copy(s, to, o); err != nil {
		return fmt.Errorf("%q: %w", s.path, err)
	}
	return nil
}
