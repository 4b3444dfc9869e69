package test

import "testing"

// TestLXCAttachTerminal works in a container at a terminal of its own.
func TestLXCAttachTerminal(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	r.ok("start", "one")
	p := onTerminal(t, r.command("attach", "one"), 100, 30)
	p.expect("#")
	p.write("tty; stty size; echo in=$container\n")
	p.expect("/dev/pts/")
	p.expect("30 100")
	p.expect("in=lxc")
	p.resize(120, 40)
	// The command passes the change on when it hears of it.
	p.write("until [ \"$(stty size)\" = '40 120' ]; do :; done; echo re''sized\n")
	p.expect("resized")
	p.write("exit 5\n")
	if code := p.ends(); code != 5 {
		t.Errorf("status %d, want 5", code)
	}
}

// TestLXCConsole logs in on /dev/tty1 and leaves it by the escape sequence, twice: the terminal is
// the keeper's, and what was begun there goes on.
func TestLXCConsole(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	r.ok("start", "one")
	p := onTerminal(t, r.command("console", "one", "-t", "1"), 100, 30)
	p.expect("Connected to tty 1")
	p.write("\n")
	p.expect("login:")
	p.write("root\n")
	p.expect("#")
	p.write("tty; kept=yes\n")
	p.expect("/dev/tty1")
	if _, msg, code := r.do("console", "one", "-t", "9"); code == 0 {
		t.Errorf("a terminal that is not there: %s", msg)
	}
	second := onTerminal(t, r.command("console", "one", "-t", "1"), 100, 30)
	second.expect("in use")
	if code := second.ends(); code == 0 {
		t.Error("two have the same terminal")
	}
	p.write("\x01q")
	if code := p.ends(); code != 0 {
		t.Errorf("status %d after the escape sequence", code)
	}
	p = onTerminal(t, r.command("console", "one"), 100, 30)
	p.expect("Connected to tty 1")
	p.write("echo $kept\n")
	p.expect("yes")
	p.write("\x01q")
	if code := p.ends(); code != 0 {
		t.Errorf("status %d after the escape sequence", code)
	}
}

// TestLXCForeground has the caller's terminal as the console until the container halts.
func TestLXCForeground(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	p := onTerminal(t, r.command("start", "-F", "one"), 100, 30)
	p.expect("Please press Enter to activate this console")
	p.write("\n")
	p.expect("#")
	if got := r.state("one"); got != "RUNNING" {
		t.Errorf("state %q", got)
	}
	p.write("hostname; tty\n")
	p.expect("one")
	p.expect("/dev/console")
	p.write("poweroff\n")
	if code := p.ends(); code != 0 {
		t.Errorf("status %d", code)
	}
	if got := r.state("one"); got != "STOPPED" {
		t.Errorf("state %q", got)
	}
}
