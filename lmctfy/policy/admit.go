package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Rule says which of the limits of admission a shortage is about.
type Rule string

const (
	// Reserved: reservations may not exceed the machine without its reserve, or the reservation of
	// a container above.
	Reserved Rule = "reserved"
	// Used: a batch container has to fit beside what is used now.
	Used Rule = "used"
	// Overcommitted: reservations and the asks of batch containers are bounded together.
	Overcommitted Rule = "overcommitted"
	// Pressed: no batch container is admitted while others are held back for want of the resource.
	Pressed Rule = "pressed"
)

// Holder is a container with what it holds of a resource.
type Holder struct {
	Name   string `json:"name"`
	Amount int64  `json:"amount"`
}

// Shortage is a resource that did not suffice, with the numbers; amounts are in the unit of the
// resource (thousandths of a CPU, bytes).
type Shortage struct {
	Resource Resource `json:"resource"`
	Rule     Rule     `json:"rule"`
	// Where is the container whose reservation did not suffice, or "/" for the machine.
	Where string `json:"where"`
	Asked int64  `json:"asked"`
	Free  int64  `json:"free"`
	Total int64  `json:"total"`
	// Holders are the containers that hold the rest, the largest first.
	Holders []Holder `json:"holders"`
}

// String returns the shortage as one line. At most five holders are named.
func (s Shortage) String() string {
	f := s.Resource.Format
	if s.Rule == Pressed {
		return fmt.Sprintf(
			"%s: batch containers are held back for want of it (level %d)", s.Resource, s.Total,
		)
	}
	var b strings.Builder
	fmt.Fprintf(
		&b, "%s: asked %s, free %s of %s", s.Resource, f(s.Asked), f(s.Free), f(s.Total),
	)
	switch s.Rule {
	case Used:
		b.WriteString(" by usage")
	case Overcommitted:
		b.WriteString(" with overcommit")
	}
	if s.Where != "/" {
		fmt.Fprintf(&b, " in %s", s.Where)
	}
	for i, h := range s.Holders {
		if i == 5 {
			fmt.Fprintf(&b, ", %d more", len(s.Holders)-i)
			break
		}
		fmt.Fprintf(&b, "%s%s %s", [...]string{"; held by ", ", "}[min(i, 1)], h.Name, f(h.Amount))
	}
	return b.String()
}

// Decision answers a request.
type Decision struct {
	Admitted bool   `json:"admitted"`
	Name     string `json:"name"`
	Class    Class  `json:"class"`
	Asked    Amount `json:"asked"`
	// Shortages say why a request is refused; none if it is admitted.
	Shortages []Shortage `json:"shortages,omitempty"`
}

// String returns the decision with its numbers as one line.
func (d Decision) String() string {
	if d.Admitted {
		return fmt.Sprintf(
			"admit %s (%s): cpu %s, memory %s", d.Name, d.Class, CPU.Format(d.Asked.CPUMilli),
			Memory.Format(d.Asked.MemoryBytes),
		)
	}
	var all []string
	for _, s := range d.Shortages {
		all = append(all, s.String())
	}
	return fmt.Sprintf("refuse %s (%s): %s", d.Name, d.Class, strings.Join(all, " | "))
}

// Admit decides whether a machine that has containers takes one more. A request with the name of a
// container replaces it (an update). Machine, containers and request have to be valid.
//
// A latency-sensitive request is admitted if what it asks for (Container.Asks) is not reserved yet
// in the nearest container above that reserves the resource, or on the machine. A container that
// reserves a resource holds that amount and its children share it; one that does not holds the sum
// of its children.
//
// A batch request is admitted if it fits beside what is used now, so that what others reserve and
// do not use is lent to it, and if all asks together stay within Machine.OvercommitPercent.
func Admit(m Machine, containers []Container, request Container) Decision {
	t := newTree(containers, request)
	d := Decision{Name: request.Name, Class: request.Class, Asked: request.Asks()}
	for r := range IO {
		total := r.of(m.Amount) - r.of(m.Reserve)
		if request.Class.Batch() {
			d.Shortages = append(d.Shortages, t.batchShortages(r, m, total)...)
		} else {
			d.Shortages = append(d.Shortages, t.reservationShortages(r, total)...)
		}
	}
	d.Admitted = len(d.Shortages) == 0
	return d
}

// tree is a set of containers by name, the request among them.
type tree struct {
	byName   map[string]Container
	children map[string][]string // by the parent's name, "/" for the machine; sorted
	request  Container
}

func newTree(containers []Container, request Container) tree {
	t := tree{map[string]Container{}, map[string][]string{}, request}
	for _, c := range containers {
		t.byName[c.Name] = c
	}
	request.Usage, request.Measured = t.byName[request.Name].Usage, false
	t.byName[request.Name] = request
	for name := range t.byName {
		p := t.parent(name)
		t.children[p] = append(t.children[p], name)
	}
	for _, c := range t.children {
		slices.Sort(c)
	}
	return t
}

// parent returns the nearest container above a name, or "/".
func (t tree) parent(name string) string {
	for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name, '/') {
		name = name[:i]
		if _, ok := t.byName[name]; ok {
			return name
		}
	}
	return "/"
}

// own is what a container reserves itself; batch containers reserve nothing.
func (t tree) own(r Resource, name string) int64 {
	if c := t.byName[name]; !c.Class.Batch() {
		return r.of(c.Asks())
	}
	return 0
}

// held is what a container with its children holds of a reserved resource.
func (t tree) held(r Resource, name string) int64 {
	if own := t.own(r, name); own > 0 {
		return own
	}
	return t.heldBelow(r, name)
}

func (t tree) heldBelow(r Resource, name string) (sum int64) {
	for _, child := range t.children[name] {
		sum += t.held(r, child)
	}
	return sum
}

// reservationShortages checks the request's reservation where it counts, and, for an update,
// against what its own children hold.
func (t tree) reservationShortages(r Resource, total int64) (all []Shortage) {
	own, name := t.own(r, t.request.Name), t.request.Name
	if below := t.heldBelow(r, name); own > 0 && below > own {
		all = append(all, Shortage{
			Resource: r, Rule: Reserved, Where: name, Asked: below, Free: own, Total: own,
			Holders: t.holders(r, name, ""),
		})
	}
	if t.held(r, name) == 0 {
		return all
	}
	where, child := t.parent(name), name
	for where != "/" && t.own(r, where) == 0 {
		where, child = t.parent(where), where
	}
	if where != "/" {
		total = t.own(r, where)
	}
	asked := t.held(r, name)
	if free := total - (t.heldBelow(r, where) - asked); asked > free {
		all = append(all, Shortage{
			Resource: r, Rule: Reserved, Where: where, Asked: asked, Free: free, Total: total,
			Holders: t.holders(r, where, child),
		})
	}
	return all
}

// holders lists what the children of a container hold, without the request's own part.
func (t tree) holders(r Resource, where, through string) (all []Holder) {
	for _, child := range t.children[where] {
		amount := t.held(r, child)
		if child == through {
			amount -= t.held(r, t.request.Name)
		}
		if amount > 0 {
			all = append(all, Holder{child, amount})
		}
	}
	return sorted(all)
}

// batchShortages checks a batch request against what is used and against the overcommit.
func (t tree) batchShortages(r Resource, m Machine, total int64) (all []Shortage) {
	asked := r.of(t.request.Asks())
	if asked == 0 {
		return nil
	}
	var used, held []Holder
	usedSum, heldSum := int64(0), int64(0)
	for _, name := range t.children["/"] {
		u, h := t.used(r, name), t.asks(r, name)
		if u > 0 {
			used = append(used, Holder{name, u})
		}
		if h > 0 {
			held = append(held, Holder{name, h})
		}
		usedSum, heldSum = usedSum+u, heldSum+h
	}
	if free := total - usedSum; asked > free {
		all = append(all, Shortage{r, Used, "/", asked, free, total, sorted(used)})
	}
	bound := total * cmp.Or(m.OvercommitPercent, DefaultOvercommit) / 100
	if free := bound - heldSum; asked > free {
		all = append(all, Shortage{r, Overcommitted, "/", asked, free, bound, sorted(held)})
	}
	return all
}

// used is what a container with its children uses, without the request. The usage of a container
// that was measured includes that of its children, except what new children will use.
func (t tree) used(r Resource, name string) int64 {
	if name == t.request.Name {
		return 0
	}
	below, fresh := int64(0), int64(0)
	for _, child := range t.children[name] {
		u := t.used(r, child)
		if below += u; !t.byName[child].Measured {
			fresh += u
		}
	}
	if c := t.byName[name]; c.Measured {
		return r.of(c.Usage) + fresh
	}
	return max(r.of(t.byName[name].uses()), below)
}

// asks is what a container with its children asks for, reserved or not, without the request.
func (t tree) asks(r Resource, name string) int64 {
	below := int64(0)
	for _, child := range t.children[name] {
		below += t.asks(r, child)
	}
	if name == t.request.Name {
		return below
	}
	return max(r.of(t.byName[name].Asks()), below)
}

func sorted(all []Holder) []Holder {
	slices.SortFunc(all, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(b.Amount, a.Amount), cmp.Compare(a.Name, b.Name))
	})
	return all
}
