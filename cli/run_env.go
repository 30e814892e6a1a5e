package cli

import (
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// environment reads --env-file and --env. Unlike a pod's variables, a person's are
// what they are.
func (b *podBuilder) environment() error {
	vars, err := variables(b.flags.env, b.flags.envFiles)
	for _, v := range vars {
		v.Value = literal(v.Value)
		b.c.Env = append(b.c.Env, v)
	}
	return err
}

// variables are those of files, and then those of --env, which count more.
func variables(env, files []string) ([]corev1.EnvVar, error) {
	var lines []string
	for _, file := range files {
		read, err := envLines(file)
		if err != nil {
			return nil, err
		}
		lines = append(lines, read...)
	}
	var vars []corev1.EnvVar
	at := map[string]int{}
	for _, line := range append(lines, env...) {
		name, value, ok := strings.Cut(line, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %q: want NAME=VALUE", line)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		v := corev1.EnvVar{Name: name, Value: value}
		if i, known := at[name]; known {
			vars[i] = v
			continue
		}
		at[name] = len(vars)
		vars = append(vars, v)
	}
	return vars, nil
}

// maxEnvFile bounds an --env-file in bytes.
const maxEnvFile = 1 << 20

// envLines reads a file of NAME=VALUE lines as docker does: # begins a comment
// line, a bare NAME takes its value from here, and nothing is unquoted.
func envLines(file string) ([]string, error) { return namedLines("--env-file", file) }

// namedLines reads such a file, which a flag names.
func namedLines(flag, file string) ([]string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if len(raw) > maxEnvFile {
		return nil, fmt.Errorf("%s %q: more than %d bytes", flag, file, maxEnvFile)
	}
	var lines []string
	for n, line := range strings.Split(strings.TrimPrefix(string(raw), "\ufeff"), "\n") {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%s %s:%d: %q is no name of a variable", flag, file, n+1, name)
		}
		lines = append(lines, line)
	}
	return lines, nil
}
