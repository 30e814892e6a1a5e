package openapi

import (
	"crypto/sha256"
	"encoding/base64"
)

// security is how every operation is asked for, as documents say it.
var security = map[string]any{"BearerToken": map[string]string{
	"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}}

// outcomes are what codes of success are called.
var outcomes = map[string]string{"200": "OK", "201": "Created", "202": "Accepted"}

// common is what both versions of OpenAPI say of an operation.
func (op *operation) common() map[string]any {
	out := map[string]any{"operationId": op.id, "description": op.about, "tags": []string{op.tag}}
	if op.action != "" {
		out["x-kubernetes-action"] = op.action
		out[gvkExtension] = map[string]string{"group": op.gvk.Group, "version": op.gvk.Version, "kind": op.gvk.Kind}
	}
	return out
}

// responses are the answers, each with what content makes of it.
func (op *operation) responses(put func(answer map[string]any)) map[string]any {
	out := map[string]any{"401": map[string]any{"description": "Unauthorized"}}
	for _, code := range append([]string{"200"}, op.codes...) {
		answer := map[string]any{"description": outcomes[code]}
		if op.answer != "" {
			put(answer)
		}
		out[code] = answer
	}
	return out
}

// bodyNeeded: only a deletion may come without.
func (op *operation) bodyNeeded() bool { return op.method != "delete" }

// schemaOf refers to a model at the place where a version of OpenAPI keeps them.
func schemaOf(place, model string) map[string]any {
	if model == textModel {
		return map[string]any{"type": "string"}
	}
	return map[string]any{refKey: place + model}
}

// v2 is the path in OpenAPI v2; parameters that many paths have go to shared, by
// their names there.
func (p *pathItem) v2(shared map[string]any) map[string]any {
	out := map[string]any{}
	if params := v2Parameters(p.params, shared); params != nil {
		out["parameters"] = params
	}
	for i := range p.operations {
		op := &p.operations[i]
		o := op.common()
		var params []any
		if op.body != "" {
			body := map[string]any{"name": "body", "in": "body", "schema": schemaOf(refV2, op.body)}
			if op.bodyNeeded() {
				body["required"] = true
			}
			params = append(params, body)
		}
		if params = append(params, v2Parameters(op.query, shared)...); params != nil {
			o["parameters"] = params
		}
		o["schemes"] = []string{"https"}
		if op.takes != nil {
			o["consumes"] = op.takes
		}
		o["produces"] = op.gives
		o["responses"] = op.responses(func(answer map[string]any) { answer["schema"] = schemaOf(refV2, op.answer) })
		out[op.method] = o
	}
	return out
}

func v2Parameters(params []parameter, shared map[string]any) (out []any) {
	for _, q := range params {
		said := map[string]any{"name": q.name, "in": "query", "type": q.kind, "description": q.about, "uniqueItems": true}
		if q.in != "" {
			said["in"], said["required"] = q.in, true
		}
		if q.in == "path" && q.name == "name" { // of one kind
			out = append(out, said)
			continue
		}
		name := q.sharedName()
		shared[name] = said
		out = append(out, map[string]any{refKey: "#/parameters/" + name})
	}
	return out
}

// sharedName tells a parameter from others of its name by what is said of it.
func (q *parameter) sharedName() string {
	sum := sha256.Sum256([]byte(q.in + "\x00" + q.kind + "\x00" + q.about))
	return q.name + "-" + base64.RawURLEncoding.EncodeToString(sum[:6])
}

// v3 is the path in OpenAPI v3.
func (p *pathItem) v3() map[string]any {
	out := map[string]any{}
	if params := v3Parameters(p.params); params != nil {
		out["parameters"] = params
	}
	for i := range p.operations {
		op := &p.operations[i]
		o := op.common()
		if params := v3Parameters(op.query); params != nil {
			o["parameters"] = params
		}
		if op.body != "" {
			body := map[string]any{"content": content(op.body, op.takes)}
			if op.bodyNeeded() {
				body["required"] = true
			}
			o["requestBody"] = body
		}
		o["responses"] = op.responses(func(answer map[string]any) { answer["content"] = content(op.answer, op.gives) })
		out[op.method] = o
	}
	return out
}

func v3Parameters(params []parameter) (out []any) {
	for _, q := range params {
		said := map[string]any{"name": q.name, "in": "query", "description": q.about, "schema": map[string]any{"type": q.kind, "uniqueItems": true}}
		if q.in != "" {
			said["in"], said["required"] = q.in, true
		}
		out = append(out, said)
	}
	return out
}

func content(model string, media []string) map[string]any {
	out := map[string]any{}
	for _, m := range media {
		out[m] = map[string]any{"schema": schemaOf(refV3, model)}
	}
	return out
}
