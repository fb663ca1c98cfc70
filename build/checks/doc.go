// Package checks holds what the compiler does not: who may import whom, what the
// agent's program must not contain, and the habits of the source tree. It has
// tests only.
package checks
