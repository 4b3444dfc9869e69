package image

import (
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// liesAboutTime are answers that do not come, or come slowly.
func liesAboutTime() []lie {
	return []lie{
		{name: "no head of a manifest", tell: func(l *liar) { l.onTag = l.stall },
			silent: true, want: "no byte came for"},
		{name: "half a manifest", tell: func(l *liar) {
			l.onDigest = part(l.raw, len(l.raw)/2, l.stall)
		}, silent: true, want: "no byte came for"},
		{name: "half a configuration", tell: func(l *liar) {
			l.onConfig = part(l.config, 10, l.stall)
		}, silent: true, want: "no byte came for"},
		{name: "no head of a layer", tell: func(l *liar) { l.onLayer = l.stall },
			silent: true, want: "no byte came for"},
		{name: "half a layer", tell: func(l *liar) {
			l.onLayer = part(l.layer, 1000, l.stall)
		}, silent: true, want: "no byte came for", partial: true},
		{name: "a dripping layer", tell: func(l *liar) { l.onLayer = part(l.layer, 0, l.drip) },
			silent: true, want: "bytes came in", partial: true},
		{name: "a dripping manifest", tell: func(l *liar) { l.onDigest = part(l.raw, 0, l.drip) },
			silent: true, want: "bytes came in"},
		{name: "a manifest that drips for ever", tell: func(l *liar) {
			l.onTag = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", l.mediaType)
				w.WriteHeader(http.StatusOK)
				if r.Method == http.MethodGet {
					l.drip(w, r)
				}
			}
		}, silent: true, want: "no byte came for"},
		{name: "no token", tell: func(l *liar) { l.token, l.onToken = true, l.stall },
			silent: true, want: "no byte came for"},
		{name: "a dripping token", tell: func(l *liar) { l.token, l.onToken = true, l.drip },
			silent: true, want: "no byte came for"},
		{name: "a redirect to what stalls", tell: func(l *liar) {
			l.onConfig = redirect("/v2/lie/blobs/stall")
			l.onLayer = l.stall
		}, silent: true, want: "no byte came for"},
		{name: "come back in a year", tell: func(l *liar) {
			l.onTag = status(http.StatusTooManyRequests, "Retry-After", "31536000")
		}, want: "429"},
		{name: "a layer in a year", tell: func(l *liar) {
			l.onLayer = status(http.StatusTooManyRequests, "Retry-After", "31536000")
		}, want: "429"},
	}
}

// liesOfServers are about where to go, who may, and what HTTP is.
func liesOfServers() []lie {
	token := func(h http.HandlerFunc) func(l *liar) {
		return func(l *liar) { l.token, l.onToken = true, h }
	}
	layer := func(h http.HandlerFunc) func(l *liar) {
		return func(l *liar) { l.onLayer = h }
	}
	return []lie{
		{name: "redirects without end", tell: layer(redirect("/v2/lie/blobs/again")),
			want: "more than 10 redirects"},
		{name: "redirect to a file", tell: layer(redirect("file:///etc/passwd")),
			want: `redirect to scheme "file"`},
		{name: "redirect to another scheme", tell: layer(redirect("gopher://example.com/")),
			want: `redirect to scheme "gopher"`},
		{name: "redirect to the metadata of a cloud", tell: layer(
			redirect("http://169.254.169.254/latest/meta-data"),
		), want: "the registry leads to 169.254.169.254"},
		{name: "redirect to the link", tell: layer(redirect("http://[fe80::1]/")),
			want: "the registry leads to fe80::1"},
		{name: "redirect to nowhere", tell: layer(status(http.StatusFound)),
			want: "302"},
		{name: "a manifest that is redirected without end", tell: func(l *liar) {
			l.onTag = redirect("/v2/lie/manifests/1")
		}, want: "more than 10 redirects"},
		{name: "an empty token", tell: token(sends("", []byte(`{"token":""}`))),
			want: "did not include a token"},
		{name: "a token that is a page", tell: token(sends("", []byte("<html>"))),
			want: "unable to decode token response"},
		{name: "a token of 10 MiB", tell: token(sends(
			"", []byte(`{"token":"`+strings.Repeat("x", 10<<20)+`"}`),
		)), want: "token of more than"},
		{name: "an endless token", tell: token(endless("")), want: "token of more than"},
		{name: "a token that does not fit", tell: token(sends("", []byte(`{"token":"x"}`))),
			want: "access denied"},
		{name: "a token server that fails", tell: token(status(500)), want: "500"},
		{name: "a token server at the metadata of a cloud", tell: func(l *liar) {
			l.onTag = status(
				http.StatusUnauthorized, "WWW-Authenticate",
				`Bearer realm="http://169.254.169.254/token",service="s"`,
			)
		}, want: "the registry leads to 169.254.169.254"},
		{name: "an unknown way to authenticate", tell: func(l *liar) {
			l.onTag = status(http.StatusUnauthorized, "WWW-Authenticate", `Riddle q="?"`)
		}, want: "access denied"},
		{name: "always 500", tell: func(l *liar) { l.onTag = status(500) }, want: "500"},
		{name: "a layer that is always 503", tell: layer(status(503)), want: "503"},
		{name: "an endless refusal", tell: func(l *liar) {
			l.onConfig = func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusTeapot)
				endless("")(w, r)
			}
		}, want: "418"},
		{name: "rubbish", tell: func(l *liar) { l.onTag = raw("\x00\x01rubbish\r\n\r\n") },
			want: "malformed HTTP"},
		{name: "HTTP/2 without being asked", tell: func(l *liar) {
			l.onTag = raw("\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80")
		}, want: "HTTP"},
		{name: "half a head", tell: func(l *liar) {
			l.onTag = raw("HTTP/1.1 200 OK\r\nContent-Ty")
		}, want: "malformed MIME header"},
		{name: "nothing at all", tell: func(l *liar) { l.onTag = raw("") }, want: "EOF"},
		{name: "a huge head", tell: func(l *liar) {
			l.onTag = status(200, "X-Huge", strings.Repeat("x", 4<<20))
		}, want: "headers exceeded"},
	}
}

// liesAboutLayers are layers with the right digest that are no layers.
func liesAboutLayers(t *testing.T) []lie {
	plain := tarOf(t, entry{name: "f", body: noise(64 << 10)})
	zipped := gzipped(t, plain)
	of := func(layer []byte, diff digest.Digest) func(l *liar) {
		return func(l *liar) { l.holdsRaw(layer, diff) }
	}
	sum := digest.FromBytes(plain)
	entries := func(e ...entry) func(l *liar) {
		return func(l *liar) { l.holds(gzipped(l.t, tarOf(l.t, e...))) }
	}
	tail := append(append([]byte{}, zipped...), "rubbish"...)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	broken := encoder.EncodeAll(plain, nil)
	return []lie{
		{name: "another diff ID", tell: of(zipped, digest.FromString("x")),
			want: "layer unpacks to"},
		{name: "a layer of noise", tell: of([]byte(noise(4096)), digest.FromString(noise(4096))),
			want: "layer"},
		{name: "half a gzip stream", tell: of(zipped[:len(zipped)/2], sum), want: "unexpected EOF"},
		{name: "rubbish after a gzip stream", tell: of(tail, sum), want: "gzip"},
		{name: "half a zstd frame", tell: func(l *liar) {
			l.holdsRaw(broken[:len(broken)/2], sum)
			l.edit(func(m *ocispec.Manifest) {
				m.Layers[0].MediaType = ocispec.MediaTypeImageLayerZstd
			})
		}, want: "unexpected EOF"},
		{name: "a gzip bomb", tell: of(bomb(t, 256<<20), digest.FromString("x")), want: "layer"},
		{name: "a layer of too many entries", tell: func(l *liar) {
			var all []entry
			for range 20_000 {
				all = append(all, entry{name: "f"})
			}
			entries(all...)(l)
		}, want: "entries"},
		{name: "a name above the root", tell: entries(entry{name: "../../f", body: "x"}),
			want: `"../../f"`},
		{name: "a hard link out", tell: entries(
			entry{name: "l", kind: '1', link: "../../../etc/passwd"},
		), want: `"l"`},
		{name: "a file behind a link out", tell: entries(
			entry{name: "l", kind: '2', link: "/etc"}, entry{name: "l/f", body: "x"},
		), want: `"l/f"`},
	}
}
