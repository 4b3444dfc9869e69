package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"strake/internal/early"
)

// runPS prints the processes. Options of ps(1) can only be understood by ps itself: with them its
// output is filtered by the PID column, as runc does.
func runPS(w io.Writer, pids []int, args []string) error {
	if len(args) > 0 {
		return filterPS(w, pids, args)
	}
	t := tabwriter.NewWriter(w, 4, 1, 2, ' ', 0)
	fmt.Fprint(t, "UID\tPID\tPPID\tCMD\n")
	for _, pid := range pids {
		uid, ppid, cmd, err := readProcess(pid)
		if err != nil {
			continue // it has ended
		}
		fmt.Fprintf(t, "%d\t%d\t%d\t%s\n", uid, pid, ppid, cmd)
	}
	return t.Flush()
}

func readProcess(pid int) (uid, ppid int, cmd string, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	raw, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0, 0, "", err
	}
	var name string
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch key {
		case "Name":
			name = fields[0]
		case "PPid":
			ppid, _ = strconv.Atoi(fields[0])
		case "Uid":
			uid, _ = strconv.Atoi(fields[0])
		}
	}
	line, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return 0, 0, "", err
	}
	cmd = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	if cmd == "" {
		cmd = "[" + name + "]"
	}
	return uid, ppid, cmd, nil
}

func filterPS(w io.Writer, pids []int, args []string) error {
	defer early.Lock()()
	out, err := exec.Command("ps", args...).Output()
	if err != nil {
		return fmt.Errorf("ps %s: %w", strings.Join(args, " "), err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fmt.Errorf("ps %s: its output has no PID column", strings.Join(args, " "))
	}
	fmt.Fprintln(w, lines[0])
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		if len(f) <= column {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Fprintln(w, l)
		}
	}
	return nil
}
