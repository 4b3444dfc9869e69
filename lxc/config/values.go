package config

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// kind is how the values of a key are read and shown. at is the field of the configuration; sub is
// what follows the name of a key that has sub keys, "nofile" in lxc.prlimit.nofile.
//
// set gets a value that is not empty; an empty one clears. No get is show, no clear is reset.
type kind struct {
	set   func(at any, sub, value string) error
	get   func(at any, sub string) []string
	clear func(at any, sub string)
}

// show is what lxc-info -c prints of a field: numbers always, words if there are any.
func show(at any) []string {
	switch p := at.(type) {
	case *string:
		if *p != "" {
			return []string{*p}
		}
	case *bool:
		return []string{digit(*p)}
	case **bool: // which is true unless it says otherwise
		return []string{digit(*p == nil || **p)}
	case *int:
		return []string{strconv.Itoa(*p)}
	case *int64:
		return []string{strconv.FormatInt(*p, 10)}
	case *[]string:
		return slices.Clone(*p)
	}
	return nil
}

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// reset gives a field the value that it has in an empty configuration.
func reset(at any) {
	switch p := at.(type) {
	case *string:
		*p = ""
	case *bool:
		*p = false
	case **bool:
		*p = nil
	case *int:
		*p = 0
	case *int64:
		*p = 0
	case *[]string:
		*p = nil
	}
}

// Kinds of values. They are pointed to by the tables.
var (
	text       = kind{set: setText}
	filePath   = kind{set: setPath}
	boolean    = kind{set: setFlag}
	count      = kind{set: setCount}
	integer    = kind{set: setInteger}
	ptys       = kind{set: setPTYs}
	ttys       = kind{set: setTTYs}
	id         = kind{set: setID}
	appended   = kind{set: setAppended}
	words      = kind{set: setWords}
	bufferSize = kind{set: setBufferSize}
	tmpfsSize  = kind{set: setTmpfsSize}
	groupDir   = kind{set: setGroupDir}
	groupName  = kind{set: setGroupName}
	hostName   = kind{set: setHostName}
	devDir     = kind{set: setDevDir}
	logLevel   = kind{set: setLogLevel, get: getLogLevel}
	facility   = kind{set: setFacility}
	machine    = kind{set: setMachine, get: getMachine}
	hookABI    = kind{set: setHookABI}
	proxy      = kind{set: setProxy, get: getProxy}
	ignored    = kind{set: setIgnored, get: getNothing, clear: clearNothing}
)

func setText(at any, _, value string) error {
	*at.(*string) = value
	return nil
}

// longestPath is PATH_MAX.
const longestPath = 4096

func setPath(at any, _, value string) error {
	if len(value) >= longestPath {
		return want("a path of less than %d bytes", longestPath)
	}
	*at.(*string) = simplify(value)
	return nil
}

// simplify removes from a path what says nothing: "//", "/./" and a slash at the end. ".." stays,
// since a symbolic link may be before it.
func simplify(path string) string {
	parts := strings.Split(path, "/")
	kept := parts[:0]
	for i, part := range parts {
		if part == "" && i > 0 || part == "." && len(parts) > 1 {
			continue
		}
		kept = append(kept, part)
	}
	if len(kept) == 1 && kept[0] == "" {
		return "/"
	}
	return strings.Join(kept, "/")
}

func setFlag(at any, _, value string) error {
	if value != "0" && value != "1" {
		return want("0 or 1")
	}
	on := value == "1"
	switch p := at.(type) {
	case *bool:
		*p = on
	case **bool:
		*p = &on
	}
	return nil
}

// number reads a number in a range: decimal, hexadecimal after 0x, octal after 0, as strtoul(3).
func number(value string, least, most int64) (int64, error) {
	digits, negative := strings.CutPrefix(value, "-")
	base := 10
	if hex := strings.TrimPrefix(strings.ToLower(digits), "0x"); len(hex) < len(digits) {
		digits, base = hex, 16
	} else if len(digits) > 1 && digits[0] == '0' {
		base = 8
	}
	n, err := strconv.ParseUint(digits, base, 63)
	signed := int64(n)
	if negative {
		signed = -signed
	}
	if err != nil || signed < least || signed > most {
		return 0, want("a number from %d to %d", least, most)
	}
	return signed, nil
}

func setNumber(at any, value string, least, most int64) error {
	n, err := number(value, least, most)
	if err == nil {
		*at.(*int) = int(n)
	}
	return err
}

const (
	maxInt32  = 1<<31 - 1
	maxUint32 = 1<<32 - 1
	maxPTYs   = 1 << 20 // NR_UNIX98_PTY_MAX
	maxTTYs   = 4096    // as many as the kernel has by default, for all containers
)

func setCount(at any, _, value string) error { return setNumber(at, value, 0, maxInt32) }

func setInteger(at any, _, value string) error {
	return setNumber(at, value, -maxInt32-1, maxInt32)
}

func setPTYs(at any, _, value string) error { return setNumber(at, value, 0, maxPTYs) }

func setTTYs(at any, _, value string) error { return setNumber(at, value, 0, maxTTYs) }

func setHookABI(at any, _, value string) error { return setNumber(at, value, 0, 1) }

// setID takes the number of a user or group. The last one means "none" to the kernel.
func setID(at any, _, value string) error { return setNumber(at, value, 0, maxUint32-1) }

func setAppended(at any, _, value string) error {
	p := at.(*[]string)
	*p = append(*p, value)
	return nil
}

func setWords(at any, _, value string) error {
	p := at.(*[]string)
	*p = append(*p, strings.Fields(value)...)
	return nil
}

// setBufferSize takes a number of bytes of which LXC makes a power of two, of a page at least.
func setBufferSize(at any, _, value string) error {
	if value == "auto" {
		*at.(*int64) = 1 << 17
		return nil
	}
	n, err := byteSize(value)
	if err != nil {
		return want("auto or a number of bytes, with KB, MB or GB")
	}
	size := int64(os.Getpagesize())
	for size < n {
		size *= 2
	}
	*at.(*int64) = size
	return nil
}

// maxBytes is more than any of these sizes can be, and far from where an int64 ends.
const maxBytes = 1 << 50

// byteSize reads a number of bytes with a unit: B, KB, MB or GB, which are powers of 1024.
func byteSize(value string) (int64, error) {
	digits := strings.TrimRight(value, "kKmMgGbB")
	unit, shift := strings.ToUpper(value[len(digits):]), 0
	switch unit {
	case "", "B":
	case "KB":
		shift = 10
	case "MB":
		shift = 20
	case "GB":
		shift = 30
	default:
		return 0, want("a number of bytes, with KB, MB or GB")
	}
	n, err := strconv.ParseUint(strings.TrimRight(digits, " \t"), 10, 64)
	if err != nil || n > maxBytes>>shift {
		return 0, want("a number of bytes, with KB, MB or GB")
	}
	return int64(n) << shift, nil
}

func setTmpfsSize(at any, _, value string) error {
	n, err := byteSize(value)
	if err != nil {
		return err
	}
	if n == 0 {
		return want("at least one byte")
	}
	*at.(*int64) = n
	return nil
}

// setGroupDir takes the name of a control group below the one that LXC was given.
func setGroupDir(at any, _, value string) error {
	if strings.HasPrefix(value, "/") || slices.Contains(strings.Split(value, "/"), "..") {
		return want(`a relative path without ".."`)
	}
	return setPath(at, "", value)
}

func setGroupName(at any, _, value string) error {
	if strings.Contains(value, "/") || value == "." || value == ".." {
		return want("the name of one directory")
	}
	*at.(*string) = value
	return nil
}

func setHostName(at any, _, value string) error {
	if len(value) > 64 || strings.ContainsAny(value, " \t/") {
		return want("a host name of at most 64 bytes")
	}
	*at.(*string) = value
	return nil
}

// setDevDir takes a directory below /dev.
func setDevDir(at any, _, value string) error {
	if len(value) > 255 || strings.HasPrefix(value, "/") ||
		slices.Contains(strings.Split(value, "/"), "..") {
		return want(`a directory below /dev: a relative path of at most 255 bytes without ".."`)
	}
	*at.(*string) = value
	return nil
}

// levels are the names of log levels by number.
var levels = []string{
	"TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "CRIT", "ALERT", "FATAL",
}

func setLogLevel(at any, _, value string) error {
	name := strings.ToUpper(value)
	if n, err := number(value, 0, int64(len(levels)-1)); err == nil {
		name = levels[n]
	}
	if err := oneOf(name, levels); err != nil {
		return want("a number from 0 to %d, %s%s", len(levels)-1, either(levels),
			didYouMean(value, levels))
	}
	*at.(*string) = name
	return nil
}

func getLogLevel(at any, _ string) []string {
	if *at.(*string) == "" {
		return []string{"NOTSET"}
	}
	return show(at)
}

var facilities = []string{
	"daemon", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

func setFacility(at any, _, value string) error {
	value = strings.ToLower(value)
	if err := oneOf(value, facilities); err != nil {
		return err
	}
	*at.(*string) = value
	return nil
}

// machines are the names that lxc.arch takes. Those of x86, which are most, come first.
var machines = []string{
	"i686", "x86", "i386", "i486", "i586", "athlon", "linux32",
	"x86_64", "amd64", "linux64",
	"x32", "arm", "armel", "armhf", "armv7l", "aarch64", "arm64", "loongarch64", "loong64", "mips",
	"mipsel", "mips64", "mips64el", "ppc", "powerpc", "ppc64", "ppc64el", "ppc64le", "powerpc64",
	"riscv64", "s390x",
}

func setMachine(at any, _, value string) error {
	if err := oneOf(value, machines); err != nil {
		return err
	}
	*at.(*string) = value
	return nil
}

// getMachine prints the names of x86 as LXC does, which keeps only the personality(2).
func getMachine(at any, _ string) []string {
	switch i := slices.Index(machines, *at.(*string)); {
	case i < 0:
		return nil
	case i < 7:
		return []string{"i686"}
	case i < 10:
		return []string{"x86_64"}
	}
	return show(at)
}

// setProxy takes the socket of a program that answers for system calls.
func setProxy(at any, _, value string) error {
	path, ok := strings.CutPrefix(value, "unix:")
	if !ok || path == "" || path[0] != '/' && path[0] != '@' || len(path) > 107 {
		return want("unix: and an absolute path, or @ and a name, of at most 107 bytes")
	}
	*at.(*string) = value
	return nil
}

func getProxy(at any, _ string) []string {
	path := strings.TrimPrefix(*at.(*string), "unix:")
	return show(&path)
}

// setIgnored is for what LXC 2.1 took away. A line of it changes nothing.
func setIgnored(any, string, string) error { return nil }

func getNothing(any, string) []string { return nil }

func clearNothing(any, string) {}
