package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/plyfs/plyfs/layerstore"
)

// copyBuffer is how many bytes go from the network to the store at a time.
const copyBuffer = 128 << 10

// storeError marks an error of the store among those of the network.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// layer brings one layer into the store, unless it is there or another pull brings it. Content that is not what its digest
// names is thrown away and fetched once more from the start.
func (p *puller) layer(ctx context.Context, spec layerstore.LayerSpec, lp LayerProgress) error {
	if p.st.HasLayer(spec) {
		lp.Status("Already exists")
		return nil
	}
	for again := false; ; again = true {
		have, err := p.ingest(ctx, spec, lp)
		switch {
		case err == nil:
			lp.Status("Pull complete")
			return nil
		case errors.Is(err, layerstore.ErrExists):
			lp.Status("Already exists")
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case again || !damaged(err):
			return p.layerError(spec, have, err)
		}
		lp.Status("Damaged, fetching again")
	}
}

// damaged reports whether what came may be right when it is fetched once more.
func damaged(err error) bool {
	return errors.Is(err, layerstore.ErrDigestMismatch) || errors.Is(err, layerstore.ErrCorrupt) || errors.Is(err, layerstore.ErrPartial)
}

// ingest fetches one layer, over as many connections as it takes. have is how many bytes are there for the next pull.
func (p *puller) ingest(ctx context.Context, spec layerstore.LayerSpec, lp LayerProgress) (have int64, err error) {
	lp.Status("Waiting") // perhaps for another pull, which holds the layer's lock
	in, err := p.st.BeginLayer(ctx, spec)
	if err != nil {
		return 0, &storeError{err}
	}
	d := &download{p: p, spec: spec, in: in, lp: lp, r: p.newRetrier(), pos: in.Offset(), peak: in.Offset()}
	if err = d.run(ctx); err == nil {
		lp.Status("Verifying")
		if err = in.Commit(); err == nil {
			return spec.Size, nil
		}
		err = &storeError{err}
	}
	if damaged(err) || errors.Is(err, layerstore.ErrTooLarge) || errors.Is(err, ErrContent) {
		return 0, errors.Join(err, in.Discard())
	}
	return d.pos, errors.Join(err, in.Abort())
}

// download is the fetching of one layer.
type download struct {
	p    *puller
	spec layerstore.LayerSpec
	in   *layerstore.LayerIngest
	lp   LayerProgress
	r    *retrier
	pos  int64 // bytes that the store has
	peak int64 // how far it ever came: only bytes beyond it are progress
}

// run fetches until all bytes are in the store or the retries are used up.
func (d *download) run(ctx context.Context) error {
	for {
		err := d.stream(ctx)
		if err == nil {
			return nil
		}
		var se *storeError
		if errors.As(err, &se) {
			return err
		}
		err = d.r.wait(ctx, err, func(delay time.Duration) {
			d.lp.Status(fmt.Sprintf("Retrying in %s: %s", delay.Round(100*time.Millisecond), cause(err)))
		})
		if err != nil {
			return err
		}
	}
}

// restart begins the layer anew, for a server that cannot go on where the last connection ended.
func (d *download) restart() error {
	d.pos = 0
	if err := d.in.Restart(); err != nil {
		return &storeError{err}
	}
	return nil
}

// stream fetches what is missing over one connection.
func (d *download) stream(ctx context.Context) error {
	if d.pos == d.spec.Size {
		return nil
	}
	header, codes := http.Header{}, []int{http.StatusOK}
	if d.pos > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", d.pos))
		codes = append(codes, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	resp, err := d.p.c.get(ctx, http.MethodGet, "blobs", d.spec.Digest.String(), header, codes...)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	carriesOn := resp.StatusCode == http.StatusPartialContent && continues(resp.Header.Get("Content-Range"), d.pos, d.spec.Size)
	if d.pos > 0 && !carriesOn {
		if err := d.restart(); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errRange
		}
	}
	if resp.ContentLength > d.spec.Size-d.pos {
		return d.tooLong()
	}
	d.lp.Start(d.pos)
	return d.copy(resp.Body)
}

// continues checks a Content-Range (RFC 9110, 14.4) of the form "bytes FROM-TO/TOTAL" or "bytes FROM-TO/*".
func continues(contentRange string, off, size int64) bool {
	rest, ok := strings.CutPrefix(contentRange, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	from, _, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 || from != strconv.FormatInt(off, 10) {
		return false
	}
	return total == "*" || total == strconv.FormatInt(size, 10)
}

func (d *download) tooLong() error {
	return &kindError{kind: ErrContent, msg: fmt.Sprintf("it sends more than the %d bytes that the manifest says", d.spec.Size)}
}

// copy feeds the body to the store. A body that goes on past the layer's size is cut off; one that breaks off only after
// the last byte is complete.
func (d *download) copy(body io.Reader) error {
	buf := make([]byte, copyBuffer)
	for {
		n, err := body.Read(buf)
		if d.pos+int64(n) > d.spec.Size {
			return d.tooLong()
		}
		if n > 0 {
			if _, err := d.in.Write(buf[:n]); err != nil {
				return &storeError{err}
			}
			d.pos += int64(n)
			d.lp.Add(int64(n))
			if d.pos > d.peak {
				d.peak = d.pos
				d.r.progress()
			}
		}
		switch {
		case err == nil:
		case d.pos == d.spec.Size:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
}

// storeText is what the store says, which names the layer, with the layer's digest shortened.
func storeText(spec layerstore.LayerSpec, err error) string {
	return clean(strings.ReplaceAll(err.Error(), spec.Digest.String(), short(spec.Digest)))
}

// layerError says in one line which layer failed, why, and what to do.
func (p *puller) layerError(spec layerstore.LayerSpec, have int64, err error) error {
	what := fmt.Sprintf("%s: layer %s", p.ref, short(spec.Digest))
	var se *storeError
	if errors.As(err, &se) {
		kind := se.error
		if damaged(err) || errors.Is(err, layerstore.ErrTooLarge) {
			kind = ErrContent
		}
		return &kindError{kind: kind, msg: fmt.Sprintf("%s: %s", p.ref, storeText(spec, se)), cause: err}
	}
	var k *kindError
	if errors.As(err, &k) {
		return &kindError{kind: k.kind, msg: fmt.Sprintf("%s: %s", what, k.msg), cause: err}
	}
	switch status(err) {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &kindError{kind: ErrDenied, cause: err, msg: fmt.Sprintf("%s: the registry %s refuses it: %s: run docker login %s",
			what, p.ref.Domain, cause(err), p.ref.Domain)}
	case http.StatusNotFound:
		return &kindError{kind: ErrContent, cause: err, msg: fmt.Sprintf("%s: the registry %s has lost it", what, p.ref.Domain)}
	}
	hint := "run the command again"
	if have > 0 {
		hint += ": it carries on from " + units.HumanSize(float64(have))
	}
	return &kindError{kind: ErrRegistry, cause: err, msg: fmt.Sprintf("%s: cannot fetch it from %s: %s (given up after %d tries without progress); %s",
		what, p.ref.Domain, cause(err), p.o.Retries, hint)}
}
