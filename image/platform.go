package image

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Platform is what an image is made for, in Go's names (GOOS, GOARCH) and the variant of the OCI image spec.
type Platform struct {
	OS           string // "linux"
	Architecture string // "amd64", "arm64", "arm", "386"…
	Variant      string // "v7"; "" where it goes without saying: amd64 (v1) and arm64 (v8)
}

// String is OS/ARCH or OS/ARCH/VARIANT.
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// ParsePlatform takes OS/ARCH[/VARIANT], or ARCH[/VARIANT] of linux, in docker's spellings too (x86_64, aarch64, armhf).
// The result is normal: linux/arm64/v8 and linux/arm64 are the same.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	for _, p := range parts {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" {
			return Platform{}, badPlatform(s)
		}
	}
	switch {
	case len(parts) == 1 && !knownOS[parts[0]]:
		return Platform{OS: "linux", Architecture: parts[0]}.normal(), nil
	case len(parts) == 1:
		return Platform{OS: parts[0], Architecture: runtime.GOARCH}.normal(), nil
	case len(parts) == 2 && !knownOS[parts[0]]:
		return Platform{OS: "linux", Architecture: parts[0], Variant: parts[1]}.normal(), nil
	case len(parts) == 2:
		return Platform{OS: parts[0], Architecture: parts[1]}.normal(), nil
	case len(parts) == 3:
		return Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}.normal(), nil
	}
	return Platform{}, badPlatform(s)
}

func badPlatform(s string) error {
	return fmt.Errorf("platform %q is not OS/ARCH[/VARIANT]: write for example linux/arm64 or linux/arm/v7", clean(s))
}

var knownOS = map[string]bool{
	"linux": true, "windows": true, "darwin": true, "macos": true, "freebsd": true, "netbsd": true, "openbsd": true,
	"solaris": true, "illumos": true, "aix": true, "android": true, "dragonfly": true, "js": true, "plan9": true, "wasip1": true,
}

// normal brings spellings together as containerd's platforms.Normalize does.
func (p Platform) normal() Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	switch p.Architecture {
	case "i386":
		p.Architecture, p.Variant = "386", ""
	case "x86_64", "x86-64", "amd64":
		p.Architecture = "amd64"
		if p.Variant == "v1" {
			p.Variant = ""
		}
	case "aarch64", "arm64":
		p.Architecture = "arm64"
		if p.Variant == "8" || p.Variant == "v8" {
			p.Variant = ""
		}
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "arm":
		switch p.Variant {
		case "", "7":
			p.Variant = "v7"
		case "5", "6", "8":
			p.Variant = "v" + p.Variant
		}
	}
	return p
}

// hostPlatform is linux on this machine's processor. Only of 32-bit arm does the kind of processor count, as in containerd.
func hostPlatform() Platform {
	p := Platform{OS: "linux", Architecture: runtime.GOARCH}
	if p.Architecture == "arm" {
		var u unix.Utsname
		if err := unix.Uname(&u); err == nil {
			p.Variant = armVariant(unix.ByteSliceToString(u.Machine[:]))
		}
	}
	return p.normal()
}

// armVariant tells the variant from uname's machine: "armv6l", "aarch64".
func armVariant(machine string) string {
	if machine == "aarch64" || strings.HasPrefix(machine, "armv8") {
		return "v8"
	}
	if rest, ok := strings.CutPrefix(machine, "armv"); ok && rest != "" && rest[0] >= '5' && rest[0] <= '7' {
		return "v" + rest[:1]
	}
	return "v7"
}

// fitting lists what runs on p, best first, as containerd's platforms.Only does: older amd64 and arm variants, then 386 on
// amd64 and 32-bit arm on arm64.
func (p Platform) fitting() []Platform {
	list := []Platform{p}
	switch p.Architecture {
	case "amd64":
		for v := variantNumber(p.Variant) - 1; v >= 1; v-- {
			list = append(list, Platform{p.OS, "amd64", "v" + strconv.Itoa(v)}.normal())
		}
		list = append(list, Platform{OS: p.OS, Architecture: "386"})
	case "arm":
		list = append(list, olderArm(p.OS, variantNumber(p.Variant))...)
	case "arm64":
		for v := p.Variant; ; {
			older, ok := olderArm64(v)
			if !ok {
				break
			}
			list = append(list, Platform{OS: p.OS, Architecture: "arm64", Variant: older})
			v = older
		}
		list = append(list, Platform{OS: p.OS, Architecture: "arm", Variant: "v8"})
		list = append(list, olderArm(p.OS, 8)...)
	}
	return list
}

func olderArm(os string, version int) []Platform {
	var list []Platform
	for v := version - 1; v >= 5; v-- {
		list = append(list, Platform{OS: os, Architecture: "arm", Variant: "v" + strconv.Itoa(v)})
	}
	return list
}

// olderArm64 is the next older variant of arm64: v9.n runs v9.n-1, v9.0 runs v8.5 (that is what it was made of), v8.1 runs v8.
func olderArm64(v string) (string, bool) {
	major, minorText, _ := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	minor := 0
	if minorText != "" {
		n, err := strconv.Atoi(minorText)
		if err != nil || n < 0 || n > 9 {
			return "", false
		}
		minor = n
	}
	switch {
	case major == "9" && minor > 1:
		return "v9." + strconv.Itoa(minor-1), true
	case major == "9" && minor == 1:
		return "v9", true
	case major == "9":
		return "v8.5", true
	case major == "8" && minor > 1:
		return "v8." + strconv.Itoa(minor-1), true
	case major == "8" && minor == 1:
		return "", true
	}
	return "", false
}

// variantNumber is 7 of "v7", 0 of what has no such number, at most 9.
func variantNumber(v string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(v, "v"))
	if err != nil || n < 0 || n > 9 {
		return 0
	}
	return n
}
