package lint

func notUnderstood(l *look) {
	for i := range l.Policies {
		p := &l.Policies[i]
		if p.Opaque == "" {
			continue
		}
		pods := len(l.subject(i))
		l.report(Warning, p.Place, i, "%s, so every answer about the %s it may select is unknown; write what it does as a kind that is, or leave it out with its pods", p.Opaque, counted(pods, "pod"))
	}
}
