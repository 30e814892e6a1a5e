package storetest

import (
	"bytes"
	"fmt"

	"github.com/sampan-dev/sampan/control/store"
)

func write(e *exam) {
	start, err := e.s.Revision(e.ctx)
	if err != nil {
		e.Fatal(err)
	}
	created := e.create("/a/x", "1")
	if created != start+1 {
		e.Errorf("the first write of a store at %d has revision %d", start, created)
	}
	entry, now := e.get("/a/x")
	if string(entry.Value) != "1" || entry.Revision != created || entry.Created != created || now != created {
		e.Errorf("created at %d, got %+v at %d", created, entry, now)
	}
	updated := e.update("/a/x", "2", created)
	if updated != created+1 {
		e.Errorf("update has revision %d, want %d", updated, created+1)
	}
	entry, _ = e.get("/a/x")
	if string(entry.Value) != "2" || entry.Revision != updated || entry.Created != created {
		e.Errorf("updated at %d, got %+v", updated, entry)
	}
	if deleted := e.delete("/a/x", updated); deleted != updated+1 {
		e.Errorf("delete has revision %d, want %d", deleted, updated+1)
	}
	_, now, err = e.s.Get(e.ctx, "/a/x")
	e.fails(err, store.ErrNotFound)
	if now != updated+1 {
		e.Errorf("a missed get tells revision %d, want %d", now, updated+1)
	}
	again := e.create("/a/x", "3")
	if entry, _ = e.get("/a/x"); entry.Created != again {
		e.Errorf("created again at %d, got %+v", again, entry)
	}
	e.delete("/a/x", 0)
}

func writeRefused(e *exam) {
	first := e.create("/a/x", "1")
	second := e.update("/a/x", "2", first)
	_, err := e.s.Create(e.ctx, "/a/x", []byte("3"), 0)
	e.fails(err, store.ErrExists)
	_, err = e.s.Update(e.ctx, "/a/x", []byte("3"), first, 0)
	e.fails(err, store.ErrConflict)
	_, err = e.s.Update(e.ctx, "/a/none", []byte("3"), first, 0)
	e.fails(err, store.ErrNotFound)
	_, err = e.s.Delete(e.ctx, "/a/x", first)
	e.fails(err, store.ErrConflict)
	_, err = e.s.Delete(e.ctx, "/a/none", first)
	e.fails(err, store.ErrNotFound)
	_, err = e.s.Delete(e.ctx, "/a/none", 0)
	e.fails(err, store.ErrNotFound)
	if entry, now := e.get("/a/x"); string(entry.Value) != "2" || now != second {
		e.Errorf("refused writes left %+v at %d, want 2 at %d", entry, now, second)
	}
}

func list(e *exam) {
	for _, key := range []string{"/a/y", "/ab", "/a/x/2", "/a/x", "/a/", "/b"} {
		e.create(key, key[1:])
	}
	listing := e.list("/a/", store.ListOptions{})
	if got, want := told(listing.Entries), "/a/=a/@6 /a/x=a/x@5 /a/x/2=a/x/2@4 /a/y=a/y@2"; got != want {
		e.Errorf("listed %s\nwant   %s", got, want)
	}
	if listing.Revision != 7 || listing.More || listing.Remaining != 0 {
		e.Errorf("listing of all at 7 says %d, %v, %d", listing.Revision, listing.More, listing.Remaining)
	}
	if empty := e.list("/c/", store.ListOptions{}); len(empty.Entries) != 0 || empty.Revision != 7 {
		e.Errorf("empty listing: %+v", empty)
	}
}

func listPages(e *exam) {
	const keys = 7
	for i := range keys {
		e.create(fmt.Sprintf("/a/%d", i), "")
	}
	e.create("/b/0", "")
	at := e.list("/a/", store.ListOptions{}).Revision
	e.delete("/a/3", 0)
	var all []store.Entry
	for from := ""; ; {
		page := e.list("/a/", store.ListOptions{From: from, Limit: 3, Revision: at})
		all = append(all, page.Entries...)
		if page.Revision != at || page.More != (len(all) < keys) || page.Remaining != int64(keys-len(all)) {
			e.Fatalf("after %d of %d: %+v", len(all), keys, page)
		}
		if !page.More {
			break
		}
		from = page.Entries[len(page.Entries)-1].Key + "\x00"
	}
	if len(all) != keys {
		e.Errorf("paged %s", told(all))
	}
	if page := e.list("/a/", store.ListOptions{From: "/a/55"}); told(page.Entries) != "/a/6=@8" {
		e.Errorf("from /a/55: %s", told(page.Entries))
	}
	if page := e.list("/a/", store.ListOptions{From: "/"}); len(page.Entries) != keys-1 {
		e.Errorf("from before the prefix: %s", told(page.Entries))
	}
	if page := e.list("/a/", store.ListOptions{From: "/b"}); len(page.Entries) != 0 || page.More {
		e.Errorf("from behind the prefix: %+v", page)
	}
}

func listPast(e *exam) {
	x := e.create("/a/x", "1")
	x = e.update("/a/x", "2", x)
	e.create("/a/y", "1")
	e.delete("/a/x", x)
	e.create("/a/x", "3")
	for revision, want := range map[int64]string{
		1: "",
		2: "/a/x=1@2",
		3: "/a/x=2@3",
		4: "/a/x=2@3 /a/y=1@4",
		5: "/a/y=1@4",
		6: "/a/x=3@6 /a/y=1@4",
	} {
		listing := e.list("/a/", store.ListOptions{Revision: revision})
		if got := told(listing.Entries); got != want || listing.Revision != revision {
			e.Errorf("at %d listed %q at %d, want %q", revision, got, listing.Revision, want)
		}
	}
	_, err := e.s.List(e.ctx, "/a/", store.ListOptions{Revision: 7})
	e.fails(err, store.ErrFuture)
}

func large(e *exam) {
	value := bytes.Repeat([]byte{7}, store.MaxValue)
	rev, err := e.s.Create(e.ctx, "/a/large", value, 0)
	if err != nil {
		e.Fatal(err)
	}
	if entry, _ := e.get("/a/large"); !bytes.Equal(entry.Value, value) {
		e.Error("the largest value comes back changed")
	}
	value = append(value, 7)
	_, err = e.s.Create(e.ctx, "/a/larger", value, 0)
	e.fails(err, store.ErrTooLarge)
	_, err = e.s.Update(e.ctx, "/a/large", value, rev, 0)
	e.fails(err, store.ErrTooLarge)
	rev = e.update("/a/large", "", rev)
	if entry, _ := e.get("/a/large"); len(entry.Value) != 0 || entry.Revision != rev {
		e.Errorf("the empty value comes back as %d bytes", len(entry.Value))
	}
}
