package docker

import "net/http"

// buildAPI serves the endpoints of builds that have an answer without a builder.
type buildAPI struct{}

func (a buildAPI) routes() map[string]handler {
	return map[string]handler{"POST /build/prune": a.prune}
}

// prune reports that nothing was removed, because there is no build cache. docker system prune
// sends this request and fails if the answer is an error.
func (buildAPI) prune(w http.ResponseWriter, r *request) error {
	return writeJSON(w, http.StatusOK, struct {
		CachesDeleted  []string
		SpaceReclaimed uint64
	}{CachesDeleted: []string{}})
}
