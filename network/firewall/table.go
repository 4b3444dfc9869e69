package firewall

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// Table is the kernel's table of one instance. Safe for concurrent use.
type Table struct {
	name string
	open func() (*nftables.Conn, error)

	mu       sync.Mutex
	conn     *nftables.Conn                // guarded by mu; nil until needed
	present  bool                          // guarded by mu: Replace succeeded
	elements map[string]map[string]Element // guarded by mu: what the kernel holds, by set and key
}

// Open returns the table called name in the network namespace netns (nil: the caller's). It touches
// nothing yet.
func Open(name string, netns *os.File) *Table {
	return &Table{name: name, open: func() (*nftables.Conn, error) {
		opts := []nftables.ConnOption{nftables.AsLasting()}
		if netns != nil {
			opts = append(opts, nftables.WithNetNSFd(int(netns.Fd())))
		}
		return nftables.New(opts...)
	}}
}

// connect returns the connection. Precondition: t.mu is held.
func (t *Table) connect() (*nftables.Conn, error) {
	if t.conn == nil {
		conn, err := t.open()
		if err != nil {
			return nil, fmt.Errorf("open nfnetlink: %w", err)
		}
		t.conn = conn
	}
	return t.conn, nil
}

// Close gives up the connection; the kernel's table stays.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	conn := t.conn
	t.conn = nil
	return conn.CloseLasting()
}

// Replace makes the kernel's table express exactly s, whatever was there, in one transaction: no
// packet sees a table half made.
func (t *Table) Replace(s State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	conn, err := t.connect()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
	// Deleting a table that is not there is an error; adding one that is there is not.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	held := map[string]map[string]Element{}
	elements := s.elements()
	for _, set := range sets() {
		var members []nftables.SetElement
		held[set.Name] = map[string]Element{}
		for _, e := range elements[set.Name] {
			members = append(members, e.member())
			held[set.Name][string(e.key)] = e
		}
		if err := conn.AddSet(t.kernelSet(set), nil); err != nil {
			return t.failed("add set "+set.Name, err)
		}
		for len(members) > 0 {
			// A message of netlink is at most 64 KiB long.
			n := min(len(members), 500)
			if err := conn.SetAddElements(t.kernelSet(set), members[:n]); err != nil {
				return t.failed("add elements to "+set.Name, err)
			}
			members = members[n:]
		}
	}
	for _, c := range chains() {
		chain := conn.AddChain(&nftables.Chain{
			Name: c.Name, Table: table, Type: nftables.ChainType(c.Type), Hooknum: hook(c.Hook),
			Priority: nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority)),
		})
		for _, r := range c.Rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.exprs})
		}
	}
	if err := conn.Flush(); err != nil {
		return t.failed("replace table", err)
	}
	t.present, t.elements = true, held
	return nil
}

// failed drops a connection whose buffer or answers are no longer in step. Precondition: t.mu is
// held.
func (t *Table) failed(what string, err error) error {
	if t.conn != nil {
		err = errors.Join(err, t.conn.CloseLasting())
		t.conn = nil
	}
	return fmt.Errorf("nftables table inet %s: %s: %w", t.name, what, err)
}

// Update removes what of expresses and adds what to expresses, in one transaction. Elements that
// both express stay untouched. The table has to have been made by Replace; Update tells by
// ErrAbsent when it was not.
func (t *Table) Update(of, to State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.present {
		return ErrAbsent
	}
	del, add := diff(of.elements(), to.elements())
	conn, err := t.connect()
	if err != nil {
		return err
	}
	changed := false
	for _, set := range sets() {
		var gone, fresh []nftables.SetElement
		for _, e := range del {
			if _, held := t.elements[set.Name][string(e.key)]; held && e.Set == set.Name {
				gone = append(gone, e.member())
			}
		}
		for _, e := range add {
			if e.Set == set.Name {
				fresh = append(fresh, e.member())
			}
		}
		if len(gone) > 0 {
			changed = true
			if err := conn.SetDeleteElements(t.kernelSet(set), gone); err != nil {
				return t.failed("delete elements from "+set.Name, err)
			}
		}
		if len(fresh) > 0 {
			changed = true
			if err := conn.SetAddElements(t.kernelSet(set), fresh); err != nil {
				return t.failed("add elements to "+set.Name, err)
			}
		}
	}
	if !changed {
		return nil
	}
	if err := conn.Flush(); err != nil {
		if errors.Is(err, unix.ENOENT) {
			// Another program flushed the ruleset, or an element is not there: the caller replaces
			// the whole.
			t.present = false
			return errors.Join(ErrAbsent, t.failed("update", err))
		}
		return t.failed("update", err)
	}
	for _, e := range del {
		delete(t.elements[e.Set], string(e.key))
	}
	for _, e := range add {
		t.elements[e.Set][string(e.key)] = e
	}
	return nil
}

// ErrAbsent says that the kernel has no table that Update could change; Replace makes it.
var ErrAbsent = errors.New("no such table")

// Remove deletes the table. It is no error when there is none.
func (t *Table) Remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	conn, err := t.connect()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
	conn.AddTable(table)
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return t.failed("delete table", err)
	}
	t.present, t.elements = false, nil
	return nil
}

// Exists asks the kernel whether the table is there.
func (t *Table) Exists() (bool, error) {
	names, err := t.tables()
	for _, n := range names {
		if n == t.name {
			return true, nil
		}
	}
	return false, err
}

// tables are the names of all tables of family inet.
func (t *Table) tables() ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	conn, err := t.connect()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, t.failed("list tables", err)
	}
	var names []string
	for _, x := range tables {
		names = append(names, x.Name)
	}
	return names, nil
}

// Siblings are the names of other tables of family inet for which match says yes.
func (t *Table) Siblings(match func(name string) bool) ([]string, error) {
	names, err := t.tables()
	var out []string
	for _, n := range names {
		if n != t.name && match(n) {
			out = append(out, n)
		}
	}
	return out, err
}

// Blockers are the base chains of others that drop forwarded packets by policy, as "family table
// chain".
func (t *Table) Blockers() ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	conn, err := t.connect()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListChains()
	if err != nil {
		return nil, t.failed("list chains", err)
	}
	var out []string
	for _, c := range all {
		family := map[nftables.TableFamily]string{
			nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip",
			nftables.TableFamilyIPv6: "ip6",
		}[c.Table.Family]
		if family != "" && c.Table.Name != t.name &&
			c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
			c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			out = append(out, family+" "+c.Table.Name+" "+c.Name)
		}
	}
	return out, nil
}

func (t *Table) kernelSet(s Set) *nftables.Set {
	// The library draws IDs from a variable that it does not guard; ours only have to differ within
	// a batch.
	id := uint32(1 + slices.IndexFunc(sets(), func(x Set) bool { return x.Name == s.Name }))
	k := &nftables.Set{
		ID: id, Table: &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet},
		Name: s.Name, KeyType: datatype(s.Key), Concatenation: len(s.Key) > 1, Interval: s.Interval,
	}
	if len(s.Key) == 1 {
		// Only for nft(8), which prints names of interfaces as empty without it.
		k.KeyByteOrder = binaryutil.NativeEndian
	}
	if s.Data != nil {
		k.IsMap, k.DataType = true, datatype(s.Data)
	}
	return k
}

func datatype(names []string) nftables.SetDatatype {
	known := map[string]nftables.SetDatatype{
		"ifname": nftables.TypeIFName, "inet_proto": nftables.TypeInetProto,
		"inet_service": nftables.TypeInetService,
		"ipv4_addr":    nftables.TypeIPAddr, "ipv6_addr": nftables.TypeIP6Addr,
	}
	if len(names) == 1 {
		return known[names[0]]
	}
	var parts []nftables.SetDatatype
	for _, n := range names {
		parts = append(parts, known[n])
	}
	return nftables.MustConcatSetType(parts...)
}

func hook(name string) *nftables.ChainHook {
	return map[string]*nftables.ChainHook{
		"prerouting": nftables.ChainHookPrerouting, "output": nftables.ChainHookOutput,
		"forward": nftables.ChainHookForward, "postrouting": nftables.ChainHookPostrouting,
	}[name]
}

func (e Element) member() nftables.SetElement {
	return nftables.SetElement{Key: e.key, KeyEnd: e.end, Val: e.val}
}
