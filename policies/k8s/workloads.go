package k8s

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// pod is a real pod as it was read.
type pod struct {
	policies.Pod
	owner   policies.Ref // zero when it has none
	hash    string       // the pod-template-hash that its ReplicaSet's name ends in
	ignored bool         // it runs no more, or has no address yet
}

// workload is an owner of pods as it was read.
type workload struct {
	pod
	owned   bool // by something that makes a new one for each revision or run
	earlier *pod // what its template said before, where its pods are of the new one already
	goes    bool // with all that it owns
}

const templateHash = "pod-template-hash"

func (r *reader) readPod(o object) {
	p := pod{owner: owner(o), Pod: policies.Pod{Ref: o.ref, Replicas: 1, Place: o.place()}}
	p.read(o.meta, o.field("spec"))
	p.hash = p.Labels[templateHash]
	if made := o.meta.field("creationTimestamp"); made.present() {
		p.Since, _ = time.Parse(time.RFC3339, made.node.Value) // zero where it is null
	}

	status := o.field("status")
	for _, ip := range status.field("podIPs").items() {
		p.Addresses = appendAddress(p.Addresses, ip.field("ip"))
	}
	p.Addresses = appendAddress(p.Addresses, status.field("podIP"))
	if p.HostNetwork && len(p.Addresses) == 0 {
		for _, ip := range status.field("hostIPs").items() {
			p.Addresses = appendAddress(p.Addresses, ip.field("ip"))
		}
		p.Addresses = appendAddress(p.Addresses, status.field("hostIP"))
	}
	switch status.field("phase").text() {
	case "":
	case "Succeeded", "Failed":
		p.ignored = true
	default:
		p.ignored = len(p.Addresses) == 0 && !p.HostNetwork
	}
	r.pods = append(r.pods, p)
}

func (r *reader) readWorkload(o object) {
	spec := o.field("spec")
	replicas := int64(2) // a DaemonSet's pods: how many there are, its nodes say
	if o.ref.Kind != "DaemonSet" {
		replicas = count(spec.field("replicas"))
	}
	r.addWorkload(o, spec, replicas)
}

func (r *reader) readJob(o object) {
	spec := o.field("spec")
	w := r.addWorkload(o, spec, count(spec.field("parallelism")))
	for _, c := range o.field("status").field("conditions").items() {
		done := c.field("type").text()
		if (done == "Complete" || done == "Failed") && c.field("status").text() == "True" {
			w.ignored = true
		}
	}
	r.workloads[o.ref] = w
}

func (r *reader) readCronJob(o object) {
	spec := o.field("spec").field("jobTemplate").field("spec")
	r.addWorkload(o, spec, count(spec.field("parallelism")))
}

// count reads how many pods a workload asks for.
func count(v value) int64 {
	if !v.present() {
		return 1
	}
	n, _ := v.integer(0, 1<<31-1)
	return n
}

func (r *reader) addWorkload(o object, spec value, replicas int64) workload {
	w := workload{pod: pod{owner: owner(o), Pod: policies.Pod{Ref: o.ref, Replicas: int(replicas), Place: o.place()}}}
	w.owned = w.owner != policies.Ref{}
	template := spec.field("template")
	if !template.present() {
		spec.orElse(o.value).problem("%s %s has no template of its pods", o.ref.Kind, o.ref)
	}
	w.read(template.field("metadata"), template.field("spec"))
	r.workloads[o.ref] = w
	return w
}

// read reads the parts that a pod and a template have in common.
func (p *pod) read(meta, spec value) {
	p.Labels = meta.field("labels").labels()
	p.HostNetwork = spec.field("hostNetwork").boolean()
	p.Node = spec.field("nodeName").text()
	if p.HostNetwork {
		p.NodeLabels = nodeLabels(spec)
	}
	p.ServiceAccount = "default"
	for _, name := range []string{"serviceAccount", "serviceAccountName"} {
		if account := spec.field(name).text(); account != "" {
			p.ServiceAccount = account
		}
	}
	for _, c := range spec.field("containers").items() {
		p.readPorts(c)
	}
	for _, c := range spec.field("initContainers").items() {
		// Such an init container is a sidecar: it keeps running.
		if c.field("restartPolicy").text() == "Always" {
			p.readPorts(c)
		}
	}
}

// nodeLabels returns what a pod on the host's network says of its node: the
// labels it asks for, and the operating system, of which only Linux lends its
// network to pods, save to those that are processes of a Windows host.
func nodeLabels(spec value) map[string]string {
	labels := spec.field("nodeSelector").labels()
	if labels == nil {
		labels = map[string]string{}
	}
	system := spec.field("os").field("name").text()
	onWindows := spec.field("securityContext").field("windowsOptions").field("hostProcess").boolean()
	if system == "" && !onWindows {
		system = "linux"
	}
	if _, asked := labels[osLabel]; !asked && system != "" {
		labels[osLabel] = system
	}
	return labels
}

// osLabel is what every kubelet sets to the operating system of its node.
const osLabel = "kubernetes.io/os"

func (p *pod) readPorts(container value) {
	for _, port := range container.field("ports").items() {
		number := port.field("containerPort")
		if !number.present() {
			port.problem("a container port without containerPort; give it a number")
			continue
		}
		if n, ok := number.integer(1, 65535); ok {
			p.Ports = append(p.Ports, policies.ContainerPort{
				Name:     port.field("name").text(),
				Protocol: port.field("protocol").protocol(),
				Number:   uint16(n),
			})
		}
	}
}

// protocol returns TCP when the value is absent or was reported.
func (v value) protocol() netset.Protocol {
	text := v.text()
	for _, p := range netset.Transports {
		if text == p.String() {
			return p
		}
		if strings.EqualFold(text, p.String()) {
			v.problem("protocol %q is unknown; did you mean %q?", text, p)
			return p
		}
	}
	if text != "" {
		v.problem("protocol %q is none of TCP, UDP, SCTP", text)
	}
	return netset.TCP
}

func appendAddress(addresses []netip.Addr, v value) []netip.Addr {
	if a := v.address(); a.IsValid() && !slices.Contains(addresses, a) {
		return append(addresses, a)
	}
	return addresses
}

// owner returns the controller among the owners, in the object's namespace.
func owner(o object) policies.Ref {
	for _, reference := range o.meta.field("ownerReferences").items() {
		kind := reference.field("kind").text()
		// A node owns the static pods that run on it, which make no workload.
		if reference.field("controller").boolean() && kind != "Node" {
			return policies.Ref{Kind: kind, Namespace: o.ref.Namespace, Name: reference.field("name").text()}
		}
	}
	return policies.Ref{}
}

// owned are the pods and workloads of one namespace, or of several.
type owned struct {
	pods      []pod
	workloads map[policies.Ref]workload
}

// owners returns the chain of a pod's or a workload's owners, outermost last.
func (o owned) owners(p pod) []policies.Ref {
	var chain []policies.Ref
	for next := p.owner; next != (policies.Ref{}) && !slices.Contains(chain, next); {
		chain = append(chain, next)
		w, known := o.workloads[next]
		if known {
			next = w.owner
			continue
		}
		name, cut := strings.CutSuffix(next.Name, "-"+p.hash)
		if next.Kind != "ReplicaSet" || p.hash == "" || !cut {
			break
		}
		next = policies.Ref{Kind: "Deployment", Namespace: next.Namespace, Name: name}
	}
	return chain
}

// nodeNames are the nodes by their addresses, and these by the names of nodes.
type nodeNames struct {
	addresses map[string][]netip.Addr
	at        map[netip.Addr]string
}

func namesOf(nodes []policies.Node) nodeNames {
	names := nodeNames{map[string][]netip.Addr{}, map[netip.Addr]string{}}
	for _, n := range nodes {
		names.addresses[n.Name] = n.Addresses
		for _, a := range n.Addresses {
			names.at[a] = n.Name
		}
	}
	return names
}

// resolve returns the pods that run, and the templates that none of these shows, each
// with its workload.
func (o owned) resolve(nodes nodeNames) []policies.Pod {
	var pods []policies.Pod
	templates := o.templates()
	for _, p := range o.pods {
		if p.ignored {
			continue
		}
		chain := o.owners(p)
		if o.goes(chain) {
			continue
		}
		p.Workload = outermost(p, chain)
		for _, t := range templates[p.Workload] {
			if t.earlier != nil && slices.Contains(chain, t.Ref) {
				p = o.renewed(p, t.workload)
			}
			t.isShown = t.isShown || o.shows(p, t.workload)
		}
		pods = append(pods, p.Pod)
	}
	for _, revisions := range templates {
		for _, t := range revisions {
			if !t.isShown {
				pods = append(pods, t.Pod)
			}
		}
	}
	for i, p := range pods {
		switch {
		case !p.HostNetwork:
		case p.Node == "" && len(p.Addresses) > 0:
			pods[i].Node = nodes.at[p.Addresses[0]]
		case p.Node != "" && len(p.Addresses) == 0:
			pods[i].Addresses = nodes.addresses[p.Node]
		}
	}
	slices.SortFunc(pods, func(a, b policies.Pod) int {
		return cmp.Or(a.Ref.Compare(b.Ref), a.Place.Compare(b.Place)) // names still to come may be the same
	})
	return pods
}

// template is what the pods of a workload are made of by now.
type template struct {
	workload
	isShown bool // by a pod
}

// templates returns those of which there may be pods, by the outermost workload.
func (o owned) templates() map[policies.Ref][]*template {
	all := map[policies.Ref][]*template{}
	for _, ref := range slices.SortedFunc(maps.Keys(o.workloads), policies.Ref.Compare) {
		w := o.workloads[ref]
		chain := o.owners(w.pod)
		w.Workload = outermost(w.pod, chain)
		owner, ownerGiven := o.workloads[w.owner]
		isOldRevision := w.owned && w.Replicas == 0
		if !w.ignored && !w.goes && !o.goes(chain) && !isOldRevision && !(ownerGiven && (owner.earlier != nil || w.isMadeOf(owner.pod))) {
			all[w.Workload] = append(all[w.Workload], &template{workload: w})
		}
	}
	return all
}

// shows reports whether a pod is one of those that are made of a template of its
// workload, and not of an earlier one.
func (o owned) shows(p pod, template workload) bool {
	revision, known := o.workloads[p.owner]
	if known && template.earlier == nil && p.owner != template.Ref && !revision.isMadeOf(template.pod) {
		return false
	}
	return p.has(template.pod)
}

// After returns the entry of what was another one before, once that has had its
// effect: if a workload's template says something else, its pods do, too.
func (e *Entry) After(was *Entry) *Entry {
	w, isWorkload := e.part.(*workload)
	if !isWorkload || !holds[*workload](was) {
		return e
	}
	old := was.part.(*workload).pod
	if w.isMadeOf(old) && old.isMadeOf(w.pod) {
		return e
	}
	after, renews := *e, *w
	renews.earlier = &old
	after.part = &renews
	return &after
}

// Gone returns what is put in the place of a workload where it goes with all that it
// owns; nil where the object is nothing that owns pods.
func (e *Entry) Gone() *Entry {
	w, isWorkload := e.part.(*workload)
	if !isWorkload {
		return nil
	}
	gone, goes := *e, *w
	goes.goes = true
	gone.part, gone.warnings, gone.problems = &goes, nil, nil
	return &gone
}

// goes reports whether one of these owners does.
func (o owned) goes(owners []policies.Ref) bool {
	return slices.ContainsFunc(owners, func(ref policies.Ref) bool { return o.workloads[ref].goes })
}

// IsMadeOf reports whether an object is a pod, or owns pods, of which a workload's template
// says all that it says.
func (e *Entry) IsMadeOf(owner *Entry) bool {
	if !holds[*workload](owner) {
		return false
	}
	template := owner.part.(*workload).pod
	switch p := e.part.(type) {
	case *pod:
		return p.isMadeOf(template)
	case *workload:
		return p.isMadeOf(template)
	}
	return false
}

// renewed returns a pod as its workload makes it of its new template. What others put
// in stays, and so do its name and its addresses.
func (o owned) renewed(p pod, w workload) pod {
	old := *w.earlier
	if revision, known := o.workloads[p.owner]; known && p.owner != w.Ref {
		old = revision.pod
	}
	p.Labels = maps.Clone(p.Labels)
	maps.DeleteFunc(p.Labels, func(key, _ string) bool { _, said := old.Labels[key]; return said && key != templateHash })
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	maps.Copy(p.Labels, w.Labels)
	p.Ports = slices.DeleteFunc(slices.Clone(p.Ports), func(port policies.ContainerPort) bool { return slices.Contains(old.Ports, port) })
	p.Ports = append(p.Ports, w.Ports...)
	if p.HostNetwork != w.HostNetwork {
		p.Addresses = nil
	}
	p.ServiceAccount, p.HostNetwork, p.NodeLabels = w.ServiceAccount, w.HostNetwork, w.NodeLabels
	return p
}

// has reports whether a pod is what a template says, and perhaps more: others may
// have put labels and containers in.
func (p pod) has(template pod) bool {
	return p.ServiceAccount == template.ServiceAccount && p.HostNetwork == template.HostNetwork &&
		hasLabels(p.Labels, template.Labels) && hasLabels(p.NodeLabels, template.NodeLabels) && hasPorts(p.Ports, template.Ports)
}

// isMadeOf reports whether a pod, or the template of a revision, is what a template
// says and no more.
func (p pod) isMadeOf(template pod) bool {
	for key, value := range p.Labels {
		_, said := template.Labels[key]
		isName := key != podName || value == p.Ref.Name
		if !said && (!slices.Contains(addedLabels[template.Ref.Kind], key) || !isName) && key != templateHash {
			return false
		}
	}
	return p.has(template) && hasLabels(template.NodeLabels, p.NodeLabels) && hasPorts(template.Ports, p.Ports)
}

func hasLabels(labels, wanted map[string]string) bool {
	for key, value := range wanted {
		if had, has := labels[key]; (!has || had != value) && key != templateHash {
			return false
		}
	}
	return true
}

func hasPorts(ports, wanted []policies.ContainerPort) bool {
	return !slices.ContainsFunc(wanted, func(p policies.ContainerPort) bool { return !slices.Contains(ports, p) })
}

const podName = "statefulset.kubernetes.io/pod-name"

// addedLabels are those that Kubernetes gives the pods of a kind of workload beside
// what their template says.
var addedLabels = map[string][]string{
	"CronJob":     ofJobs,
	"DaemonSet":   {"controller-revision-hash", "pod-template-generation"},
	"Job":         ofJobs,
	"StatefulSet": {"controller-revision-hash", "apps.kubernetes.io/pod-index", podName},
}

var ofJobs = []string{"batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/job-name", "controller-uid", "job-name"}

func outermost(p pod, owners []policies.Ref) policies.Ref {
	if len(owners) == 0 {
		return p.Ref
	}
	return owners[len(owners)-1]
}
