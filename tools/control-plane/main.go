// Command control-plane is a Kubernetes control plane for tests in one binary:
// etcd, kube-apiserver, kubectl, and the two controllers without which nothing
// that was deleted goes away. Which of them it is, the name it is called by
// says, or else its first argument.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// The programs read their flags from os.Args, each in its own way.
var programs = map[string]func() int{
	"etcd":             func() int { etcdmain.Main(os.Args); return 0 },
	"kube-apiserver":   func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kube-controllers": runControllers,
	"kubectl":          runKubectl,
}

func main() {
	for range 2 {
		if run := programs[filepath.Base(os.Args[0])]; run != nil {
			os.Exit(run())
		}
		if len(os.Args) > 1 {
			os.Args = os.Args[1:]
		}
	}
	names := make([]string, 0, len(programs))
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "usage: control-plane PROGRAM [FLAGS]\nprograms: %q\n", names)
	os.Exit(2)
}

func runKubectl() int {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
	return 0
}

func runControllers() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := controllers(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kube-controllers:", err)
		return 1
	}
	return 0
}
