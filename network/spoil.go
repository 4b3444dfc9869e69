package network

// Spoil says that the preconditions of RecycleIfClean no longer hold for a container: a process
// with more rights has entered its namespace. It is destroyed after use. An unknown container is no
// error.
func (m *Manager) Spoil(containerID string) {
	m.mu.Lock()
	sb := m.sandboxes[containerID]
	m.mu.Unlock()
	if sb == nil {
		return
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	sb.recycling = DestroyAfterUse
}
