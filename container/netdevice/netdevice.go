// Package netdevice moves network devices from the network namespace of this process to another
// one, with their permanent global addresses (runtime-spec config-linux.md, "Network Devices").
//
// It promises that a move that fails leaves the device where it was, with its name, its addresses
// and its state, and that one which has succeeded can be taken back.
//
// Not for: making devices, routes, or any other configuration of a network.
//
// Tested with veth pairs in network namespaces of the test's own; needs root.
package netdevice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Device is a device that was moved. Not for concurrent use.
type Device struct {
	to        *os.File
	name      string // here
	there     string
	up        bool // before it was moved
	addresses []address
}

// address is one of RTM_GETADDR that is set again as it was.
type address struct {
	family, bits byte
	attributes   []byte
}

// Move moves a device of this process's network namespace, given by its name, into another one,
// where it is called as, or as here if that is empty, and is up. The file of the namespace stays
// the caller's and open for as long as Back may be called. Errors wrap the errno: ENODEV if there
// is no device of the name, EEXIST if the other namespace has one of the new name.
func Move(name, as string, to *os.File) (*Device, error) {
	d := &Device{to: to, name: name, there: as}
	if as == "" {
		d.there = name
	}
	home, err := open()
	if err != nil {
		return nil, err
	}
	defer home.close()
	index, err := d.look(home)
	if err != nil {
		return nil, fmt.Errorf("network device %q: %w", name, err)
	}
	// A name that is taken there is known before the device is touched.
	err = d.inside(func(s socket) error {
		if _, _, err := find(s, d.there); !errors.Is(err, unix.ENODEV) {
			return errors.Join(err, unix.EEXIST)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("move network device %q to %q: %w", name, d.there, err)
	}
	if err := send(home, index, d.there, to); err != nil {
		// It is down perhaps, and then without some of its addresses.
		return nil, errors.Join(
			fmt.Errorf("move network device %q: %w", name, err), d.set(home, name, d.up),
		)
	}
	if err := d.inside(func(s socket) error { return d.set(s, d.there, true) }); err != nil {
		return nil, errors.Join(err, d.Back())
	}
	return d, nil
}

// Back moves the device back to where it was, with the name, the addresses and the state that it
// had.
func (d *Device) Back() error {
	here, err := os.OpenFile("/proc/thread-self/ns/net", os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer here.Close()
	err = d.inside(func(s socket) error {
		index, _, err := find(s, d.there)
		if err != nil {
			return err
		}
		return send(s, index, d.name, here)
	})
	if err != nil {
		return fmt.Errorf("move network device %q back: %w", d.name, err)
	}
	home, err := open()
	if err != nil {
		return err
	}
	defer home.close()
	return d.set(home, d.name, d.up)
}

// inside calls f with a socket in the other network namespace.
func (d *Device) inside(f func(socket) error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is in another namespace: it ends with this goroutine.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Setns(int(d.to.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("join the network namespace: %w", err)
			}
			s, err := open()
			if err != nil {
				return err
			}
			defer s.close()
			return f(s)
		}()
	}()
	return <-done
}

// look finds the device and notes what is to be kept of it.
func (d *Device) look(s socket) (index int, err error) {
	var flags uint32
	if index, flags, err = find(s, d.name); err != nil {
		return 0, err
	}
	d.up = flags&unix.IFF_UP != 0
	err = s.talk(
		unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg), func(b []byte) {
			if len(b) >= unix.SizeofIfAddrmsg && int(binary.NativeEndian.Uint32(b[4:])) == index {
				d.note(b)
			}
		},
	)
	return index, err
}

// note takes an address (struct ifaddrmsg) that makes sense in another namespace: a permanent one
// of global scope.
func (d *Device) note(b []byte) {
	a := address{family: b[0], bits: b[1]}
	flags, scope := uint32(b[2]), b[3]
	attributes(b[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFA_FLAGS:
			if len(v) == 4 {
				flags = binary.NativeEndian.Uint32(v)
			}
		case unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST:
			a.attributes = attribute(a.attributes, typ, v)
		}
	})
	if flags&unix.IFA_F_PERMANENT != 0 && scope == unix.RT_SCOPE_UNIVERSE {
		d.addresses = append(d.addresses, a)
	}
}

// set gives the device the addresses that it had, and its state.
func (d *Device) set(s socket, name string, up bool) error {
	index, _, err := find(s, name)
	if err != nil {
		return fmt.Errorf("network device %q: %w", name, err)
	}
	for _, a := range d.addresses {
		// It was in use on this link: there is no duplicate to look for (RFC 4862, 5.4).
		flags := byte(0)
		if a.family == unix.AF_INET6 {
			flags = unix.IFA_F_NODAD
		}
		body := append([]byte{a.family, a.bits, flags, unix.RT_SCOPE_UNIVERSE}, number(index)...)
		err := s.talk(
			unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, append(body, a.attributes...),
			nil,
		)
		if err != nil {
			return fmt.Errorf("network device %q: set address: %w", name, err)
		}
	}
	if !up {
		return nil
	}
	body := information(index, unix.IFF_UP, unix.IFF_UP)
	if err := s.talk(unix.RTM_NEWLINK, 0, body, nil); err != nil {
		return fmt.Errorf("network device %q: set up: %w", name, err)
	}
	return nil
}

// information is struct ifinfomsg.
func information(index int, flags, change uint32) []byte {
	b := append(make([]byte, 4), number(index)...)
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// find returns the index and the flags of a device.
func find(s socket, name string) (index int, flags uint32, err error) {
	body := attribute(information(0, 0, 0), unix.IFLA_IFNAME, text(name))
	err = s.talk(unix.RTM_GETLINK, 0, body, func(b []byte) {
		if len(b) >= unix.SizeofIfInfomsg {
			index = int(int32(binary.NativeEndian.Uint32(b[4:])))
			flags = binary.NativeEndian.Uint32(b[8:])
		}
	})
	if err == nil && index == 0 {
		err = unix.ENODEV
	}
	return index, flags, err
}

// send puts a device down and into a network namespace, under a name. The second request is one
// step of the kernel: the name cannot be taken in between.
func send(s socket, index int, name string, to *os.File) error {
	if err := s.talk(
		unix.RTM_NEWLINK, 0, information(index, 0, unix.IFF_UP), nil,
	); err != nil {
		return fmt.Errorf("set down: %w", err)
	}
	body := attribute(information(index, 0, 0), unix.IFLA_IFNAME, text(name))
	body = attribute(body, unix.IFLA_NET_NS_FD, number(int(to.Fd())))
	return s.talk(unix.RTM_NEWLINK, 0, body, nil)
}
