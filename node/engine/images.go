package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// ListImages lists the images on this node, or the one that the filter names.
func (e *Engine) ListImages(_ context.Context, r *rt.ListImagesRequest) (*rt.ListImagesResponse, error) {
	if ref := r.GetFilter().GetImage().GetImage(); ref != "" {
		img, err := e.images.Get(ref)
		if errors.Is(err, image.ErrNotFound) {
			return &rt.ListImagesResponse{}, nil
		}
		if err != nil {
			return nil, coded(err)
		}
		return &rt.ListImagesResponse{Images: []*rt.Image{imageOf(img)}}, nil
	}
	all, err := e.images.List()
	if err != nil {
		return nil, coded(err)
	}
	out := &rt.ListImagesResponse{}
	for _, img := range all {
		out.Images = append(out.Images, imageOf(img))
	}
	return out, nil
}

// ImageStatus tells what is known of one image; nothing, when it is not here.
func (e *Engine) ImageStatus(_ context.Context, r *rt.ImageStatusRequest) (*rt.ImageStatusResponse, error) {
	img, err := e.images.Get(r.GetImage().GetImage())
	if errors.Is(err, image.ErrNotFound) {
		return &rt.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, coded(err)
	}
	out := &rt.ImageStatusResponse{Image: imageOf(img)}
	if r.GetVerbose() {
		info, err := json.Marshal(map[string]any{"imageSpec": img.Config, "manifest": img.Manifest})
		if err != nil {
			return nil, coded(fmt.Errorf("image %q: encode info: %w", img.ID, err))
		}
		out.Info = map[string]string{"info": string(info)}
	}
	return out, nil
}

// RemoveImage removes an image with all its names, whichever of them is given.
func (e *Engine) RemoveImage(_ context.Context, r *rt.RemoveImageRequest) (*rt.RemoveImageResponse, error) {
	img, err := e.images.Get(r.GetImage().GetImage())
	if err == nil {
		err = e.images.Remove(img.ID)
	}
	if err != nil && !errors.Is(err, image.ErrNotFound) {
		return nil, coded(err)
	}
	return &rt.RemoveImageResponse{}, nil
}

// ImageFsInfo tells how much of their file system images and containers take.
func (e *Engine) ImageFsInfo(context.Context, *rt.ImageFsInfoRequest) (*rt.ImageFsInfoResponse, error) {
	info, err := e.images.FSInfo()
	if err != nil {
		return nil, coded(err)
	}
	fs := []*rt.FilesystemUsage{{
		Timestamp:  time.Now().UnixNano(),
		FsId:       &rt.FilesystemIdentifier{Mountpoint: info.Path},
		UsedBytes:  &rt.UInt64Value{Value: uint64(info.ImageBytes + info.Contents)},
		InodesUsed: &rt.UInt64Value{Value: uint64(info.Inodes - info.InodesFree)},
	}}
	return &rt.ImageFsInfoResponse{ImageFilesystems: fs, ContainerFilesystems: fs}, nil
}

func imageOf(img image.Image) *rt.Image {
	out := &rt.Image{Id: img.ID, RepoTags: slices.Clone(img.Tags), RepoDigests: slices.Clone(img.Digests),
		Size: uint64(max(img.Size, 1)), Spec: &rt.ImageSpec{Image: img.ID}, Pinned: img.Pinned}
	user, _, _ := strings.Cut(img.Config.Config.User, ":")
	if uid, err := strconv.ParseUint(user, 10, 31); err == nil {
		out.Uid = &rt.Int64Value{Value: int64(uid)}
	} else {
		out.Username = user
	}
	return out
}
