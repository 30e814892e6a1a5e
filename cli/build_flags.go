package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/node/build"
)

// pairs reads NAME=VALUE arguments; a bare NAME takes its value from the
// environment, as docker build does, and is not given when it has none there.
func pairs(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if k == "" {
			return nil, fmt.Errorf("%q: want NAME=VALUE", a)
		}
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				continue
			}
		}
		out[k] = v
	}
	return out, nil
}

// secrets reads --secret id=NAME[,src=FILE|,env=VARIABLE][,type=file|env].
func secrets(args []string) (map[string]build.Secret, error) {
	all := map[string]build.Secret{}
	for _, a := range args {
		fields, err := fieldsOf(a, "id", "src", "source", "env", "type")
		if err != nil || fields["id"] == "" {
			return nil, fmt.Errorf("--secret %q: want id=NAME[,src=FILE|,env=VARIABLE]: %w", a, errors.Join(err))
		}
		id, file, variable := fields["id"], fields["src"]+fields["source"], fields["env"]
		if fields["type"] == "env" && variable == "" {
			variable = file
			file = ""
		}
		if file == "" && variable == "" {
			if _, ok := os.LookupEnv(id); ok && fields["type"] != "file" {
				variable = id
			} else {
				file = id
			}
		}
		if variable == "" {
			if _, err := os.Stat(file); err != nil {
				return nil, fmt.Errorf("--secret %q: %w", a, err)
			}
			all[id] = build.Secret{File: file}
			continue
		}
		value, ok := os.LookupEnv(variable)
		if !ok {
			return nil, fmt.Errorf("--secret %q: the environment has no %s", a, variable)
		}
		all[id] = build.Secret{Value: []byte(value)}
	}
	return all, nil
}

// agents reads --ssh default|ID[=SOCKET|KEY,...]; the default is $SSH_AUTH_SOCK. Of private
// keys, agents of our own are made, until undo.
func agents(args []string) (all map[string]string, undo func() error, err error) {
	var ends []func() error
	undo = func() error {
		var errs []error
		for _, end := range ends {
			errs = append(errs, end())
		}
		return errors.Join(errs...)
	}
	all = map[string]string{}
	for _, a := range args {
		id, paths, ok := strings.Cut(a, "=")
		if !ok {
			paths = os.Getenv("SSH_AUTH_SOCK")
		}
		if paths == "" {
			return nil, undo, fmt.Errorf("--ssh %s: no agent: SSH_AUTH_SOCK is not set", a)
		}
		info, err := os.Stat(paths)
		if err == nil && info.Mode()&os.ModeSocket != 0 {
			all[id] = paths
			continue
		}
		socket, end, err := build.ServeKeys(strings.Split(paths, ","))
		if err != nil {
			return nil, undo, fmt.Errorf("--ssh %s: %w", a, err)
		}
		all[id], ends = socket, append(ends, end)
	}
	return all, undo, nil
}

// commas takes "a=1,b=2" apart; as with docker, quotes keep a part together that has a
// comma in it: "a=1,2".
func commas(text string) ([]string, error) {
	if !strings.Contains(text, `"`) {
		return strings.Split(text, ","), nil
	}
	parts, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	return parts, nil
}

// fieldsOf reads "a=1,b=2" with known names only.
func fieldsOf(text string, known ...string) (map[string]string, error) {
	parts, err := commas(text)
	if err != nil {
		return nil, err
	}
	return fieldsIn(parts, known...)
}

// fieldsIn is fieldsOf of parts.
func fieldsIn(parts []string, known ...string) (map[string]string, error) {
	fields := map[string]string{}
	for _, part := range parts {
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want NAME=VALUE", part)
		}
		found := false
		for _, name := range known {
			found = found || name == k
		}
		if !found {
			return nil, fmt.Errorf("%q is unknown; known are %s", k, strings.Join(known, ", "))
		}
		fields[k] = v
	}
	return fields, nil
}

// epoch reads SOURCE_DATE_EPOCH (reproducible-builds.org).
func epoch() (*time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return nil, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970", text)
	}
	t := time.Unix(seconds, 0)
	return &t, nil
}

// provenance reads --provenance: true, false, or BuildKit's mode=min|max, which
// both have the one statement that there is.
func provenance(text string) (bool, error) {
	if on, err := strconv.ParseBool(text); err == nil {
		return on, nil
	}
	if text == "mode=min" || text == "mode=max" {
		return true, nil
	}
	return false, fmt.Errorf("--provenance=%s: want true or false", text)
}

// hostLines reads --add-host HOST:IP as lines of /etc/hosts.
func hostLines(args []string) (lines []string, err error) {
	for _, a := range args {
		host, ip, ok := strings.Cut(a, "=")
		if !ok {
			host, ip, ok = strings.Cut(a, ":")
		}
		if ip = strings.Trim(ip, "[]"); ip == "host-gateway" { // RUNs are on the machine's own network
			ip = "127.0.0.1"
		}
		if _, e := netip.ParseAddr(ip); !ok || host == "" || e != nil || strings.ContainsAny(host, " \t\n#") {
			return nil, fmt.Errorf("--add-host %q: want HOST:IP", a)
		}
		lines = append(lines, ip+" "+host)
	}
	return lines, nil
}

// cachePlaces reads --cache-from and --cache-to.
func cachePlaces(flag string, args []string) (places []build.CachePlace, err error) {
	for _, a := range args {
		if !strings.Contains(a, "=") {
			if flag == "--cache-to" && a == "inline" || flag == "--cache-from" {
				a = map[bool]string{true: "type=inline", false: "type=registry,ref=" + a}[a == "inline"]
			}
		}
		fields, err := fieldsOf(a, "type", "ref", "src", "dest", "mode", "ignore-error", "compression", "oci-mediatypes", "image-manifest")
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", flag, a, err)
		}
		p := build.CachePlace{Max: fields["mode"] == "max", IgnoreError: fields["ignore-error"] == "true"}
		switch fields["type"] {
		case "registry":
			p.Ref = fields["ref"]
			if p.Ref == "" {
				return nil, fmt.Errorf("%s %q: want ref=IMAGE", flag, a)
			}
		case "local":
			p.Dir = fields["src"] + fields["dest"]
			if p.Dir == "" {
				return nil, fmt.Errorf("%s %q: want src=DIRECTORY to read, dest=DIRECTORY to write", flag, a)
			}
		case "inline":
			if flag == "--cache-from" {
				return nil, fmt.Errorf("%s %q: name the image: type=registry,ref=IMAGE", flag, a)
			}
		default:
			return nil, fmt.Errorf("%s %q: want type=registry, local or inline", flag, a)
		}
		places = append(places, p)
	}
	return places, nil
}
