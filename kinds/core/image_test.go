package core

import (
	"strings"
	"testing"
)

func TestImageTag(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for image, want := range map[string]string{
		"nginx":                         "latest",
		"nginx:1.25":                    "1.25",
		"nginx:latest" + digest:         "latest",
		"nginx" + digest:                "",
		"host:5000/nginx":               "latest",
		"[::1]:5000/a/b:v1":             "v1",
		"a_b.c/d":                       "latest", // no host's name, but a path's part
		"Host/nginx":                    "latest",
		"a--b__c.d/e":                   "latest",
		"":                              "-",
		"Nginx":                         "-",
		"nginx:":                        "-",
		"nginx:a/b":                     "-",
		" nginx":                        "-", //nolint:gocritic // the space is the fault
		"a..b":                          "-",
		"a-":                            "-",
		"a___b":                         "-",
		"nginx@sha256:12":               "-",
		"nginx@md5:" + digest[8:40]:     "-",
		"host:x/nginx":                  "-",
		strings.Repeat("a", 64):         "-",
		strings.Repeat("b", 248):        "-",
		"h.io/" + digest[8:]:            "latest",
		"n:" + strings.Repeat("a", 129): "-",
	} {
		got, ok := imageTag(image)
		if !ok {
			got = "-"
		}
		if got != want {
			t.Errorf("%q: tag is %q, want %q", image, got, want)
		}
	}
}
