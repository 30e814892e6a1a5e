package build

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sampan-dev/sampan/node/image"
)

// Account is a user and a group, by number.
type Account struct{ UID, GID int }

// AccountOf looks up "USER[:GROUP]", names or numbers, in the /etc/passwd and
// /etc/group of an image that is here. Without GROUP it is the user's own; a
// number without a name has group 0, as the image specification wants it.
func AccountOf(ctx context.Context, images *image.Store, img image.Image, who string) (a Account, err error) {
	content, err := images.NewBuild()
	if err != nil {
		return Account{}, err
	}
	defer content.Close()
	v, err := (&builder{content: content}).view(ctx, layersOf(img))
	if err != nil {
		return Account{}, err
	}
	if v.Root != nil {
		defer func() { err = errors.Join(err, v.Close()) }()
	}
	name, group, _ := strings.Cut(who, ":")
	if a.UID, a.GID, err = v.user(name); err != nil {
		return Account{}, fmt.Errorf("user %w", err)
	}
	if number(name) {
		a.GID = 0
	}
	if group != "" {
		if a.GID, err = v.group(group); err != nil {
			return Account{}, fmt.Errorf("group %w", err)
		}
	}
	return a, nil
}

// number says whether a text is one.
func number(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
