package docker

import "net/http"

// buildAPI serves the endpoints of builds that have an answer although nothing is built here.
type buildAPI struct{}

func (a buildAPI) routes() map[string]handler {
	return map[string]handler{"POST /build/prune": a.prune}
}

// prune reports that nothing was removed: there is no cache of builds. docker system prune asks for
// it and takes 501 for its own failure.
func (buildAPI) prune(w http.ResponseWriter, r *request) error {
	return writeJSON(w, http.StatusOK, struct {
		CachesDeleted  []string
		SpaceReclaimed uint64
	}{CachesDeleted: []string{}})
}
