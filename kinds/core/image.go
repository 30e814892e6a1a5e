package core

import (
	"strings"
)

// Limits of an image's name: without registry, and of its tag.
const (
	maxImagePath = 255
	maxImageTag  = 128
)

// digestDigits are the digest algorithms and how many hexadecimal digits each has.
var digestDigits = map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}

// imageTag reads an image's reference as upstream's defaults do: its tag, "latest" if
// there is neither tag nor digest. ok is false for what is no reference at all.
func imageTag(image string) (tag string, ok bool) {
	if len(image) == digestDigits["sha256"] && isHex(image) {
		return "", false // an image's ID
	}
	rest, digest, digested := strings.Cut(image, "@")
	if digested && !isDigest(digest) {
		return "", false
	}
	name, tagged := rest, false
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		name, tag, tagged = rest[:colon], rest[colon+1:], true
	}
	switch {
	case tagged && !isTag(tag), !isImageName(name):
		return "", false
	case !tagged && !digested:
		tag = "latest"
	}
	return tag, true
}

// isImageName says whether name is a repository, with or without its registry. What
// stands before the first slash is a registry if it looks like one.
func isImageName(name string) bool {
	first, rest, found := strings.Cut(name, "/")
	if !found {
		return isImagePath("library/" + name)
	}
	if first == "localhost" || strings.ContainsAny(first, ".:") || strings.ToLower(first) != first {
		if (first == "docker.io" || first == "index.docker.io") && !strings.Contains(rest, "/") {
			rest = "library/" + rest
		}
		if isRegistry(first) {
			return isImagePath(rest)
		}
	}
	return isImagePath(name)
}

// isImagePath wants parts of lower-case letters and digits, joined by one dot, one or
// two underscores, or hyphens.
func isImagePath(path string) bool {
	if len(path) > maxImagePath {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if !isImagePart(part) {
			return false
		}
	}
	return true
}

func isImagePart(part string) bool {
	joint := 0 // where the joint that is being read began, after its first character; 0: none
	for i := range len(part) {
		switch c := part[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			if joint > 0 && !isJoint(part[joint-1:i]) {
				return false
			}
			joint = 0
		case (c == '.' || c == '_' || c == '-') && i > 0:
			if joint == 0 {
				joint = i + 1
			}
		default:
			return false
		}
	}
	return part != "" && joint == 0
}

func isJoint(s string) bool {
	return s == "." || s == "_" || s == "__" || strings.Trim(s, "-") == ""
}

// isRegistry wants a host name or an IPv6 address in brackets, and perhaps a port.
func isRegistry(host string) bool {
	if end := strings.IndexByte(host, ']'); strings.HasPrefix(host, "[") && end > 1 {
		address, port := host[1:end], host[end+1:]
		return strings.Trim(address, "0123456789abcdefABCDEF:") == "" && (port == "" || port[0] == ':' && isNumber(port[1:]))
	}
	name, port, found := strings.Cut(host, ":")
	if found && !isNumber(port) {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || !isWord(label, "-") {
			return false
		}
	}
	return true
}

func isTag(tag string) bool {
	return tag != "" && len(tag) <= maxImageTag && tag[0] != '.' && tag[0] != '-' && isWord(tag, "_.-")
}

func isDigest(digest string) bool {
	algorithm, digits, _ := strings.Cut(digest, ":")
	n, known := digestDigits[algorithm]
	return known && len(digits) == n && isHex(digits)
}

// isWord says whether s has nothing but ASCII letters, digits and the characters of
// more.
func isWord(s, more string) bool {
	for i := range len(s) {
		c := s[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}

func isHex(s string) bool    { return strings.Trim(s, "0123456789abcdef") == "" }
func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
