package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// ImportOptions are the choices of an import.
type ImportOptions struct {
	Name     string    // the image's, "" for none
	Changes  []string  // instructions of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
	Message  string    // the comment of the history; "" is "Imported from SOURCE"
	Source   string    // where the tar comes from, for people
	Platform string    // OS/ARCH[/VARIANT]; "" is linux on this machine's processor
	Created  time.Time // zero is now
}

// importedConfig is the config of an image, with docker's fields.
type importedConfig struct {
	Created *time.Time `json:"created"`
	ocispec.Platform
	Config  runConfig         `json:"config"`
	RootFS  ocispec.RootFS    `json:"rootfs"`
	History []ocispec.History `json:"history"`
}

// Import makes an image of one layer of a tar of a root filesystem, which r reads to its end; it may be compressed with gzip,
// zstd, xz or bzip2. Nothing is read before the choices are found to be sound. Errors: ErrReference, ErrChange; ErrCorrupt of
// layerstore and ErrArchive for what is no such tar, ErrTooLarge; those of layerstore, r and ctx.
func Import(ctx context.Context, st *layerstore.Store, r io.Reader, o ImportOptions) (digest.Digest, error) {
	name, cfg, err := o.config()
	if err != nil {
		return "", err
	}
	lease, err := st.Lease(ctx)
	if err != nil {
		return "", err
	}
	id, err := importTar(ctx, st, lease, r, name, cfg)
	if err != nil { // of which nothing is worth keeping
		return "", errors.Join(err, lease.Drop(context.WithoutCancel(ctx)))
	}
	return id, lease.Release()
}

// config is what the image will be, but for its layer.
func (o *ImportOptions) config() (name string, cfg importedConfig, err error) {
	if o.Name != "" {
		ref, err := ParseReference(o.Name)
		if err != nil {
			return "", cfg, err
		}
		if ref.Digest != "" {
			return "", cfg, &kindError{kind: ErrReference, msg: fmt.Sprintf("%s: an image is named by a tag, not by a digest", clean(o.Name))}
		}
		name = ref.String()
	}
	p := hostPlatform()
	if o.Platform != "" {
		if p, err = ParsePlatform(o.Platform); err != nil {
			return "", cfg, err
		}
	}
	cfg.Platform = ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
	if err := applyChanges(&cfg.Config, o.Changes); err != nil {
		return "", cfg, err
	}
	created := o.Created
	if created.IsZero() {
		created = time.Now()
	}
	created = created.UTC()
	comment := o.Message
	if comment == "" {
		comment = "Imported from " + clean(o.Source)
	}
	cfg.Created = &created
	cfg.History = []ocispec.History{{Created: &created, Comment: comment}}
	return name, cfg, nil
}

func importTar(ctx context.Context, st *layerstore.Store, lease *layerstore.Lease, r io.Reader, name string, cfg importedConfig) (digest.Digest, error) {
	u, err := newUnpacker(&ctxReader{ctx, r})
	if err != nil {
		return "", err
	}
	defer u.Close() //nolint:errcheck // it holds memory only
	spec, err := st.ImportLayer(ctx, lease, u, layerstore.ImportOptions{})
	if err != nil {
		return "", err
	}
	cfg.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{spec.DiffID}}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return "", err
	}
	doc, err := newManifest(raw, []ocispec.Descriptor{{MediaType: spec.MediaType, Digest: spec.Digest, Size: spec.Size}})
	if err != nil {
		return "", err
	}
	id := digest.FromBytes(raw)
	if err := lease.Pin(id, doc.digest); err != nil {
		return "", err
	}
	if _, err := st.WriteBlob(raw); err != nil {
		return "", err
	}
	_, err = st.PutImage(ctx, name, doc.raw, doc.mediaType, "")
	return id, err
}

// IsURL tells whether a source of an import is fetched from the network rather than read from a file.
func IsURL(source string) bool {
	u, err := url.Parse(source)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// OpenURL fetches a tar for Import over HTTP, at most ten redirections away. A server that falls silent is given up. The
// caller closes the reader. Errors: ErrContent for an answer other than 200; those of the network and ctx.
func OpenURL(ctx context.Context, source string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", clean(source), err)
	}
	req.Header.Set("User-Agent", "plyfs")
	base := newTransport(true, defaultStall, 1)
	resp, err := (&http.Client{Transport: &wire{base: base, allowHTTP: true, stall: defaultStall}}).Do(req)
	if err != nil {
		return nil, errors.Join(ctx.Err(), fmt.Errorf("cannot fetch %s: %s", clean(source), cause(err)))
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, &kindError{kind: ErrContent, msg: fmt.Sprintf("cannot fetch %s: the server answers %s", clean(source), clean(resp.Status))}
	}
	return &urlBody{resp.Body, base}, nil
}

// urlBody is what a server sends, over a connection that ends with it.
type urlBody struct {
	io.ReadCloser
	base *http.Transport
}

// Close ends the transfer.
func (b *urlBody) Close() error {
	err := b.ReadCloser.Close()
	b.base.CloseIdleConnections()
	return err
}
