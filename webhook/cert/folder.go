package cert

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// reread is how often a folder is read even though nothing was heard of it.
const reread = 10 * time.Second

// watchFolder shows what a folder holds, and what it holds after a change.
func (c *Certificates) watchFolder(ctx context.Context) error {
	folder := c.options.Folder
	watcher, err := c.openFolder(ctx, filepath.Join(folder, shownFile), filepath.Join(folder, keyFile))
	if watcher == nil {
		return err
	}
	take := func(shown tls.Certificate) {
		issuers, err := os.ReadFile(filepath.Join(folder, issuerFile))
		if err == nil {
			err = c.trust(issuers)
		}
		if err != nil {
			err = fmt.Errorf("who issued the certificate is not known, so that no replica trusts another one: %w", err)
			log.FromContext(ctx).Error(err, "read the certificate's issuer")
		}
		c.trouble.Store(&err)
		c.shown.Store(&shown)
	}
	watcher.RegisterCallback(take)
	return watcher.WithWatchInterval(reread).Start(ctx)
}

// openFolder waits for files that are not there yet; nil when ctx ends before.
func (c *Certificates) openFolder(ctx context.Context, shown, key string) (*certwatcher.CertWatcher, error) {
	for {
		watcher, err := certwatcher.New(shown, key)
		if err == nil {
			return watcher, nil
		}
		c.trouble.Store(&err)
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("certificate in %s: %w", c.options.Folder, err)
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(time.Second):
		}
	}
}
