package flowstore

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3 says how S3-compatible storage is reached. Keys come from the environment,
// from the files of the AWS and MinIO tools, or from the machine's role.
type S3 struct {
	Endpoint string // as in https://minio.shop.example:9000; that of AWS where it is empty
	Region   string
	Retries  int                    // of a request that the server could not answer; 10 where it is zero
	Lookup   minio.BucketLookupType // how addresses name the bucket; found by the endpoint where it is zero
}

// FromEnvironment returns the S3 that variables of the AWS tools name.
func FromEnvironment(getenv func(string) string) S3 {
	return S3{
		Endpoint: cmp.Or(getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL")),
		Region:   cmp.Or(getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION")),
	}
}

// with returns the S3 that the parameters of an address name.
func (s S3) with(parameters string) (S3, error) {
	values, err := url.ParseQuery(parameters)
	if err != nil {
		return s, errors.New("the parameters after ? are not well escaped")
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch value := values.Get(name); {
		case name == "endpoint":
			s.Endpoint = value
		case name == "region":
			s.Region = value
		case name == "path-style" && value == "true":
			s.Lookup = minio.BucketLookupPath
		case name == "path-style" && value == "false":
			s.Lookup = minio.BucketLookupDNS
		case name == "path-style":
			errs = append(errs, fmt.Errorf("path-style=%s is neither true nor false", value))
		default:
			errs = append(errs, fmt.Errorf("parameter %q is none of endpoint, region, path-style", name))
		}
	}
	return s, errors.Join(errs...)
}

// bucket is a folder of a bucket.
type bucket struct {
	client *minio.Client
	name   string
	prefix string // ends in a slash
	tmp    string
	blocks blockCache
}

func openBucket(ctx context.Context, where string, o Options) (*bucket, error) {
	where, parameters, _ := strings.Cut(where, "?")
	s3, err := o.S3.with(parameters)
	if err != nil {
		return nil, err
	}
	name, prefix, _ := strings.Cut(where, "/")
	if name == "" {
		return nil, errors.New("it names no bucket; write s3://bucket/prefix")
	}
	endpoint := cmp.Or(s3.Endpoint, "https://s3.amazonaws.com")
	at, err := url.Parse(endpoint)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, fmt.Errorf("endpoint %q is not of the form https://host:port", endpoint)
	}
	client, err := minio.New(at.Host, &minio.Options{
		Secure: at.Scheme == "https", Region: s3.Region, MaxRetries: s3.Retries, BucketLookup: s3.Lookup,
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{}, &credentials.FileMinioClient{}, &credentials.IAM{},
		}),
	})
	if err != nil {
		return nil, err
	}
	b := &bucket{client: client, name: name, prefix: path.Join(prefix, "v1") + "/", tmp: os.TempDir()}
	b.blocks.most = maxBlocks
	check := b.checkConditions
	if o.ReadOnly {
		check = b.exists
	}
	if err := check(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// exists fails with fs.ErrNotExist where nothing is in the store.
func (b *bucket) exists(ctx context.Context) error {
	found := errors.New("found")
	err := b.list(ctx, logFolder, "", func(entry) error { return found })
	switch {
	case errors.Is(err, found):
		return nil
	case err == nil:
		return fs.ErrNotExist
	}
	return err
}

// checkConditions makes sure that the server refuses to write a file twice where
// it is asked to: without that, two writers would undo each other's commits.
func (b *bucket) checkConditions(ctx context.Context) error {
	const probe = "once"
	text := []byte("A file that no server may write twice.\n")
	err := b.putNew(ctx, probe, text)
	if err == nil {
		err = b.putNew(ctx, probe, text)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err == nil:
		return errors.New("the server writes a file again though asked not to (If-None-Match); a flow store needs one that does not, such as AWS S3, MinIO or Ceph of today")
	}
	return err
}

func (b *bucket) String() string {
	return "s3://" + b.name + "/" + strings.TrimSuffix(b.prefix, "/")
}

func (b *bucket) spool() (*os.File, error) { return os.CreateTemp(b.tmp, "weir-*.parquet") }

func (b *bucket) sweep(time.Time) error { return nil }

func (b *bucket) put(ctx context.Context, name string, spooled *os.File) error {
	info, err := spooled.Stat()
	if err != nil {
		return err
	}
	if _, err := spooled.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = b.client.PutObject(ctx, b.name, b.prefix+name, spooled, info.Size(), minio.PutObjectOptions{ContentType: "application/vnd.apache.parquet"})
	return b.explain(err)
}

func (b *bucket) putNew(ctx context.Context, name string, data []byte) error {
	o := minio.PutObjectOptions{ContentType: "application/json", DisableMultipart: true}
	o.SetMatchETagExcept("*")
	_, err := b.client.PutObject(ctx, b.name, b.prefix+name, bytes.NewReader(data), int64(len(data)), o)
	return b.explain(err)
}

func (b *bucket) open(ctx context.Context, name string) (blob, error) {
	info, err := b.client.StatObject(ctx, b.name, b.prefix+name, minio.StatObjectOptions{})
	if err != nil {
		return nil, b.explain(err)
	}
	return &remoteBlob{ctx: ctx, bucket: b, key: name, bytes: info.Size}, nil
}

func (b *bucket) list(ctx context.Context, under, after string, each func(entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := minio.ListObjectsOptions{Prefix: b.prefix + under, Recursive: true}
	if after != "" {
		o.StartAfter = b.prefix + after
	}
	for object := range b.client.ListObjectsIter(ctx, b.name, o) {
		if object.Err != nil {
			return b.explain(object.Err)
		}
		name := strings.TrimPrefix(object.Key, b.prefix)
		if name <= after {
			continue
		}
		if err := each(entry{name, object.Size, object.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *bucket) remove(ctx context.Context, name string) error {
	err := b.explain(b.client.RemoveObject(ctx, b.name, b.prefix+name, minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// explain says what an error of the server means here.
func (b *bucket) explain(err error) error {
	if err == nil {
		return nil
	}
	response := minio.ToErrorResponse(err)
	switch {
	case response.Code == "PreconditionFailed" || response.StatusCode == http.StatusPreconditionFailed:
		return fs.ErrExist
	case response.Code == "NoSuchKey":
		return fs.ErrNotExist
	case response.Code == "NoSuchBucket":
		return fmt.Errorf("there is no bucket %s; make it first", b.name)
	case response.StatusCode == http.StatusNotFound && response.Code != "NoSuchBucket":
		return fs.ErrNotExist
	case response.StatusCode == http.StatusForbidden:
		return fmt.Errorf("the server does not let these keys do that (%w); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to ones that may read, write, list and delete", err)
	case response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("the server keeps answering %d, after several tries: %w", response.StatusCode, err)
	}
	return err
}

// remoteBlob reads a file of a bucket by blocks.
type remoteBlob struct {
	ctx    context.Context
	bucket *bucket
	key    string
	bytes  int64
}

// All that is kept of a bucket's files: 128 MB, however many are open.
const (
	blockSize = 1 << 20
	maxBlocks = 128
)

// blockCache keeps the blocks of files that were used last.
type blockCache struct {
	most int

	mu     sync.Mutex
	blocks map[blockKey]*list.Element
	recent list.List // of cachedBlock, the last used first
}

type blockKey struct {
	file string
	at   int64
}

type cachedBlock struct {
	blockKey
	data []byte
}

func (c *blockCache) get(key blockKey) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.blocks[key]
	if !ok {
		return nil, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(cachedBlock).data, true
}

func (c *blockCache) put(key blockKey, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.blocks[key]; ok {
		return
	}
	if c.blocks == nil {
		c.blocks = map[blockKey]*list.Element{}
	}
	if len(c.blocks) >= c.most {
		delete(c.blocks, c.recent.Remove(c.recent.Back()).(cachedBlock).blockKey)
	}
	c.blocks[key] = c.recent.PushFront(cachedBlock{key, data})
}

func (r *remoteBlob) size() int64  { return r.bytes }
func (r *remoteBlob) name() string { return r.bucket.String() + "/" + r.key }
func (r *remoteBlob) close()       {}

func (r *remoteBlob) ReadAt(to []byte, at int64) (int, error) {
	n := 0
	for n < len(to) {
		if at >= r.bytes {
			return n, io.EOF
		}
		block, err := r.block(at / blockSize)
		if err != nil {
			return n, err
		}
		m := copy(to[n:], block[at%blockSize:])
		n += m
		at += int64(m)
	}
	return n, nil
}

func (r *remoteBlob) block(i int64) ([]byte, error) {
	key := blockKey{r.key, i}
	if block, ok := r.bucket.blocks.get(key); ok {
		return block, nil
	}
	var o minio.GetObjectOptions
	first, last := i*blockSize, min((i+1)*blockSize, r.bytes)-1
	if err := o.SetRange(first, last); err != nil {
		return nil, err
	}
	object, err := r.bucket.client.GetObject(r.ctx, r.bucket.name, r.bucket.prefix+r.key, o)
	if err != nil {
		return nil, r.bucket.explain(err)
	}
	defer object.Close() //nolint:errcheck // all that was wanted is read
	block := make([]byte, last-first+1)
	if _, err := io.ReadFull(object, block); err != nil {
		return nil, fmt.Errorf("%s: %w", r.name(), r.bucket.explain(err))
	}
	r.bucket.blocks.put(key, block)
	return block, nil
}
