package lint

// successors are what replaced a kind.
var successors = map[string]string{
	"AdminNetworkPolicy":         "a ClusterNetworkPolicy with \"tier: Admin\"",
	"BaselineAdminNetworkPolicy": "a ClusterNetworkPolicy with \"tier: Baseline\"",
}

func deprecatedKind(l *look) {
	for i := range l.Policies {
		p := &l.Policies[i]
		if successor, ok := successors[p.Ref.Kind]; ok {
			l.report(Warning, p.Place, i, "%s is deprecated and will not be served for long; write %s", p.Ref.Kind, successor)
		}
	}
}
