package aggregate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
)

// schemaLife is how long a remote's schemas are kept before they are asked for anew.
const schemaLife = time.Minute

// cachedSchema is what a remote server publishes of the group version in OpenAPI v2.
type cachedSchema struct {
	at   time.Time
	doc  map[string]json.RawMessage
	fail error
}

func (r *remote) dropSchema() {
	r.mu.Lock()
	r.schema = cachedSchema{}
	r.mu.Unlock()
}

// OpenAPI shows, beside what local does, the schemas of remote servers: the index
// of v3 names their group versions, whose documents come from them; v2 holds their
// paths and definitions. Without remotes, local answers alone.
func (a *Aggregator) OpenAPI(local http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, remotes, _ := a.snapshot()
		maps.DeleteFunc(remotes, func(_ string, r *remote) bool { return r.inside != nil }) // local has what they publish
		path := strings.TrimSuffix(r.URL.Path, "/")
		if len(remotes) == 0 || r.Method != http.MethodGet {
			local.ServeHTTP(w, r)
			return
		}
		if rest, ok := strings.CutPrefix(path, "/openapi/v3"); ok && rest != "" {
			if gv, ok := groupVersionOf(rest); ok && remotes[gv.Version+"."+gv.Group] != nil {
				remotes[gv.Version+"."+gv.Group].ServeHTTP(w, r)
				return
			}
			local.ServeHTTP(w, r)
			return
		}
		switch path {
		case "/openapi/v3":
			a.mix(w, r, local, func(doc map[string]json.RawMessage) error { return addIndex(r.Context(), doc, remotes) })
		case "/openapi/v2":
			if strings.Contains(r.Header.Get("Accept"), "protobuf") && !strings.Contains(r.Header.Get("Accept"), "application/json") {
				local.ServeHTTP(w, r) // without the remotes': JSON has them
				return
			}
			r = r.Clone(r.Context())
			r.Header.Set("Accept", "application/json")
			a.mix(w, r, local, func(doc map[string]json.RawMessage) error { return addDefinitions(r.Context(), doc, remotes) })
		default:
			local.ServeHTTP(w, r)
		}
	})
}

// mix changes local's JSON document.
func (a *Aggregator) mix(w http.ResponseWriter, r *http.Request, local http.Handler, change func(map[string]json.RawMessage) error) {
	seen := &recorder{header: http.Header{}, code: http.StatusOK}
	ask := r.Clone(r.Context())
	ask.Header.Del("If-None-Match")
	ask.Header.Del("Accept-Encoding")
	local.ServeHTTP(seen, ask)
	doc := map[string]json.RawMessage{}
	if seen.code != http.StatusOK || json.Unmarshal(seen.body.Bytes(), &doc) != nil {
		local.ServeHTTP(w, r)
		return
	}
	err := change(doc)
	var body []byte
	if err == nil {
		body, err = json.Marshal(doc)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	serve(w, r, merged{body: body, etag: etagOf(body), kind: "application/json"})
}

// addIndex names the remote group versions in the index of v3.
func addIndex(ctx context.Context, doc map[string]json.RawMessage, remotes map[string]*remote) error {
	paths := map[string]json.RawMessage{}
	if err := json.Unmarshal(doc["paths"], &paths); err != nil {
		return fmt.Errorf("decode own schema index: %w", err)
	}
	for _, r := range remotes {
		name := "apis/" + r.gv.Group + "/" + r.gv.Version
		delete(paths, name)
		if !r.available() {
			continue
		}
		if entry, ok := r.indexEntry(ctx, name); ok {
			paths[name] = entry
		}
	}
	var err error
	doc["paths"], err = json.Marshal(paths)
	return err
}

// indexEntry is what the remote's own index says of the group version.
func (r *remote) indexEntry(ctx context.Context, name string) (json.RawMessage, bool) {
	body, _, ok, err := r.get(ctx, "/openapi/v3", "application/json")
	if err != nil || !ok {
		return nil, false
	}
	var index struct {
		Paths map[string]json.RawMessage `json:"paths"`
	}
	if json.Unmarshal(body, &index) != nil {
		return nil, false
	}
	entry, ok := index.Paths[name]
	return entry, ok
}

// addDefinitions adds the remotes' paths, and the definitions that we have not.
func addDefinitions(ctx context.Context, doc map[string]json.RawMessage, remotes map[string]*remote) error {
	paths, definitions := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for name, into := range map[string]*map[string]json.RawMessage{"paths": &paths, "definitions": &definitions} {
		if err := json.Unmarshal(doc[name], into); err != nil {
			return fmt.Errorf("decode own schema: %s: %w", name, err)
		}
	}
	for _, r := range remotes {
		theirs, err := r.v2(ctx)
		if err != nil || theirs == nil {
			continue // a server that is down hides nothing but its own schema
		}
		prefix := "/apis/" + r.gv.Group + "/" + r.gv.Version + "/"
		for path, item := range part(theirs, "paths") {
			if strings.HasPrefix(path+"/", prefix) {
				paths[path] = item
			}
		}
		for name, schema := range part(theirs, "definitions") {
			if _, have := definitions[name]; !have {
				definitions[name] = schema
			}
		}
	}
	var err error
	if doc["paths"], err = json.Marshal(paths); err != nil {
		return err
	}
	doc["definitions"], err = json.Marshal(definitions)
	return err
}

func part(doc map[string]json.RawMessage, name string) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	_ = json.Unmarshal(doc[name], &out) // nothing there: nothing to add
	return out
}

// v2 is the remote's document, kept for a while.
func (r *remote) v2(ctx context.Context) (map[string]json.RawMessage, error) {
	if !r.available() {
		return nil, nil
	}
	r.mu.Lock()
	have := r.schema
	r.mu.Unlock()
	if now := r.owner.cfg.Now(); !have.at.IsZero() && now.Sub(have.at) < schemaLife {
		return have.doc, have.fail
	}
	fresh := cachedSchema{at: r.owner.cfg.Now()}
	body, _, ok, err := r.get(ctx, "/openapi/v2", "application/json")
	switch {
	case err != nil:
		fresh.fail = err
	case ok:
		fresh.fail = json.Unmarshal(body, &fresh.doc)
	}
	r.mu.Lock()
	r.schema = fresh
	r.mu.Unlock()
	return fresh.doc, fresh.fail
}
