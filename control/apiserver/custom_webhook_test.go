package apiserver

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// conversionWebhook is a real webhook on loopback. Its path says how it behaves:
// /convert moves spec.hostPort to spec.host and spec.port between v1 and v2, the
// others make mistakes.
func conversionWebhook(t *testing.T) *strings.Replacer {
	t.Helper()
	paths := http.NewServeMux()
	paths.HandleFunc("/", convertBoats)
	paths.Handle("/admit/", &admitted{})
	server := httptest.NewTLSServer(paths)
	t.Cleanup(server.Close)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return strings.NewReplacer("WEBHOOK", server.URL, "BUNDLE", base64.StdEncoding.EncodeToString(root))
}

func convertBoats(w http.ResponseWriter, r *http.Request) {
	var review map[string]any
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	request := review["request"].(map[string]any)
	response := map[string]any{"uid": request["uid"], "result": map[string]any{"status": "Success"}}
	switch r.URL.Path {
	case "/down":
		http.Error(w, "not today", http.StatusServiceUnavailable)
		return
	case "/refuse":
		response["result"] = map[string]any{"status": "Failure", "message": "I will not"}
	case "/stranger":
		response["uid"] = "somebody"
	}
	var converted []any
	for _, item := range request["objects"].([]any) {
		obj := item.(map[string]any)
		convertBoat(obj, request["desiredAPIVersion"].(string))
		if r.URL.Path == "/rename" {
			obj["metadata"].(map[string]any)["name"] = "other"
		}
		converted = append(converted, obj)
	}
	response["convertedObjects"] = converted
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response})
}

func convertBoat(obj map[string]any, to string) {
	obj["apiVersion"] = to
	spec, ok := obj["spec"].(map[string]any)
	if !ok {
		return
	}
	if strings.HasSuffix(to, "/v2") {
		if joined, ok := spec["hostPort"].(string); ok {
			spec["host"], spec["port"], _ = strings.Cut(joined, ":")
		}
		delete(spec, "hostPort")
		return
	}
	host, _ := spec["host"].(string)
	port, _ := spec["port"].(string)
	spec["hostPort"] = host + ":" + port
	delete(spec, "host")
	delete(spec, "port")
	labels, _ := obj["metadata"].(map[string]any)["labels"].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
		obj["metadata"].(map[string]any)["labels"] = labels
	}
	labels["converted"] = "yes"
}
