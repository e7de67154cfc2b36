package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/plyfs/plyfs/layerstore"
)

const (
	defaultStall = 30 * time.Second
	defaultJobs  = 3
)

// PullOptions are the choices of a pull. Beware of the zero value: it does not verify TLS.
type PullOptions struct {
	// Platform is OS/ARCH[/VARIANT]; "" is linux on this machine's processor.
	Platform string
	// TLSVerify false takes any certificate, and plain http where https does not answer. Registries on 127.0.0.0/8, ::1 and
	// localhost may speak plain http in any case.
	TLSVerify bool
	// Keychain finds credentials; nil is docker's config file, its helpers, or podman's auth.json.
	Keychain authn.Keychain
	// Progress may be nil.
	Progress Progress
	// Retries is how many tries a request has since the last byte that came; 0 is 5.
	Retries int
	// Jobs is how many layers are fetched at once; 0 is 3.
	Jobs int
	// StallTimeout is how long a connection may be silent before it is dropped; 0 is 30 s.
	StallTimeout time.Duration

	sleep func(context.Context, time.Duration) error // tests count instead of waiting
}

func (o PullOptions) withDefaults() PullOptions {
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.Progress == nil {
		o.Progress = noProgress{}
	}
	if o.Retries <= 0 {
		o.Retries = defaultRetries
	}
	if o.Jobs <= 0 {
		o.Jobs = defaultJobs
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = defaultStall
	}
	if o.sleep == nil {
		o.sleep = sleepContext
	}
	return o
}

// puller is one pull.
type puller struct {
	st       *layerstore.Store
	ref      Reference
	platform Platform
	o        PullOptions
	c        *client
	lease    *layerstore.Lease
}

// Pull brings an image from its registry into the store, under its full name; a reference by digest gives it no name but
// a repo digest. What the store has is not fetched, what an earlier pull left half done is carried on. Errors are one line
// each and wrap ErrReference, ErrNoSuchImage, ErrDenied, ErrNoPlatform, ErrUnsupported, ErrRegistry, ErrContent, an error
// of layerstore, or the context's.
func Pull(ctx context.Context, st *layerstore.Store, ref string, o PullOptions) (layerstore.Image, error) {
	r, err := ParseReference(ref)
	if err != nil {
		return layerstore.Image{}, err
	}
	p := &puller{st: st, ref: r, platform: hostPlatform(), o: o.withDefaults()}
	if o.Platform != "" {
		if p.platform, err = ParsePlatform(o.Platform); err != nil {
			return layerstore.Image{}, err
		}
	}
	if p.platform.OS != "linux" {
		return layerstore.Image{}, &kindError{kind: ErrUnsupported, msg: fmt.Sprintf("platform %s: only images of linux are supported", p.platform)}
	}
	img, err := p.pull(ctx)
	if err != nil && ctx.Err() != nil {
		return layerstore.Image{}, fmt.Errorf("pull of %s interrupted; the next one carries on where it ended: %w", r, context.Cause(ctx))
	}
	if errors.Is(err, ErrContent) {
		err = &kindError{kind: ErrContent, msg: err.Error() + ": the image is broken; tell whoever publishes it", cause: err}
	}
	return img, err
}

func (p *puller) newRetrier() *retrier { return &retrier{tries: p.o.Retries, sleep: p.o.sleep} }

func (p *puller) pull(ctx context.Context) (img layerstore.Image, err error) {
	if p.ref.Digest != "" { // a digest stands for the same bytes for good
		if img, ok := p.upToDate(ctx, p.ref.Digest); ok {
			return p.finish(ctx, img, p.ref.Digest)
		}
	}
	if p.c, err = newClient(ctx, p.ref, p.o); err != nil {
		return img, err
	}
	defer p.c.close()
	if err := p.c.connect(ctx, p.newRetrier()); err != nil {
		return img, err
	}
	if p.ref.Digest == "" {
		if _, err := p.st.ResolveImage(ctx, p.ref.String()); err == nil {
			if top, err := p.c.headManifest(ctx); err == nil {
				if img, ok := p.upToDate(ctx, top); ok {
					return p.finish(ctx, img, top)
				}
			}
		}
	}
	return p.fetch(ctx)
}

// upToDate finds the image that the registry calls by this digest, made for the very platform and complete.
func (p *puller) upToDate(ctx context.Context, top digest.Digest) (layerstore.Image, bool) {
	for _, key := range []string{p.ref.storeName(), p.repoDigest(top)} {
		img, err := p.st.ResolveImage(ctx, key)
		if key == "" || err != nil || !slices.Contains(img.RepoDigests, p.repoDigest(top)) {
			continue
		}
		cfg, err := parseConfig(img.Config, len(img.Layers))
		if err != nil || cfg.platform != p.platform {
			continue
		}
		if !slices.ContainsFunc(img.Layers, func(l layerstore.LayerSpec) bool { return !p.st.HasLayer(l) }) {
			return img, true
		}
	}
	return layerstore.Image{}, false
}

func (p *puller) repoDigest(top digest.Digest) string { return p.ref.Name() + "@" + top.String() }

// finish ends a pull that had nothing to fetch.
func (p *puller) finish(ctx context.Context, img layerstore.Image, top digest.Digest) (layerstore.Image, error) {
	var err error
	if name := p.ref.storeName(); name != "" && !slices.Contains(img.Names, name) {
		img, err = p.st.PutImage(ctx, name, img.ManifestBytes, img.MediaType, p.repoDigest(top))
	}
	if err == nil {
		p.o.Progress.Message("Digest: " + top.String())
		p.o.Progress.Message("Status: Image is up to date for " + p.ref.Familiar())
	}
	return img, err
}

func (p *puller) fetch(ctx context.Context) (_ layerstore.Image, err error) {
	if p.lease, err = p.st.Lease(ctx); err != nil {
		return layerstore.Image{}, err
	}
	defer func() { err = p.release(ctx, err) }()
	top, doc, err := p.resolve(ctx)
	if err != nil {
		return layerstore.Image{}, err
	}
	m, err := parseManifest(doc)
	if err != nil {
		return layerstore.Image{}, p.c.about(err)
	}
	if err := p.lease.Pin(doc.digest, m.Config.Digest); err != nil {
		return layerstore.Image{}, err
	}
	raw, cfg, err := p.config(ctx, m)
	if err != nil {
		return layerstore.Image{}, err
	}
	if err := p.layers(ctx, m.Layers, cfg.diffIDs); err != nil {
		return layerstore.Image{}, err
	}
	for _, b := range [][]byte{raw, doc.raw} {
		if _, err := p.st.WriteBlob(b); err != nil {
			return layerstore.Image{}, err
		}
	}
	img, err := p.st.PutImage(ctx, p.ref.storeName(), doc.raw, doc.mediaType, p.repoDigest(top))
	if err != nil {
		return layerstore.Image{}, err
	}
	p.o.Progress.Message("Digest: " + top.String())
	p.o.Progress.Message("Status: Downloaded newer image for " + p.ref.Familiar())
	return img, nil
}

// release ends the pull's lease. After a failure that another try would meet again the store is left as it was; what a
// failure of the network or a user cut short stays for the next pull to carry on from.
func (p *puller) release(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrRegistry) || errors.Is(err, ErrDenied) {
		return errors.Join(err, p.lease.Release())
	}
	if derr := p.lease.Drop(context.WithoutCancel(ctx)); derr != nil {
		logrus.WithError(derr).Warnf("what came of %s stays in the store until an image is removed", p.ref)
	}
	return err
}

// resolve follows the reference to the manifest of the platform; top is the digest that the registry knows the image by.
func (p *puller) resolve(ctx context.Context) (top digest.Digest, doc document, err error) {
	doc, err = p.c.getManifest(ctx, p.newRetrier(), p.ref.identifier(), p.ref.Digest, layerstore.MaxManifestSize)
	top = doc.digest
	if p.ref.Digest == "" && err == nil {
		p.o.Progress.Message(p.ref.Tag + ": Pulling from " + p.ref.FamiliarName())
	}
	for depth := 0; err == nil && doc.isIndex(); depth++ {
		if depth == maxIndexDepth {
			return "", document{}, &kindError{kind: ErrContent, msg: fmt.Sprintf("%s: indexes lie in indexes more than %d deep", p.ref, maxIndexDepth)}
		}
		d, exact, err := choose(doc.raw, p.platform)
		if err != nil {
			return "", document{}, p.c.about(err)
		}
		if !exact {
			p.o.Progress.Message(fmt.Sprintf("No image for %s: taking the one for %s/%s%s, which runs there", p.platform,
				clean(d.Platform.OS), clean(d.Platform.Architecture), clean(d.Platform.Variant)))
		}
		if doc, err = p.manifest(ctx, d); err != nil {
			return "", document{}, err
		}
	}
	return top, doc, err
}

// manifest gets a manifest that an index names, from the store if it is there.
func (p *puller) manifest(ctx context.Context, d ocispec.Descriptor) (document, error) {
	if p.st.HasBlob(d.Digest) {
		if raw, err := p.st.ReadBlob(d.Digest, d.Size); err == nil {
			doc, err := newDocument(raw, d.MediaType)
			return doc, p.c.about(err)
		}
	}
	doc, err := p.c.getManifest(ctx, p.newRetrier(), d.Digest.String(), d.Digest, d.Size)
	if err == nil && int64(len(doc.raw)) != d.Size {
		err = &kindError{kind: ErrContent, msg: fmt.Sprintf("%s: the index gives manifest %s %d bytes, it has %d", p.ref, short(d.Digest), d.Size, len(doc.raw))}
	}
	return doc, err
}

// config gets the image's config and checks that the image can run here.
func (p *puller) config(ctx context.Context, m ocispec.Manifest) (raw []byte, cfg config, err error) {
	if p.st.HasBlob(m.Config.Digest) {
		raw, err = p.st.ReadBlob(m.Config.Digest, m.Config.Size)
	}
	if raw == nil || err != nil {
		if raw, err = p.c.getConfig(ctx, p.newRetrier(), m.Config.Digest, m.Config.Size); err != nil {
			return nil, config{}, err
		}
	}
	if cfg, err = parseConfig(raw, len(m.Layers)); err != nil {
		return nil, config{}, p.c.about(err)
	}
	if cfg.platform.Architecture == "" || slices.Contains(p.platform.fitting(), cfg.platform) {
		return raw, cfg, nil
	}
	if p.o.Platform != "" || cfg.platform.OS != "linux" {
		return nil, config{}, p.c.about(errPlatform(p.platform, []string{clean(cfg.platform.String())}))
	}
	p.o.Progress.Message(fmt.Sprintf("Warning: %s is made for %s, this machine is %s", p.ref, clean(cfg.platform.String()), p.platform))
	return raw, cfg, nil
}

// layers fetches what the store lacks, several at once, the largest first so that the last one to end is short.
func (p *puller) layers(ctx context.Context, ds []ocispec.Descriptor, diffIDs []digest.Digest) error {
	type job struct {
		spec layerstore.LayerSpec
		lp   LayerProgress
	}
	var jobs []job
	pins := slices.Clone(diffIDs)
	seen := map[digest.Digest]digest.Digest{}
	for i, d := range ds {
		if seen[d.Digest] == diffIDs[i] {
			continue
		}
		seen[d.Digest] = diffIDs[i]
		pins = append(pins, d.Digest)
		jobs = append(jobs, job{spec: layerstore.LayerSpec{Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, DiffID: diffIDs[i]}})
	}
	if err := p.lease.Pin(pins...); err != nil {
		return err
	}
	for i, j := range jobs {
		jobs[i].lp = p.o.Progress.Layer(j.spec.Digest, j.spec.Size)
	}
	sort.SliceStable(jobs, func(i, j int) bool { return jobs[i].spec.Size > jobs[j].spec.Size })
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.o.Jobs)
	for _, j := range jobs {
		g.Go(func() error {
			err := p.layer(ctx, j.spec, j.lp)
			j.lp.Done(err)
			return err
		})
	}
	return g.Wait()
}
