package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/layerstore"
)

// Repair is what was done about something that is broken.
type Repair struct {
	What string // a path below the store's root, or an image
	Done string // in a few words, "" when it stays broken
	Err  error  // why it stays broken
}

// RepairStore puts right what a check of the store has found, as far as it can be: indexes are made again, layers of their
// blobs, and what cannot be made is fetched again from where it came. An image that cannot be had again is dropped, unless a
// container uses it. What a container has changed is never dropped. The error is ctx's.
func RepairStore(ctx context.Context, st *layerstore.Store, report layerstore.Report, o PullOptions) ([]Repair, error) {
	r := &repairer{ctx: ctx, st: st, o: o}
	suspects := map[layerstore.Digest]bool{}
	for _, p := range report.Problems {
		switch {
		case p.Image != "":
			suspects[p.Image] = true
		case !strings.HasPrefix(p.Path, containersDir):
			r.file(p)
		}
		if ctx.Err() != nil {
			return r.done, context.Cause(ctx)
		}
	}
	list, err := st.ImageList(ctx)
	if err != nil {
		return r.done, err
	}
	for _, sum := range list {
		if ctx.Err() != nil {
			return r.done, context.Cause(ctx)
		}
		img, err := st.ResolveImage(ctx, string(sum.Manifest))
		if suspects[sum.Manifest] || err != nil || !whole(st, img) {
			r.image(sum)
		}
	}
	for _, p := range report.Problems {
		if strings.HasPrefix(p.Path, containersDir) {
			r.container(p.Path)
		}
	}
	return r.done, ctx.Err()
}

const containersDir = "containers/"

// container sees to a container, whose image may be whole again by now.
func (r *repairer) container(path string) {
	err := r.st.RestoreContainer(strings.TrimPrefix(path, containersDir))
	if err != nil {
		err = fmt.Errorf("%w; what was changed in it is in %s/%s/upper: take it from there before you delete the directory", err, r.st.Root(), path)
	}
	r.note(path, "whole again", err)
}

// repairer is one RepairStore.
type repairer struct {
	ctx  context.Context //nolint:containedctx // one call's
	st   *layerstore.Store
	o    PullOptions
	done []Repair
}

func (r *repairer) note(what, done string, err error) {
	if err != nil {
		done = ""
	}
	r.done = append(r.done, Repair{What: what, Done: done, Err: err})
}

// file sees to a file of the store; images and layers that lack it then are seen to later.
func (r *repairer) file(p layerstore.Problem) {
	name := p.Path[strings.LastIndexByte(p.Path, '/')+1:]
	switch {
	case p.Path == "oci-layout":
		r.note(p.Path, "written again", r.st.RestoreLayout(r.ctx))
	case p.Path == "index.json":
		n, err := r.st.RestoreIndex(r.ctx)
		r.note(p.Path, fmt.Sprintf("made again of the store's manifests: %d images, whose names are lost", n), err)
	case strings.HasSuffix(name, ".idx"):
		d := layerstore.Digest("sha256:" + strings.TrimSuffix(name, ".idx"))
		err := r.st.RebuildIndex(r.ctx, d)
		if errors.Is(err, layerstore.ErrCorrupt) { // the tar is no layer, as a check of its digest tells
			return
		}
		r.note(p.Path, "made again of its tar", err)
	default:
		r.note(p.Path, "dropped", r.st.DropDamaged(r.ctx, p.Path))
	}
}

// image makes an image whole again, or drops it.
func (r *repairer) image(sum layerstore.ImageSummary) {
	what := "image " + short(sum.ID)
	if len(sum.Names) > 0 {
		what = "image " + clean(sum.Names[0])
	}
	if r.restore(sum) {
		r.note(what, "layers made again of their blobs", nil)
		return
	}
	var why error
	for _, from := range sum.RepoDigests {
		o := r.o
		if img, err := r.st.ResolveImage(r.ctx, string(sum.Manifest)); err == nil {
			if cfg, err := parseConfig(img.Config, len(img.Layers)); err == nil {
				o.Platform = cfg.platform.String()
			}
		}
		_, err := Pull(r.ctx, r.st, from, o)
		if err == nil && r.restore(sum) {
			r.note(what, "fetched again from "+clean(from), nil)
			return
		}
		why = err
	}
	if r.ctx.Err() != nil {
		return
	}
	if why == nil {
		why = errors.New("it is not known where it came from")
	}
	if user, err := r.user(sum); err != nil || user != "" {
		r.note(what, "", errors.Join(err, fmt.Errorf("it cannot be fetched again (%s), and container %s uses it: remove that first", clean(why.Error()), user)))
		return
	}
	_, err := r.st.RemoveImage(r.ctx, string(sum.Manifest), layerstore.RemoveOptions{Force: true, NoPrune: true})
	r.note(what, "dropped: it cannot be fetched again ("+clean(why.Error())+")", err)
}

// user names a container of an image, "" if there is none.
func (r *repairer) user(sum layerstore.ImageSummary) (string, error) {
	cs, err := r.st.Containers(r.ctx)
	for _, c := range cs {
		if c.Manifest == sum.Manifest {
			return c.Name, nil
		}
	}
	return "", err
}

// restore makes layers again whose blobs are there, and reports whether the image is whole.
func (r *repairer) restore(sum layerstore.ImageSummary) bool {
	img, err := r.st.ResolveImage(r.ctx, string(sum.Manifest))
	if err != nil {
		return false
	}
	for _, spec := range img.Layers {
		if !r.st.HasLayer(spec) && r.st.RestoreLayer(r.ctx, spec) != nil {
			return false
		}
	}
	return true
}

func whole(st *layerstore.Store, img layerstore.Image) bool {
	return !slices.ContainsFunc(img.Layers, func(s layerstore.LayerSpec) bool { return !st.HasLayer(s) })
}
