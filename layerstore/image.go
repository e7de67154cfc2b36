package layerstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// PutImage adds an image whose config blob and layers are all in the store, and writes its manifest exactly as given. name
// is a full reference, or "" for none; the image that had it keeps its content without the name. repoDigest, "" for
// none, is remembered as one of Image.RepoDigests. Errors: ErrInvalid and ErrTooLarge for a manifest or config that
// breaks its format or does not fit the other; ErrNotFound naming what lacks; ErrNoSpace, ErrNotWritable, ctx's.
func (s *Store) PutImage(ctx context.Context, name string, manifest []byte, mediaType, repoDigest string) (Image, error) {
	for _, ref := range []string{name, repoDigest} {
		if ref != "" {
			if err := checkRef(ref); err != nil {
				return Image{}, err
			}
		}
	}
	m, err := parseManifest(manifest, mediaType)
	if err != nil {
		return Image{}, err
	}
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return Image{}, err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	configBytes, err := s.ReadBlob(m.Config.Digest, MaxConfigSize)
	if err != nil {
		return Image{}, fmt.Errorf("image config: %w", err)
	}
	img, err := newImage(manifest, configBytes, mediaType)
	if err != nil {
		return Image{}, err
	}
	for i, spec := range img.Layers {
		if !s.HasLayer(spec) {
			return Image{}, fmt.Errorf("layer %d of the image (%s): %w in %s: pull it again", i+1, spec.Digest, ErrNotFound, s.root)
		}
	}
	img.Size = s.unpackedSize(img)
	if err := s.writeBlobLocked(img.Manifest, manifest); err != nil {
		return Image{}, err
	}
	ix, err := s.readIndex()
	if err != nil {
		return Image{}, err
	}
	desc, err := s.describeManifest(img)
	if err != nil {
		return Image{}, err
	}
	e := ix.put(img, desc)
	if name != "" {
		ix.setName(e, name)
	}
	if repoDigest != "" {
		e.repoDigests = addSorted(e.repoDigests, repoDigest)
	}
	img.Names, img.RepoDigests = slices.Clone(e.names), slices.Clone(e.repoDigests)
	return img, s.writeIndex(ix)
}

// describeManifest returns the descriptor by which index.json lists the image: of its manifest, or of the OCI one made for
// a Docker one, which it stores.
func (s *Store) describeManifest(img Image) (v1.Descriptor, error) {
	desc := v1.Descriptor{MediaType: img.MediaType, Digest: img.Manifest, Size: int64(len(img.ManifestBytes))}
	if img.MediaType == v1.MediaTypeImageManifest {
		return desc, nil
	}
	b, err := img.OCIManifest()
	if err != nil {
		return desc, err
	}
	desc = v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return desc, s.writeBlobLocked(desc.Digest, b)
}

// put returns the entry of the image's manifest, a new one if there is none.
func (ix *index) put(img Image, desc v1.Descriptor) *entry {
	e := ix.find(img.Manifest)
	if e == nil {
		e = &entry{manifest: img.Manifest}
		ix.entries = append(ix.entries, e)
	}
	desc.Annotations = e.desc.Annotations
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	e.desc = desc
	if desc.Digest != img.Manifest {
		e.desc.Annotations[annotationManifest] = string(img.Manifest)
	}
	e.desc.Annotations[annotationID] = string(img.ID)
	e.desc.Annotations[annotationSize] = strconv.FormatInt(img.Size, 10)
	if !img.Created.IsZero() {
		e.desc.Annotations[v1.AnnotationCreated] = img.Created.Format(time.RFC3339Nano)
	}
	return e
}

func (s *Store) unpackedSize(img Image) int64 {
	var sum int64
	for _, spec := range img.Layers {
		size, _ := isRegular(s.path(dirLayers, spec.DiffID.Encoded()+suffixTar))
		sum += size
	}
	return sum
}

// TagImage gives the image that nameOrID stands for one more name, a full reference. Errors: those of ResolveImage and
// PutImage.
func (s *Store) TagImage(ctx context.Context, nameOrID, name string) error {
	if err := checkRef(name); err != nil {
		return err
	}
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	ix, err := s.readIndex()
	if err != nil {
		return err
	}
	found, err := s.match(ix, nameOrID)
	if err != nil {
		return err
	}
	ix.setName(found[0], name)
	return s.writeIndex(ix)
}

// load reads an image that index.json lists.
func (s *Store) load(e *entry) (Image, error) {
	b, err := s.ReadBlob(e.manifest, MaxManifestSize)
	if err != nil {
		return Image{}, err
	}
	mediaType := e.desc.MediaType
	if mediaType == "" || e.manifest != e.desc.Digest {
		mediaType = manifestMediaType(b)
	}
	m, err := parseManifest(b, mediaType)
	if err != nil {
		return Image{}, err
	}
	c, err := s.ReadBlob(m.Config.Digest, MaxConfigSize)
	if err != nil {
		return Image{}, err
	}
	img, err := newImage(b, c, mediaType)
	if err != nil {
		return Image{}, err
	}
	img.Names, img.RepoDigests, img.Parent = slices.Clone(e.names), slices.Clone(e.repoDigests), e.parent()
	if t, err := time.Parse(time.RFC3339Nano, e.desc.Annotations[annotationTagged]); err == nil {
		img.Tagged = t
	}
	if img.Size, err = strconv.ParseInt(e.desc.Annotations[annotationSize], 10, 64); err != nil {
		img.Size = s.unpackedSize(img)
	}
	return img, nil
}

// Images lists the images, newest first. It takes no lock. An image that cannot be read is left out and logged; one that
// is removed meanwhile is left out.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	images := make([]Image, 0, len(ix.entries))
	for _, e := range ix.entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, err := s.load(e)
		if errors.Is(err, ErrInvalid) && !s.ours(e) {
			continue // a manifest that another tool put there, of something that is no image here
		}
		if err != nil {
			if now, rerr := s.readIndex(); rerr == nil && now.find(e.manifest) != nil {
				s.log.Warnf("image %s cannot be read, pull it again or remove it: %v", displayName(e), err)
			}
			continue
		}
		images = append(images, img)
	}
	slices.SortStableFunc(images, func(a, b Image) int { return b.Created.Compare(a.Created) })
	return images, nil
}

// ImageList lists the images as Images does, without reading more of them than index.json says. An image whose blobs are
// damaged or gone is listed too.
func (s *Store) ImageList(ctx context.Context) ([]ImageSummary, error) {
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	list := make([]ImageSummary, 0, len(ix.entries))
	children := map[Digest]bool{}
	for _, e := range ix.entries {
		children[e.parent()] = true
	}
	for _, e := range ix.entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if sum, ok := s.summarize(e); ok {
			sum.HasChildren = children[sum.ID]
			list = append(list, sum)
		}
	}
	slices.SortStableFunc(list, func(a, b ImageSummary) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// summarize tells of an entry what a list shows; false if it is no image.
func (s *Store) summarize(e *entry) (ImageSummary, bool) {
	if sum, ok := e.summary(); ok {
		return sum, true
	}
	img, err := s.load(e) // another tool's
	return ImageSummary{ID: img.ID, Manifest: img.Manifest, Names: img.Names, RepoDigests: img.RepoDigests, Created: img.Created, Size: img.Size}, err == nil
}

// summary is what PutImage wrote into index.json; false for the entry of another tool.
func (e *entry) summary() (ImageSummary, bool) {
	sum := ImageSummary{
		ID: Digest(e.desc.Annotations[annotationID]), Manifest: e.manifest, Names: e.names, RepoDigests: e.repoDigests, Parent: e.parent(),
	}
	if _, err := hexOf(sum.ID); err != nil {
		return sum, false
	}
	var err error
	if sum.Size, err = strconv.ParseInt(e.desc.Annotations[annotationSize], 10, 64); err != nil || sum.Size < 0 {
		return sum, false
	}
	if created := e.desc.Annotations[v1.AnnotationCreated]; created != "" {
		sum.Created, err = time.Parse(time.RFC3339Nano, created)
	}
	return sum, err == nil
}

// ours reports whether PutImage made the entry.
func (s *Store) ours(e *entry) bool { return e.desc.Annotations[annotationID] != "" }

func displayName(e *entry) string {
	if len(e.names) > 0 {
		return e.names[0]
	}
	return string(e.manifest)
}

// ResolveImage finds the image that a full reference, a repo digest ("name@sha256:…"), the digest of a manifest or a
// config, or the beginning of an image ID (with or without "sha256:") stands for. Errors: ErrNotFound, ErrAmbiguous, those
// of reading the image.
func (s *Store) ResolveImage(ctx context.Context, nameOrID string) (Image, error) {
	for {
		ix, err := s.readIndex()
		if err != nil {
			return Image{}, err
		}
		found, err := s.match(ix, nameOrID)
		if err != nil {
			return Image{}, err
		}
		img, err := s.load(found[0])
		if err == nil || ctx.Err() != nil {
			return img, firstError(err, ctx.Err())
		}
		if now, rerr := s.readIndex(); rerr != nil || now.find(found[0].manifest) != nil {
			return Image{}, fmt.Errorf("image %s: %w", nameOrID, err)
		}
	}
}

// match finds what nameOrID stands for: one entry by name or manifest, all manifests of one config by ID, those with names
// first.
func (s *Store) match(ix *index, nameOrID string) ([]*entry, error) {
	if e := ix.named(nameOrID); e != nil {
		return []*entry{e}, nil
	}
	if d := digest.Digest(nameOrID); strings.HasPrefix(nameOrID, "sha256:") && ix.find(d) != nil {
		return []*entry{ix.find(d)}, nil
	}
	var found []*entry
	for _, e := range ix.entries {
		if slices.Contains(e.repoDigests, nameOrID) {
			found = append(found, e)
		}
	}
	if len(found) > 0 {
		return sortNamedFirst(found), nil
	}
	prefix := strings.TrimPrefix(nameOrID, "sha256:")
	if len(prefix) > 64 || !isHex(prefix, len(prefix)) || prefix == "" {
		return nil, fmt.Errorf("image %.200q: %w in %s", nameOrID, ErrNotFound, s.root)
	}
	var id string
	for _, e := range ix.entries {
		got := e.desc.Annotations[annotationID]
		if !strings.HasPrefix(strings.TrimPrefix(got, "sha256:"), prefix) {
			continue
		}
		if id != "" && got != id {
			return nil, fmt.Errorf("image ID %s: %w: it begins %.19s and %.19s: give more digits", nameOrID, ErrAmbiguous, id, got)
		}
		id = got
		found = append(found, e)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("image %.200q: %w in %s", nameOrID, ErrNotFound, s.root)
	}
	return sortNamedFirst(found), nil
}

func sortNamedFirst(es []*entry) []*entry {
	slices.SortStableFunc(es, func(a, b *entry) int { return min(len(b.names), 1) - min(len(a.names), 1) })
	return es
}
