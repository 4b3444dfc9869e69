package plan

// Kind says what an Assist does.
type Kind int

const (
	// MakeTarget makes the path Assist.Path below the first descriptor, the container's root: a
	// directory if the second descriptor is one, else an empty file. Links are followed inside of
	// the root, and what they lead to is made too.
	MakeTarget Kind = iota
	// CopyUp copies what is in the directory of the first descriptor into the new filesystem of the
	// second one.
	CopyUp
	// MapTree applies the mappings of Assist.Tree to the mount of the first descriptor, which is
	// attached nowhere: that wants a right over the filesystem which the child may not have.
	MapTree
	// MoveDevices moves linux.netDevices into the network namespace of the child.
	MoveDevices
)

// Assist is work that a program asks of its spawner, which has to look at files: it sends two
// messages with the stage program.StageAssist plus the Assist's place in Plan.Assists, each with a
// descriptor, and waits.
type Assist struct {
	Kind  Kind
	Field string
	Path  string
	// Owner says that the new filesystem's root gets the owner of the directory.
	Owner bool
	// Tree is what MapTree works on, without a name.
	Tree Tree
	// Continue is how many times the child is continued when the work is done.
	Continue int
}
