package container

import (
	"encoding/json"
	"os"

	"strake/container/launch"
	"strake/container/ocijson"
	"strake/internal/rawfile"
)

// optionsFile holds those options of a held container's creation that its program depends on.
const optionsFile = "options.json"

type savedOptions struct {
	Tasks        int  `json:"tasks"`
	Late         bool `json:"late,omitempty"`
	PreserveFDs  int  `json:"preserveFDs,omitempty"`
	NoPivot      bool `json:"noPivot,omitempty"`
	NoNewKeyring bool `json:"noNewKeyring,omitempty"`
	// Whole: see plan.Host.
	Whole  []string `json:"whole,omitempty"`
	Reaper bool     `json:"reaper,omitempty"`
	Pipes  bool     `json:"pipes,omitempty"`
	// PlainTerminal: see plan.Options.
	PlainTerminal bool `json:"plainTerminal,omitempty"`
}

func (b *birth) saveOptions() error {
	raw, err := json.Marshal(savedOptions{
		Tasks: len(b.entry.Files), Late: b.entry.Late, PreserveFDs: b.opt.PreserveFDs,
		NoPivot: b.opt.NoPivot, NoNewKeyring: b.opt.NoNewKeyring, Reaper: b.opt.Reaper,
		Pipes: b.opt.Stdio != nil, Whole: b.whole, PlainTerminal: b.opt.PlainTerminal,
	})
	if err != nil {
		return err
	}
	return rawfile.Replace(b.c.dir, optionsFile, raw, 0o600)
}

func (b *birth) restoreOptions(raw []byte) error {
	var s savedOptions
	if err := ocijson.Decode(raw, &s); err != nil {
		return err
	}
	b.entry = launch.Nowhere()
	if s.Late {
		b.enterLate()
	} else {
		b.entry.Files = make([]int, s.Tasks)
	}
	b.opt.Hold, b.opt.PreserveFDs, b.opt.NoPivot = true, s.PreserveFDs, s.NoPivot
	b.opt.NoNewKeyring, b.opt.Reaper, b.whole = s.NoNewKeyring, s.Reaper, s.Whole
	b.opt.PlainTerminal = s.PlainTerminal
	if s.Pipes {
		b.opt.Stdio = new([3]*os.File)
	}
	return nil
}
