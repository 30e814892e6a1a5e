package spec

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// User is who a container's first process is.
type User struct {
	UID, GID uint32
	// Groups are the further groups, the primary one among them.
	Groups []uint32
	Home   string
}

// Accounts are an image's users and groups.
type Accounts struct {
	users  []account
	groups []group
}

type account struct {
	name     string
	uid, gid uint32
	home     string
}

type group struct {
	name    string
	gid     uint32
	members []string
}

// ParseAccounts reads /etc/passwd and /etc/group; lines that make no sense are
// passed over, as libc does.
func ParseAccounts(passwd, groups []byte) Accounts {
	var a Accounts
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 6 {
			continue
		}
		uid, ok1 := number(f[2])
		gid, ok2 := number(f[3])
		if ok1 && ok2 {
			a.users = append(a.users, account{f[0], uid, gid, f[5]})
		}
	}
	for line := range strings.Lines(string(groups)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 {
			continue
		}
		gid, ok := number(f[2])
		if !ok {
			continue
		}
		g := group{name: f[0], gid: gid}
		if len(f) > 3 {
			g.members = strings.Split(f[3], ",")
		}
		a.groups = append(a.groups, g)
	}
	return a
}

// Resolve says who the container runs as: the security context's user, else the
// image's ("name", "uid", "name:group" ...), else root. A name must exist in the
// image, a number need not.
func (a Accounts) Resolve(sc *rt.LinuxContainerSecurityContext, imageUser string) (User, error) {
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "" {
		return User{}, fmt.Errorf("a group to run as needs a user to run as: %w", ErrInvalid)
	}
	name := imageUser
	switch {
	case sc.GetRunAsUser() != nil:
		name = strconv.FormatInt(sc.GetRunAsUser().GetValue(), 10)
	case sc.GetRunAsUsername() != "":
		name = sc.GetRunAsUsername()
	}
	name, groupName, _ := strings.Cut(name, ":")
	if sc.GetRunAsGroup() != nil {
		groupName = strconv.FormatInt(sc.GetRunAsGroup().GetValue(), 10)
	}
	acc, err := a.user(name)
	if err != nil {
		return User{}, err
	}
	if groupName != "" {
		if acc.gid, err = a.group(groupName); err != nil {
			return User{}, err
		}
	}
	u := User{UID: acc.uid, GID: acc.gid, Home: acc.home, Groups: []uint32{acc.gid}}
	if sc.GetSupplementalGroupsPolicy() == rt.SupplementalGroupsPolicy_Merge && acc.name != "" {
		for _, g := range a.groups {
			if slices.Contains(g.members, acc.name) {
				u.addGroup(g.gid)
			}
		}
	}
	for _, g := range sc.GetSupplementalGroups() {
		if g < 0 || g > math.MaxInt32 {
			return User{}, fmt.Errorf("supplemental group %d is out of range: %w", g, ErrInvalid)
		}
		u.addGroup(uint32(g))
	}
	return u, nil
}

func (u *User) addGroup(gid uint32) {
	if !slices.Contains(u.Groups, gid) {
		u.Groups = append(u.Groups, gid)
	}
}

func (a Accounts) user(name string) (account, error) {
	if name == "" {
		name = "0"
	}
	uid, numeric := number(name)
	for _, acc := range a.users {
		if acc.name == name || (numeric && acc.uid == uid) {
			return acc, nil
		}
	}
	if !numeric {
		return account{}, fmt.Errorf("user %q is not in the image's /etc/passwd: %w", name, ErrInvalid)
	}
	home := "/"
	if uid == 0 {
		home = "/root"
	}
	return account{uid: uid, home: home}, nil
}

func (a Accounts) group(name string) (uint32, error) {
	gid, numeric := number(name)
	if numeric {
		return gid, nil
	}
	for _, g := range a.groups {
		if g.name == name {
			return g.gid, nil
		}
	}
	return 0, fmt.Errorf("group %q is not in the image's /etc/group: %w", name, ErrInvalid)
}

// number reads an ID; the kernel keeps the highest one for "unchanged".
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n <= math.MaxInt32
}
