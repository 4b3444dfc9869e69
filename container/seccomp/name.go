package seccomp

// Has says whether an architecture (GOARCH, "amd64" or "arm64") has a system call of a name, in its
// native ABI or in one of those that its kernel runs beside it.
func Has(arch, name string) bool {
	row := lookup(name)
	if row == nil {
		return false
	}
	for _, a := range abisOf(arch) {
		if row.slot[a] >= 0 {
			return true
		}
	}
	return false
}

// Name is the name of the system call with a number in the native ABI of an architecture.
func Name(arch string, number int) (name string, ok bool) {
	abis := abisOf(arch)
	if len(abis) == 0 || number < 0 || number >= ordinarySlots {
		return "", false
	}
	for i := range syscallTable {
		if int(syscallTable[i].slot[abis[0]]) == number {
			return syscallTable[i].name, true
		}
	}
	return "", false
}

// abisOf are the ABIs of an architecture, the native one first.
func abisOf(arch string) []abi {
	switch arch {
	case "amd64":
		return []abi{abiX86_64, abiX86, abiX32}
	case "arm64":
		return []abi{abiAarch64, abiARM}
	}
	return nil
}
