package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// call makes one request and returns the body of a successful answer.
func (c *api) call(method, path, body string) ([]byte, error) {
	req, err := http.NewRequest(method, "http://engine/v1.41"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	return raw, err
}

func (c *api) create(body string) (string, error) {
	raw, err := c.call(http.MethodPost, "/containers/create", body)
	if err != nil {
		return "", err
	}
	var out struct{ ID string }
	if err := json.Unmarshal(raw, &out); err != nil {
		return "", err
	}
	return out.ID, nil
}

func (c *api) post(path string) error {
	_, err := c.call(http.MethodPost, path, "")
	return err
}

func (c *api) remove(id string) error {
	_, err := c.call(http.MethodDelete, "/containers/"+id+"?force=1", "")
	return err
}

// cycle is the life of one container.
func (c *api) cycle() error {
	id, err := c.create(`{"Image":"bench","Cmd":["true"]}`)
	if err != nil {
		return err
	}
	for _, step := range []string{"/start", "/wait"} {
		if err := c.post("/containers/" + id + step); err != nil {
			return err
		}
	}
	return c.remove(id)
}
