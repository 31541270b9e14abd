package rego

// Fields lets tests see which fields the sections of the world are said to have.
var Fields = fields
