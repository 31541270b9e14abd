package k8s_test

import (
	"testing"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies/k8s"
)

var repositories = []worlds.Shape{worlds.OpenRepository, worlds.PolicyRepository}

// BenchmarkParse turns manifests into documents: the work of the YAML library.
func BenchmarkParse(b *testing.B) {
	for _, shape := range repositories {
		b.Run(shape.String(), func(b *testing.B) {
			files := worlds.Files(shape.Model(1))
			size := 0
			for _, file := range files {
				size += len(file.Data)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				for name, file := range files {
					if _, err := k8s.Parse(name, file.Data); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkReadDocuments makes a model of documents that are parsed already.
func BenchmarkReadDocuments(b *testing.B) {
	for _, shape := range repositories {
		b.Run(shape.String(), func(b *testing.B) {
			var docs []k8s.Document
			for name, file := range worlds.Files(shape.Model(1)) {
				parsed, err := k8s.Parse(name, file.Data)
				if err != nil {
					b.Fatal(err)
				}
				docs = append(docs, parsed...)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k8s.Read(docs, k8s.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
