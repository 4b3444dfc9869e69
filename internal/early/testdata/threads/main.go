// Command threads prints the processors and the timer slack of its threads and children; "threads
// blocked" those of its threads before and after early.Tend, when the monitor has started some.
package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"strake/internal/early"
)

type thread struct{ Allowed, Slack string }

func main() {
	early.Relax()
	if len(os.Args) > 1 {
		blocked()
		return
	}
	// Threads beside the first and the monitor.
	for range 3 {
		go func() {
			runtime.LockOSThread()
			time.Sleep(time.Minute)
		}()
	}
	for len(threads()) < 4 {
		time.Sleep(time.Millisecond)
	}
	bound := threads()
	runtime.LockOSThread()
	early.Thread()
	first := child()
	early.Settle(64)
	free := threads()
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"Bound": bound, "Free": free, "First": first, "Child": child(),
		"Procs": runtime.GOMAXPROCS(0),
	})
}

// blocked has the goroutines' only processor taken from a thread that is blocked, again and again:
// the monitor does that, and starts the next thread.
func blocked() {
	runtime.GOMAXPROCS(1)
	early.Tend() // what is there already
	for range 8 {
		var pipe [2]int
		unix.Pipe2(pipe[:], unix.O_CLOEXEC)
		go unix.Read(pipe[0], make([]byte, 1))
	}
	time.Sleep(200 * time.Millisecond) // more than Tend's interval
	late := threads()
	early.Tend()
	json.NewEncoder(os.Stdout).Encode(map[string]any{"Bound": late, "Free": threads()})
}

func threads() (list []thread) {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, d := range tasks {
		status, _ := os.ReadFile(filepath.Join("/proc/self/task", d.Name(), "status"))
		slack, _ := os.ReadFile("/proc/" + d.Name() + "/timerslack_ns")
		list = append(list, parse(string(status)+"timerslack_ns "+string(slack)))
	}
	return list
}

func child() thread {
	out, _ := exec.Command("grep", "", "/proc/self/status", "/proc/self/timerslack_ns").Output()
	return parse(strings.ReplaceAll(string(out), "timerslack_ns:", "timerslack_ns "))
}

// parse reads the two files behind one another.
func parse(text string) thread {
	var th thread
	f := strings.Fields(text)
	for i, word := range f {
		switch {
		case strings.HasSuffix(word, "Cpus_allowed_list:"):
			th.Allowed = f[i+1]
		case strings.HasSuffix(word, "timerslack_ns"):
			th.Slack = f[i+1]
		}
	}
	return th
}
