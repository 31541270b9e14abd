package v1alpha1

import _ "embed" // the definition beside the types

// KindPacketCapture is the kind of a PacketCapture.
const KindPacketCapture = "PacketCapture"

// PacketCaptureCRD is the CustomResourceDefinition of PacketCapture, as YAML.
//
//go:embed crd/weir.dev_packetcaptures.yaml
var PacketCaptureCRD []byte

// PacketCapture asks the agents of the nodes to keep packets of pods of its
// namespace.
type PacketCapture struct {
	APIVersion string              `json:"apiVersion" yaml:"apiVersion"`
	Kind       string              `json:"kind" yaml:"kind"`
	Metadata   Metadata            `json:"metadata" yaml:"metadata"`
	Spec       PacketCaptureSpec   `json:"spec" yaml:"spec"`
	Status     PacketCaptureStatus `json:"status,omitzero" yaml:"status,omitempty"`
}

// PacketCaptureSpec is which packets are kept, when, and how many at most.
type PacketCaptureSpec struct {
	Selector  LabelSelector  `json:"selector,omitzero" yaml:"selector,omitempty"`    // every pod of the namespace where it says nothing
	Filters   []PacketFilter `json:"filters,omitempty" yaml:"filters,omitempty"`     // any of them; all packets where there is none
	StartTime string         `json:"startTime,omitempty" yaml:"startTime,omitempty"` // RFC 3339; at once where there is none
	EndTime   string         `json:"endTime,omitempty" yaml:"endTime,omitempty"`     // RFC 3339; never where there is none

	// What is kept of each pod.
	MaxFileBytes   int64  `json:"maxFileBytes,omitempty" yaml:"maxFileBytes,omitempty"`
	RotateInterval string `json:"rotateInterval,omitempty" yaml:"rotateInterval,omitempty"` // as 1h30m
	MaxFiles       int64  `json:"maxFiles,omitempty" yaml:"maxFiles,omitempty"`
	MaxPackets     int64  `json:"maxPackets,omitempty" yaml:"maxPackets,omitempty"`
	SnapLength     int64  `json:"snapLength,omitempty" yaml:"snapLength,omitempty"` // bytes of each packet
}

// PacketFilter is packets that fit all of what it says.
type PacketFilter struct {
	Protocol  string   `json:"protocol,omitempty" yaml:"protocol,omitempty"`   // TCP, UDP, SCTP, ICMP, ICMPv6, or a number
	Ports     []Port   `json:"ports,omitempty" yaml:"ports,omitempty"`         // 80 or "8000-8100", of either end
	Addresses []string `json:"addresses,omitempty" yaml:"addresses,omitempty"` // or CIDRs, of either end
}

// PacketCaptureStatus is what became of it.
type PacketCaptureStatus struct {
	ObservedGeneration int64       `json:"observedGeneration,omitempty" yaml:"observedGeneration,omitempty"`
	Conditions         []Condition `json:"conditions,omitempty" yaml:"conditions,omitempty"`
	// Files has an entry for each node that has pods of the capture, or files of it.
	Files []CaptureFiles `json:"files,omitempty" yaml:"files,omitempty"`
}

// The states of a capture on a node.
const (
	CaptureCapturing         = "Capturing"
	CaptureScheduled         = "Scheduled" // its time has not come
	CaptureFinished          = "Finished"
	CaptureError             = "Error"
	CaptureWaitingForTraffic = "WaitingForTraffic" // or for a pod
)

// An agent keeps files with packets below the namespace and the name of their capture,
// and above all of them one that says how they are: a PacketCaptureList.
const (
	CaptureFileSuffix = ".pcapng"
	CaptureStateFile  = "captures.json"
)

// CaptureFiles is what a node has of a capture.
type CaptureFiles struct {
	Node      string   `json:"node" yaml:"node"`
	State     string   `json:"state" yaml:"state"`
	Message   string   `json:"message,omitempty" yaml:"message,omitempty"`
	Directory string   `json:"directory" yaml:"directory"`
	FileNames []string `json:"fileNames,omitempty" yaml:"fileNames,omitempty"`
	// Packets and Bytes were written since the agent began, Dropped are packets that
	// came faster than they could be written.
	Packets int64 `json:"packets,omitempty" yaml:"packets,omitempty"`
	Bytes   int64 `json:"bytes,omitempty" yaml:"bytes,omitempty"`
	Dropped int64 `json:"dropped,omitempty" yaml:"dropped,omitempty"`
}
