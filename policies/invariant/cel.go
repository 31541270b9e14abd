package invariant

// ExpressionTypes are the types that the expression of an invariant may have.
var ExpressionTypes = []string{"bool", "list(Connection)", "list(string)"}
