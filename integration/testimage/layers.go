package testimage

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// Recipes of the layers made here; a change of the code below changes them, so that cached images are made anew.
const (
	benchRecipe = "bench layer 1"
	manyRecipe  = "many layers 1 "
)

// Sizes of the benchmark's layer.
const (
	SmallFiles = 10_000    // files below /bench/small
	TreeFiles  = 12_800    // files below /bench/tree
	BigSize    = 512 << 20 // bytes of /bench/big
)

const manyLayerCount = 100

var layerTime = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// writeBenchLayer writes the layer of the benchmark's files.
func writeBenchLayer(path string) error {
	return writeTar(path, func(w *tar.Writer) error {
		rnd := rand.New(rand.NewPCG(1, 2))
		if err := addDir(w, "bench"); err != nil {
			return err
		}
		if err := addTree(w, rnd, "bench/small", SmallFiles/100, 100); err != nil {
			return err
		}
		if err := addTree(w, rnd, "bench/tree", TreeFiles/40, 40); err != nil {
			return err
		}
		// A random block of 16 KiB, again and again: the compressed layer stays small, no disk can cheat with it.
		block := randomBytes(rnd, 16<<10)
		if err := w.WriteHeader(&tar.Header{Name: "bench/big", Mode: 0o644, Size: BigSize, ModTime: layerTime}); err != nil {
			return err
		}
		for range BigSize / len(block) {
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
		return nil
	})
}

// addTree writes dirs directories of files of 200 bytes to 4 KiB.
func addTree(w *tar.Writer, rnd *rand.Rand, root string, dirs, files int) error {
	if err := addDir(w, root); err != nil {
		return err
	}
	for d := range dirs {
		dir := fmt.Sprintf("%s/d%03d", root, d)
		if err := addDir(w, dir); err != nil {
			return err
		}
		for f := range files {
			if err := addFile(w, fmt.Sprintf("%s/f%03d.txt", dir, f), randomBytes(rnd, 200+rnd.IntN(3896))); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeManyLayer writes layer i of ManyLayers.
func writeManyLayer(path string, i, files int) error {
	return writeTar(path, func(w *tar.Writer) error {
		if err := addDir(w, "shared"); err != nil {
			return err
		}
		own := fmt.Sprintf("own/%03d", i)
		if err := addFile(w, "shared/top", fmt.Appendf(nil, "layer %d\n", i)); err != nil {
			return err
		}
		if err := addFile(w, fmt.Sprintf("shared/by%03d", i), fmt.Appendf(nil, "by %d\n", i)); err != nil {
			return err
		}
		if i > 0 {
			if err := addFile(w, fmt.Sprintf("shared/.wh.gone%03d", i-1), nil); err != nil {
				return err
			}
		}
		if err := addFile(w, fmt.Sprintf("shared/gone%03d", i), []byte("gone")); err != nil {
			return err
		}
		for f := range files {
			if err := addFile(w, fmt.Sprintf("%s/%02d/f%04d", own, f/100, f), fmt.Appendf(nil, "file %d of layer %d\n", f, i)); err != nil {
				return err
			}
		}
		return nil
	})
}

func addDir(w *tar.Writer, name string) error {
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: layerTime})
}

func addFile(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: layerTime}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// randomBytes returns n random bytes in the alphabet of text, so that they compress about as text does.
func randomBytes(rnd *rand.Rand, n int) []byte {
	const alphabet = "abcdefghijklmnop \n"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[rnd.IntN(len(alphabet))]
	}
	return b
}

// writeTar makes a tar file of what fill writes.
func writeTar(path string, fill func(w *tar.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := bufio.NewWriterSize(io.Writer(f), 1<<20)
	w := tar.NewWriter(buf)
	if err := fill(w); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return buf.Flush()
}
