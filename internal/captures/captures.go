// Package captures starts, lists, stops and downloads PacketCaptures where somebody
// declares them: in the folder of a router's agent, or in a cluster.
package captures

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/internal/pack"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Store is where captures are declared.
type Store interface {
	// Create declares a capture that is not there yet, and says where.
	Create(ctx context.Context, c v1alpha1.PacketCapture) (where string, err error)
	// List returns those of a namespace, of all where that is empty, by name.
	List(ctx context.Context, namespace string) ([]v1alpha1.PacketCapture, error)
	// Stop makes a capture end at a time, and returns it. One that has ended before
	// stays as it is.
	Stop(ctx context.Context, namespace, name string, at time.Time) (v1alpha1.PacketCapture, error)
	// Delete takes a capture away, and its files with it.
	Delete(ctx context.Context, namespace, name string) error
	// Download copies the files of a capture to a folder, below its namespace and name,
	// and of a cluster the node's too. It returns the capture with what was copied as its
	// state on each node. Only the owner may read the copies.
	Download(ctx context.Context, namespace, name, to string) (v1alpha1.PacketCapture, error)
}

// Folder is where a router's agent reads its world, and where it keeps the files. Only
// what is asked for needs to be set.
type Folder struct {
	World string
	Files string
}

// fileOf is where a capture is declared that Create wrote.
func (f Folder) fileOf(namespace, name string) string {
	return filepath.Join(f.World, "packetcapture."+namespace+"."+name+".yaml")
}

// Create writes a file for the capture.
func (f Folder) Create(_ context.Context, c v1alpha1.PacketCapture) (string, error) {
	name := f.fileOf(c.Metadata.Namespace, c.Metadata.Name)
	if _, err := os.Stat(name); err == nil {
		return "", fmt.Errorf("%s is there already; choose another name, or remove it: weir capture stop --delete", name)
	}
	return name, writeCapture(name, c)
}

// YAML writes a capture as it is declared.
func YAML(c v1alpha1.PacketCapture) ([]byte, error) {
	c.Status = v1alpha1.PacketCaptureStatus{}
	return yaml.Marshal(c)
}

func writeCapture(name string, c v1alpha1.PacketCapture) error {
	text, err := YAML(c)
	if err != nil {
		return err
	}
	// Under its name it is whole, for the agent looks at any moment.
	if err := os.WriteFile(name+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// List returns what the agent last said of the captures.
func (f Folder) List(_ context.Context, namespace string) ([]v1alpha1.PacketCapture, error) {
	name := filepath.Join(f.Files, v1alpha1.CaptureStateFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not there; is it the folder that weir-agent --capture-dir names, and does the agent run?", name)
	}
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []v1alpha1.PacketCapture `json:"items"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return only(list.Items, namespace), nil
}

func only(all []v1alpha1.PacketCapture, namespace string) []v1alpha1.PacketCapture {
	return slices.DeleteFunc(all, func(c v1alpha1.PacketCapture) bool { return namespace != "" && c.Metadata.Namespace != namespace })
}

func (f Folder) read(namespace, name string) (c v1alpha1.PacketCapture, file string, err error) {
	file = f.fileOf(namespace, name)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, file, fmt.Errorf("%s is not there; captures of other files end when their endTime is set there", file)
	}
	if err == nil {
		err = yaml.Unmarshal(text, &c)
	}
	if err != nil {
		return c, file, fmt.Errorf("%s: %w", file, err)
	}
	return c, file, nil
}

// Stop sets the end of a capture that Create wrote.
func (f Folder) Stop(_ context.Context, namespace, name string, at time.Time) (v1alpha1.PacketCapture, error) {
	c, file, err := f.read(namespace, name)
	if err != nil || !end(&c.Spec, at) {
		return c, err
	}
	return c, writeCapture(file, c)
}

// end makes a capture end at a time, and reports whether it would not have. One that
// would begin later never does.
func end(s *v1alpha1.PacketCaptureSpec, at time.Time) bool {
	if t, err := time.Parse(time.RFC3339, s.EndTime); err == nil && !t.After(at) {
		return false
	}
	at = at.UTC().Truncate(time.Second)
	if t, err := time.Parse(time.RFC3339, s.StartTime); err == nil && !t.Before(at) {
		s.StartTime = ""
	}
	s.EndTime = at.Format(time.RFC3339)
	return true
}

// Delete removes the file of a capture that Create wrote; the agent removes the packets.
func (f Folder) Delete(_ context.Context, namespace, name string) error {
	_, file, err := f.read(namespace, name)
	if err != nil {
		return err
	}
	return os.Remove(file)
}

// Download copies the files of the capture to the folder.
func (f Folder) Download(ctx context.Context, namespace, name, to string) (v1alpha1.PacketCapture, error) {
	c, err := find(ctx, f, namespace, name)
	if err != nil {
		return c, err
	}
	to = filepath.Join(to, namespace, name)
	names, err := receive(to, func(w io.Writer) error {
		return pack.Write(w, filepath.Join(f.Files, namespace, name), v1alpha1.CaptureFileSuffix)
	})
	for i := range c.Status.Files {
		c.Status.Files[i].Directory, c.Status.Files[i].FileNames = to, names
	}
	return c, err
}

// find returns a capture.
func find(ctx context.Context, s Store, namespace, name string) (v1alpha1.PacketCapture, error) {
	all, err := s.List(ctx, namespace)
	if err != nil {
		return v1alpha1.PacketCapture{}, err
	}
	at := slices.IndexFunc(all, func(c v1alpha1.PacketCapture) bool {
		return c.Metadata.Name == name && c.Metadata.Namespace == namespace
	})
	if at < 0 {
		return v1alpha1.PacketCapture{}, fmt.Errorf("there is no capture %s/%s; weir capture list says which there are", namespace, name)
	}
	return all[at], nil
}

// receive makes the files that send packs in a folder, and returns their names.
func receive(to string, send func(io.Writer) error) ([]string, error) {
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := send(w)
		sent <- err
		w.CloseWithError(err)
	}()
	names, err := pack.Read(r, to)
	r.CloseWithError(err)
	if errSent := <-sent; errSent != nil && err != nil {
		err = errSent // why the other one saw no end
	}
	return names, err
}
