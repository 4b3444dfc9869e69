package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes files and returns the directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, "DIR", dir)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestIncludeOfAFileAndOfADirectory(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{
		"config": "lxc.group = a\nlxc.include = DIR/one\nlxc.group = d\n" +
			"lxc.include = DIR/conf.d\n",
		"one":            "lxc.group = b\nlxc.include = 'DIR/two'\n",
		"two":            "lxc.group = c",
		"conf.d/20.conf": "lxc.group = f\n",
		"conf.d/10.conf": "lxc.group = e\n",
		"conf.d/README":  "no configuration\n",
		"conf.d/.conf":   "no configuration\n",
	})
	c, err := Load(dir + "/config")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "groups", strings.Join(c.Groups, ""), "abcdef")
	want, _ := os.ReadFile(dir + "/config")
	equal(t, "lines", written(t, c), string(want))
	again(t, c)
}

func TestIncludeOfADirectoryThatIsNotThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := parse(t, "lxc.include = "+dir+"/none/\n")
	equal(t, "meaning", meaning(c), &Config{})
	if _, err := Parse("c", strings.NewReader("lxc.include = "+dir+"/none")); err == nil {
		t.Error("a file that is not there was included")
	}
}

func TestErrorsOfIncludedFiles(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{
		"config":         "lxc.x = 1\nlxc.include = DIR/one\nlxc.include = DIR/dir.d\nlxc.y = 2\n",
		"one":            "\nlxc.tty.max = -1\n",
		"dir.d/a.conf/b": "",
	})
	_, err := Load(dir + "/config")
	want := strings.ReplaceAll(`DIR/config:1: lxc.x = "1": no such key
DIR/one:2: lxc.tty.max = "-1": want a number from 0 to 4096
DIR/dir.d/a.conf:1: read DIR/dir.d/a.conf: is a directory
DIR/config:4: lxc.y = "2": no such key`, "DIR", dir)
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if _, err := Load(dir + "/none"); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestIncludeLoops(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{
		"a":    "lxc.include = DIR/b\n",
		"b":    "lxc.include = DIR/./c\n",
		"c":    "lxc.include = DIR/b\n",
		"self": "lxc.include = DIR/self\n",
	})
	for file, want := range map[string]string{
		"a":    `DIR/./c:1: lxc.include = "DIR/b": DIR/b includes itself`,
		"self": `DIR/self:1: lxc.include = "DIR/self": DIR/self includes itself`,
	} {
		_, err := Load(filepath.Join(dir, file))
		if want = strings.ReplaceAll(want, "DIR", dir); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

func TestDepthOfIncludes(t *testing.T) {
	t.Parallel()
	files := make(map[string]string)
	for i := range 18 {
		files[fmt.Sprint(i)] = fmt.Sprintf("lxc.group = %d\nlxc.include = DIR/%d\n", i, i+1)
	}
	files["18"] = ""
	dir := tree(t, files)
	if c, err := Load(dir + "/2"); err != nil || len(c.Groups) != 16 {
		t.Errorf("16 files inside of each other: %v", err)
	}
	_, err := Load(dir + "/1")
	want := fmt.Sprintf("%s/17:2: lxc.include = %q: "+
		"want at most 16 files inside of each other, and 1000 in all", dir, dir+"/18")
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	// Ten files of which each includes the next one three times would be 88,573 files.
	files = map[string]string{"11": ""}
	for i := range 11 {
		files[fmt.Sprint(i)] = strings.Repeat(fmt.Sprintf("lxc.include = DIR/%d\n", i+1), 3)
	}
	if _, err := Load(tree(t, files) + "/0"); err == nil {
		t.Error("a configuration of 265,719 files was read")
	}
}
