package main

import "time"

// line is one line of Hubble's export: a flow, or news of the recorder itself.
// Names and order of the fields are Hubble's.
type line struct {
	Flow       *flow          `json:"flow,omitempty"`
	NodeStatus map[string]any `json:"node_status,omitempty"`
	LostEvents map[string]any `json:"lost_events,omitempty"`
	AgentEvent map[string]any `json:"agent_event,omitempty"`
	NodeName   string         `json:"node_name"`
	Time       time.Time      `json:"time"`
}

// flow is what one node saw of one packet, or of one request.
type flow struct {
	Time               time.Time      `json:"time"`
	UUID               string         `json:"uuid"`
	Verdict            string         `json:"verdict"`
	DropReason         int            `json:"drop_reason,omitempty"`
	IP                 addresses      `json:"IP"`
	L4                 map[string]any `json:"l4"`
	Source             endpoint       `json:"source"`
	Destination        endpoint       `json:"destination"`
	Type               string         `json:"Type"`
	NodeName           string         `json:"node_name"`
	DestinationNames   []string       `json:"destination_names,omitempty"`
	L7                 map[string]any `json:"l7,omitempty"`
	EventType          eventType      `json:"event_type"`
	DestinationService *service       `json:"destination_service,omitempty"`
	TrafficDirection   string         `json:"traffic_direction,omitempty"`
	PolicyMatchType    int            `json:"policy_match_type,omitempty"`
	ObservationPoint   string         `json:"trace_observation_point,omitempty"`
	TraceReason        string         `json:"trace_reason,omitempty"`
	DropReasonDesc     string         `json:"drop_reason_desc,omitempty"`
	IsReply            *bool          `json:"is_reply,omitempty"`
	SocketPoint        string         `json:"sock_xlate_point,omitempty"`
	Summary            string         `json:"Summary"`
	IngressAllowedBy   []policy       `json:"ingress_allowed_by,omitempty"`
}

type addresses struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	IPVersion   string `json:"ipVersion"`
}

type ports struct {
	Source      int             `json:"source_port,omitempty"`
	Destination int             `json:"destination_port"`
	Flags       map[string]bool `json:"flags,omitempty"`
}

// endpoint is one end of a flow. A node knows the ID and the workloads of its
// own pods only.
type endpoint struct {
	ID          int        `json:"ID,omitempty"`
	Identity    int        `json:"identity,omitempty"`
	ClusterName string     `json:"cluster_name,omitempty"`
	Namespace   string     `json:"namespace,omitempty"`
	Labels      []string   `json:"labels,omitempty"`
	PodName     string     `json:"pod_name,omitempty"`
	Workloads   []workload `json:"workloads,omitempty"`
}

type workload struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
}

type eventType struct {
	Type    int `json:"type"`
	SubType int `json:"sub_type,omitempty"`
}

// The events that a datapath reports, by Cilium's numbers.
var (
	dropped       = eventType{1, 133}
	toEndpoint    = eventType{4, 0}
	toStack       = eventType{4, 3}
	policyVerdict = eventType{5, 0}
	socket        = eventType{7, 0}
	accessLog     = eventType{129, 0}
)

type service struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

type policy struct {
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	Labels    []string `json:"labels"`
	Revision  string   `json:"revision"`
	Kind      string   `json:"kind"`
}
